"""Sections 4.2 and 4.3 of docs/vault-format.md: the key table, the superblocks, the data units."""

import struct

from . import primitives as p
from .container import newest

PAGE = 4096
STRIDE = 4608
ENTRY = 49
ENTRIES = 82


class Volume:
    """One region with its key: `pages` for the database, `keys` for what is sealed in it."""

    def __init__(self, container, region, key):
        self.container = container
        self.region = region
        self.key = key
        start = container.region_at(region)
        units = min(max(container.region_len // 262144, 2), 64)
        self.table_at = start + 16384
        self.superblocks_at = self.table_at + units * 8192
        self.units_at = self.superblocks_at + 2 * 8192
        self.unit_count = (start + container.region_len - self.units_at) // STRIDE
        self.unit_key = p.hkdf(key, b"lapwing vault 1 units")
        self.keys = self._key_table(units)
        self.length, self.page_0 = self._superblock()

    def _key_table(self, units):
        key = p.hkdf(self.key, b"lapwing vault 1 key table")
        keys = {}
        for unit in range(units):
            copies = []
            for copy in (0, 1):
                stored = self.container.at(self.table_at + (2 * unit + copy) * PAGE, PAGE)
                copies.append(p.open_sealed(key, p.place(unit, copy), stored))
            plain = newest(copies)
            if plain is None:
                raise p.Damaged("a unit of the key table does not open")
            for at in range(8, 8 + ENTRIES * ENTRY, ENTRY):
                if plain[at] == 1:
                    keys[plain[at + 1 : at + 17]] = plain[at + 17 : at + 49]
        return keys

    def _superblock(self):
        key = p.hkdf(self.key, b"lapwing vault 1 superblock")
        copies = []
        for copy in (0, 1):
            stored = self.container.at(self.superblocks_at + copy * 8192, 4160)
            copies.append(p.open_sealed(key, p.place(self.region, copy), stored))
        plain = newest(copies)
        if plain is None:
            raise p.Damaged("no superblock opens")
        _generation, length, scrubbed = struct.unpack_from("<QQQ", plain)
        if scrubbed > 1:
            raise p.Damaged("a superblock says something else than scrubbed or not")
        if length == 0:
            raise p.Damaged("a volume without a database")
        return length, plain[24:]

    def read(self, offset, length):
        """Bytes of the database, which ends at `length`."""
        if offset + length > self.length:
            raise p.Damaged("beyond the database's end")
        out = bytearray()
        while len(out) < length:
            page, start = divmod(offset + len(out), PAGE)
            out += self._page(page)[start : start + length - len(out)]
        return bytes(out)

    def _page(self, page):
        if page == 0:
            return self.page_0
        return self.unit(page - 1)

    def unit(self, unit):
        """The page in a data unit."""
        if unit >= self.unit_count:
            raise p.Damaged("beyond the region's end")
        stored = self.container.at(self.units_at + unit * STRIDE, PAGE + p.OVERHEAD)
        plain = p.open_sealed(self.unit_key, p.place(unit), stored)
        if plain is None:
            raise p.Damaged(f"data unit {unit} does not open")
        return plain

    def holds_something(self, unit):
        """Whether a unit has anything but zeros. One that a power cut left torn has nothing that a tree leads to."""
        try:
            return any(self.unit(unit))
        except p.Damaged:
            return False

"""Sections 2 and 3 of docs/vault-format.md: the file, its header, unlocking."""

import struct

from . import primitives as p

BLOCK = 4096
COPY_LEN = 69632
COPY_AT = (4096, 73728)
REGIONS_AT = 143360
SLOTS = 16
BOX = 72


class WrongPassphrase(Exception):
    """Nothing is opened by this passphrase."""


class Payload:
    """What a slot holds: section 2.3."""

    def __init__(self, fields):
        if fields.get(0) != 1:
            raise p.Damaged("the payload's version is not 1")
        self.id = fields[1]
        self.header_key = fields[2]
        self.volumes = [(region, key) for region, key in fields[3]]
        self.slots = fields[4]
        self.application = fields[7]


class Container:
    """The bytes of a container and where everything lies in them."""

    def __init__(self, image):
        size = len(image)
        if size % BLOCK or not 8 << 20 <= size <= 16 << 30:
            raise p.Damaged("no container has this size")
        self.image = image
        self.region_len = (size - REGIONS_AT) // 4 // BLOCK * BLOCK
        self.salt_block = image[:BLOCK]

    def at(self, offset, length):
        """`length` bytes at `offset`."""
        return self.image[offset : offset + length]

    def region_at(self, region):
        """Where a region begins."""
        return REGIONS_AT + region * self.region_len

    def unlock(self, passphrase, **cost):
        """The payload that a passphrase opens."""
        root = p.root_of(passphrase, self.salt_block[:32], **cost)
        found = [self._try_copy(root, copy) for copy in (0, 1)]
        if not any(found):
            raise WrongPassphrase
        key = next(payload.header_key for payload in found if payload)
        generations = [self._generation(key, copy) for copy in (0, 1)]
        if generations[0] is None and generations[1] is None:
            raise p.Damaged("no copy of the header is whole")
        if None in generations:
            counts = 1 if generations[0] is None else 0
        else:
            counts = p.newer(*generations, bits=8)
        # VLT-26: what only the other copy opens is not opened.
        if found[counts] is None:
            raise WrongPassphrase
        return found[counts]

    def _try_copy(self, root, copy):
        start = COPY_AT[copy]
        for slot in range(SLOTS):
            opener = p.hkdf(root, b"lapwing vault 1 opener" + bytes([slot]))
            outer = p.open_sealed(opener, p.place(slot, copy), self.at(start + slot * BOX, BOX))
            if outer is None:
                continue
            stored = self.at(start + BLOCK + slot * BLOCK, BLOCK)
            inner = p.keystream_xor(outer, stored[512:536], stored[536:])
            slot_key = p.hkdf(root, b"lapwing vault 1 slot" + bytes([slot]))
            padded = p.open_sealed(slot_key, p.place(slot), inner)
            if padded is None:
                continue
            payload = Payload(p.unpad(padded))
            # VLT-31: a payload in a slot that it does not name is none.
            if slot in payload.slots:
                return payload
        return None

    def _generation(self, header_key, copy):
        start = COPY_AT[copy]
        mac_key = p.hkdf(header_key, b"lapwing vault 1 header mac")
        head = self.at(start, 1752)
        slots = self.at(start + BLOCK, SLOTS * BLOCK)
        tag = self.at(start + 1752, 32)
        if not p.mac_is(mac_key, tag, self.salt_block, bytes([copy]), head, slots):
            return None
        key = p.hkdf(header_key, b"lapwing vault 1 header generation")
        plain = p.open_sealed(key, p.place(0, copy), head[1704:])
        if plain is None or len(plain) != 8:
            raise p.Damaged("generation")
        return plain[0]


class Unlocked:
    """A container with a payload: the volumes that it reaches, in the payload's order, then found ones."""

    def __init__(self, container, payload):
        self.container = container
        known = list(payload.volumes)
        # VLT-42: the units of all regions whose keys are known, and on with the keys found there. VLT-40: a
        # record counts only if its region's unit opens with its key.
        for region, key in known:
            unit = allocation_unit(container, region, key)
            if unit is None:
                continue
            for other, other_key, *_label in unit.get(2, []):
                if all(other != taken for taken, _ in known) and allocation_unit(container, other, other_key):
                    known.append((other, other_key))
        self.volumes = known


def allocation_unit(container, region, volume_key):
    """The map of section 4.1 that counts, or None."""
    key = p.hkdf(volume_key, b"lapwing vault 1 allocation")
    copies = []
    for copy in (0, 1):
        stored = container.at(container.region_at(region) + copy * 8192, 8192)
        copies.append(p.open_sealed(key, p.place(region, copy), stored))
    plain = newest(copies)
    return None if plain is None else p.unpad(plain[8:])


def newest(copies):
    """Of two plaintexts that begin with their generation, or are None, the one that counts (VLT-45)."""
    if None in copies:
        return copies[0] if copies[1] is None else copies[1]
    generations = [struct.unpack_from("<Q", plain)[0] for plain in copies]
    return copies[p.newer(*generations, bits=64)]

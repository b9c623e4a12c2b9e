"""Section 2 of docs/records-format.md: redb's file format 3, as far as reading one table needs it."""

import struct

from .primitives import Damaged

MAGIC = b"redb\x1a\x0a\xa9\x0d\x0a"
LEAF = 1
BRANCH = 2
MAX_DEPTH = 64


class Database:
    """`source.read(offset, length)` gives the database's bytes."""

    def __init__(self, source):
        self.source = source
        header = source.read(0, 320)
        if header[:9] != MAGIC:
            raise Damaged("no database")
        primary = header[9] & 1
        self.page_size, self.header_pages, self.data_pages = struct.unpack_from("<III", header, 12)
        slot = header[64 + 128 * primary :][:128]
        if slot[0] != 3:
            raise Damaged(f"database format {slot[0]}")
        self.tables_root = struct.unpack_from("<Q", slot, 8)[0] if slot[1] else None
        # The database's own bookkeeping, in a tree of tables of the same shape: not needed to read.
        self.system_root = struct.unpack_from("<Q", slot, 40)[0] if slot[2] else None

    def table(self, name):
        """Keys and values of a table whose keys and values have no fixed width, in order."""
        for key, definition in self._entries(self.tables_root):
            if key == name:
                return self._entries(self._root_of(definition))
        return iter(())

    def tables(self):
        """Names of all tables."""
        return [key for key, _definition in self._entries(self.tables_root)]

    @staticmethod
    def _root_of(definition):
        kind, _length, present, root = struct.unpack_from("<BQBQ", definition)
        fixed_key, fixed_value = definition[42], definition[47]
        if kind != 3 or fixed_key or fixed_value:
            raise Damaged("another kind of table")
        return root if present else None

    def spans(self):
        """Offset and length of each page to which a tree leads, the database's own trees included."""
        for tables in (self.tables_root, self.system_root):
            yield from self._spans(tables)
            for _key, definition in self._entries(tables):
                _kind, _length, present, root = struct.unpack_from("<BQBQ", definition)
                yield from self._spans(root if present else None)

    def _spans(self, root, depth=0):
        if root is None or depth > MAX_DEPTH:
            return
        yield self._span(root)
        page = self._page(root)
        if page[0] == BRANCH:
            (count,) = struct.unpack_from("<H", page, 2)
            for child in struct.unpack_from(f"<{count + 1}Q", page, 8 + 16 * (count + 1)):
                yield from self._spans(child, depth + 1)

    def _entries(self, root, depth=0):
        if root is None:
            return
        if depth > MAX_DEPTH:
            raise Damaged("a tree that does not end")
        page = self._page(root)
        (count,) = struct.unpack_from("<H", page, 2)
        if page[0] == LEAF:
            yield from self._leaf(page, count)
        elif page[0] == BRANCH:
            children = struct.unpack_from(f"<{count + 1}Q", page, 8 + 16 * (count + 1))
            for child in children:
                yield from self._entries(child, depth + 1)
        else:
            raise Damaged("neither leaf nor branch")

    @staticmethod
    def _leaf(page, count):
        ends = struct.unpack_from(f"<{2 * count}I", page, 4)
        starts = (4 + 8 * count, *ends[:-1])
        pieces = [page[start:end] for start, end in zip(starts, ends)]
        return zip(pieces[:count], pieces[count:])

    def _page(self, number):
        return self.source.read(*self._span(number))

    def _span(self, number):
        order = number >> 59
        index = number & (0xFFFFF >> order)
        region = number >> 20 & 0xFFFFF
        length = self.page_size << order
        region_pages = self.header_pages + self.data_pages
        start = (1 + region * region_pages + self.header_pages) * self.page_size + index * length
        return start, length

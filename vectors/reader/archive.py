"""The file of an archive (10.1): framing, order of items, and digests. Bodies are read when they are needed."""

import os
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from blake3 import blake3

from .cbor import Fields, check_version, decode, versioned
from .errors import BrokenChain, Malformed, TooMuch
from .functions import label, verify

MAGIC = b"LSAR"
HEADER, KEYS, BARE_KEYS, ENTRY, VAULT, COMMIT, VERSION, MISSING, OBJECT, MISSING_OBJECT, END = range(1, 12)
LIMIT = 8 * 1024 * 1024
OBJECT_LIMIT = 2**40 + 2**30
READ = 1024 * 1024


class Item(NamedTuple):
    """Where an item's body is, and the digest of what was there when the whole file was read."""

    type: int
    offset: int
    length: int
    digest: bytes


@dataclass
class Section:
    """A vault's items."""

    head: Item
    commits: list[Item] = field(default_factory=list)
    versions: list[Item] = field(default_factory=list)
    missing: list[Item] = field(default_factory=list)
    objects: list[Item] = field(default_factory=list)
    missing_objects: list[Item] = field(default_factory=list)


class Stream:
    """Reads one item's body and hashes it; `end` demands that it was the body that the archive's digest covers."""

    def __init__(self, file: BinaryIO, item: Item) -> None:
        self.file, self.item, self.at, self.hasher = file, item, 0, blake3()

    def read(self, count: int) -> bytes:
        """The next bytes: as many as asked, or the archive is refused."""
        self.file.seek(self.item.offset + self.at)
        data = self.file.read(count)
        self.at += len(data)
        if len(data) != count or self.at > self.item.length:
            raise Malformed("archive: an item is shorter than what it holds")
        self.hasher.update(data)
        return data

    def end(self) -> None:
        """Reads what is left, and compares."""
        while self.at < self.item.length:
            self.read(min(READ, self.item.length - self.at))
        if self.hasher.digest() != self.item.digest:
            raise BrokenChain("archive: the file changed while it was read")


class ArchiveFile:
    """An archive whose framing and order of items are right."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = os.fstat(file.fileno()).st_size
        self.hasher = blake3(derive_key_context=label("archive-bytes"))
        self.items = 0
        self.entries: list[Item] = []
        self.sections: list[Section] = []
        self._frame()

    def body(self, item: Item) -> bytes:
        """A whole body; never of an object."""
        stream = Stream(self.file, item)
        data = stream.read(item.length)
        stream.end()
        return data

    def stream(self, item: Item) -> Stream:
        """A body piece by piece."""
        return Stream(self.file, item)

    def _frame(self) -> None:
        start = self._take(6)
        if start[:4] != MAGIC:
            raise Malformed("archive: does not begin with LSAR")
        check_version(start[4], start[5], "archive")
        last = 0
        while last != END:
            # The end item is not in the digest, so its bytes are not hashed.
            head = self.file.read(9)
            if len(head) != 9:
                raise Malformed("archive: cut off")
            item_type, length = head[0], int.from_bytes(head[1:], "big")
            _check_order(last, item_type)
            if length > (OBJECT_LIMIT if item_type == OBJECT else LIMIT):
                raise TooMuch(f"archive: an item of type {item_type} has {length} bytes")
            if length > self.size - self.file.tell():
                raise Malformed("archive: cut off")
            if item_type != END:
                self.hasher.update(head)
                self.items += 1
            self._add(self._item(item_type, length))
            last = item_type
        if self.file.read(1):
            raise Malformed("archive: bytes after its end")

    def _take(self, count: int) -> bytes:
        data = self.file.read(count)
        self.hasher.update(data)
        if len(data) != count:
            raise Malformed("archive: cut off")
        return data

    def _item(self, item_type: int, length: int) -> Item:
        offset, hasher, left = self.file.tell(), blake3(), length
        while left:
            piece = self.file.read(min(READ, left))
            if not piece:
                raise Malformed("archive: cut off")
            hasher.update(piece)
            if item_type != END:
                self.hasher.update(piece)
            left -= len(piece)
        return Item(item_type, offset, length, hasher.digest())

    def _add(self, item: Item) -> None:
        if item.type == HEADER:
            self.header = item
        elif item.type in (KEYS, BARE_KEYS):
            self.keys = item
        elif item.type == ENTRY:
            self.entries.append(item)
        elif item.type == VAULT:
            self.sections.append(Section(item))
        elif item.type == END:
            self.end = item
        else:
            section = self.sections[-1]
            lists = {COMMIT: section.commits, VERSION: section.versions, MISSING: section.missing, OBJECT: section.objects,
                     MISSING_OBJECT: section.missing_objects}
            lists[item.type].append(item)

    def verify_end(self, account: bytes, device: bytes, sign_key: bytes) -> None:
        """The end item: signed by the device, over all bytes before it (10.1)."""
        fields = Fields(decode(self.body(self.end), LIMIT, "archive end"), 2, "archive end")
        data, signature = fields.octets(), fields.octets(64)
        end = versioned(data, LIMIT, 6, "archive end")
        said = (end.id(), end.id(), end.uint(), end.digest())
        if said != (account, device, self.items, self.hasher.digest()):
            raise BrokenChain("archive end: account, device, number of items or digest is not the archive's")
        verify(sign_key, "archive", data, signature, "archive end")


def _check_order(last: int, item_type: int) -> None:
    after: dict[int, tuple[int, ...]] = {
        0: (HEADER,), HEADER: (KEYS, BARE_KEYS), KEYS: (ENTRY,), BARE_KEYS: (ENTRY,), ENTRY: (ENTRY, VAULT), VAULT: (COMMIT,),
    }
    allowed = after.get(last, (*range(last, END), VAULT, END))
    if item_type not in allowed:
        raise Malformed(f"archive: an item of type {item_type} after one of type {last}")

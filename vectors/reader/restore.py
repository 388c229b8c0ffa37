"""Writes what was read: trees of snapshots and records (7). Everything goes to a folder that gets its name at the very end."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from .cbor import Fields, decode
from .envelope import ENVELOPE_LIMIT, BlobRef, Content
from .errors import Malformed

REGULAR, FOLDER, LINK = 1, 2, 3


@dataclass(frozen=True)
class Snapshot:
    """`snapshot` (7)."""

    source: bytes
    start_utc: int
    unreadable: int


@dataclass(frozen=True)
class FileRecord:
    """`file` (7)."""

    source: bytes
    path: bytes
    kind: int
    size: int
    mtime_ns: int
    mode: int
    target: bytes
    inline: bytes
    ref: BlobRef | None


def read_source(content: Content) -> str:
    """The name that a source restores under (7)."""
    fields = Fields(decode(content.document, ENVELOPE_LIMIT, "source"), 4, "source")
    fields.id(), fields.octets()
    name = fields.octets()
    fields.uint()
    if len(content.name) != 16:
        raise Malformed("source: its record name is no id")
    return safe_name(name)


def read_snapshot(content: Content) -> Snapshot:
    """`snapshot` (7)."""
    fields = Fields(decode(content.document, ENVELOPE_LIMIT, "snapshot"), 7, "snapshot")
    source, start = fields.id(), fields.uint()
    fields.uint(), fields.array(), fields.array()
    counts = fields.array(5, 5)
    fields.array()
    unreadable = counts[4]
    if not isinstance(unreadable, int):
        raise Malformed("snapshot: counts are no numbers")
    return Snapshot(source, start, unreadable)


def read_file(content: Content) -> FileRecord:
    """`file` (7)."""
    fields = Fields(decode(content.document, ENVELOPE_LIMIT, "file"), 15, "file")
    source, path, kind, size = fields.id(), fields.octets(), fields.one_of(REGULAR, FOLDER, LINK), fields.uint()
    mtime = Fields(fields.any(), 2, "file")
    seconds, nanoseconds = mtime.integer(), mtime.uint()
    mode, target, inline = fields.uint(), fields.octets(), fields.octets()
    for _ in range(7):
        fields.null()
    components = path.split(b"/") if path else []
    if any(part in (b"", b".", b"..") or b"\0" in part for part in components):
        raise Malformed("file: its path is none")
    if content.name != source + path or len(path) > 4096 or nanoseconds > 999_999_999 or mode > 0o7777:
        raise Malformed("file: record name, path, time or mode is wrong")
    refs = content.blobs
    held = refs[0].size if len(refs) == 1 and not inline else len(inline)
    if (kind == REGULAR and (len(refs) > 1 or (refs and inline) or held != size)) or (kind != REGULAR and (refs or inline)):
        raise Malformed("file: contents are not what its kind and size say")
    if b"\0" in target or (kind == LINK) != bool(target):
        raise Malformed("file: a target where none belongs, or none")
    return FileRecord(source, path, kind, size, seconds * 10**9 + nanoseconds, mode, target, inline, refs[0] if refs else None)


def safe_name(name: bytes) -> str:
    """A name as one component: what is not plain is written as %XX."""
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
    text = "".join(chr(b) if b in plain else f"%{b:02X}" for b in name) or "%"
    return "%2E" + text[1:] if text.startswith(".") else text


class Tree:
    """One snapshot's tree. Links come last, so that nothing is ever written through one."""

    def __init__(self, root: Path) -> None:
        self.root = os.fsencode(root)
        self.folders: list[FileRecord] = []
        self.links: list[FileRecord] = []
        self.damaged: list[str] = []

    def place(self, path: bytes) -> bytes:
        """Where a path of the snapshot is."""
        return os.path.join(self.root, path) if path else self.root

    def add(self, file: FileRecord) -> bytes | None:
        """Writes what can be written now; gives the place of a file whose contents are an object."""
        place = self.place(file.path)
        if file.kind == LINK:
            self.links.append(file)
            return None
        try:
            if file.kind == FOLDER:
                os.makedirs(place, exist_ok=True)
                self.folders.append(file)
                return None
            os.makedirs(os.path.dirname(place), exist_ok=True)
            if file.ref is not None:
                return place
            with open(place, "xb") as out:
                out.write(file.inline)
            finish_file(place, file)
        except OSError as error:
            self.damaged.append(f"{os.fsdecode(file.path)}: {error.strerror}")
        return None

    def finish(self) -> None:
        """Links, and then times and modes of folders, the deepest first."""
        for file in self.links:
            place = self.place(file.path)
            try:
                os.makedirs(os.path.dirname(place), exist_ok=True)
                os.symlink(file.target, place)
                os.utime(place, ns=(file.mtime_ns, file.mtime_ns), follow_symlinks=False)
            except OSError as error:
                self.damaged.append(f"{os.fsdecode(file.path)}: {error.strerror}")
        for file in sorted(self.folders, key=lambda f: f.path, reverse=True):
            finish_file(self.place(file.path), file)


def finish_file(place: bytes, file: FileRecord) -> None:
    """Mode (without set-user-id and the like) and time of a file or folder."""
    os.utime(place, ns=(file.mtime_ns, file.mtime_ns))
    os.chmod(place, file.mode & 0o777)


def put_in_place(part: Path, targets: list[tuple[bytes, FileRecord | None]]) -> None:
    """Gives a whole file its names."""
    for place, file in targets:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if os.path.lexists(place):
            raise FileExistsError(17, "there is something in its place", place)
        shutil.copyfile(part, place)
        if file is not None:
            finish_file(place, file)

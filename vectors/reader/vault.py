"""One vault of an archive: its chain, its versions, its objects (10.1, in the order of "Reading")."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from .account import id_text
from .archive import ArchiveFile, Item, Section
from .cbor import Fields, bytes_list, decode, encode, signed
from .chain import Chain, Version
from .commits import vault_log_entry
from .devices import DeviceLog
from .envelope import Announced, Content, VaultSecrets, envelope_digest, open_announced
from .errors import BrokenChain, Malformed, Refused

LIMIT = 8 * 1024 * 1024


@dataclass
class Vault:
    """A vault while it is read."""

    archive: ArchiveFile
    section: Section
    log: DeviceLog
    id: bytes
    vault_log: list[bytes]
    chain: Chain
    keys: dict[int, bytes] = field(default_factory=dict)
    secrets: VaultSecrets | None = None
    versions: dict[tuple[int, bytes], Item] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)

    def read_chain(self) -> None:
        """Every commit from genesis on; the vault log is that of the rotations that count (6.3, 10.1)."""
        self.chain.read(len(self.section.commits), self._commit)
        compared = not self.chain.fault or self.id == self.log.keyring
        if compared and [entry.signed for entry in self.chain.vault_log] != self.vault_log:
            raise BrokenChain(f"vault {id_text(self.id)}: its log is not that of the rotations that count")

    def check_genesis(self, genesis: bytes) -> None:
        """The genesis is the one that the keyring has (4.2)."""
        if self._commit(0)[0] != genesis:
            raise BrokenChain(f"vault {id_text(self.id)}: its genesis is not the one that the keyring has")

    def _commit(self, at: int) -> tuple[bytes, bytes]:
        fields = Fields(decode(self.archive.body(self.section.commits[at]), LIMIT, "commit item"), 2, "commit item")
        return encode(list(fields.signed())), fields.octets()

    def read_versions(self) -> Iterator[tuple[bytes, Version, Content]]:
        """Every version, by the digest that a change list announced; what does not open is quarantined (5, 6.5)."""
        last = (-1, b"")
        for item in self.section.versions:
            seq, record, revision, kind, envelope = self._entry(item)
            if (seq, record) <= last:
                raise Malformed("archive: versions are not ascending")
            last = (seq, record)
            if self.chain.fault and seq >= len(self.chain.marks):
                continue
            version = self._announced(seq, record)
            if version is None or (revision, kind) != (version.revision, 2 if version.tombstone else 1):
                raise BrokenChain(f"vault {id_text(self.id)}: a version of commit {seq} that no change list announces")
            if envelope_digest(envelope) != version.digest:
                raise BrokenChain(f"vault {id_text(self.id)}: a version of commit {seq} with another digest than announced")
            self.versions[last] = item
            content = self._open(record, version, envelope)
            if content is not None:
                yield record, version, content

    def _entry(self, item: Item) -> tuple[int, bytes, int, int, bytes]:
        fields = Fields(decode(self.archive.body(item), LIMIT, "version item"), 5, "version item")
        return fields.uint(), fields.id(), fields.uint(), fields.one_of(1, 2), fields.octets()

    def _announced(self, seq: int, record: bytes) -> Version | None:
        return next((v for v in self.chain.versions.get(record, []) if v.seq == seq), None)

    def _open(self, record: bytes, version: Version, envelope: bytes) -> Content | None:
        mark = self.chain.marks[version.seq]
        kind = 2 if version.tombstone else 1
        announced = Announced(self.id, record, version.revision, kind, mark.epoch, mark.device, version.blobs)
        assert self.secrets is not None
        try:
            return open_announced(envelope, announced, self.keys.get(mark.epoch), self.secrets)
        except Refused as refused:
            who = id_text(mark.device)
            self.quarantined.append(f"record {id_text(record)} of commit {version.seq}, by device {who}: {refused}")
            return None

    def reopen(self, record: bytes, version: Version) -> Content | None:
        """A version that was read before."""
        item = self.versions.get((version.seq, record))
        if item is None:
            return None
        count = len(self.quarantined)
        content = self._open(record, version, self._entry(item)[4])
        del self.quarantined[count:]
        return content

    def check_complete(self) -> None:
        """What is in force at the head and at pinned snapshots is there, or named as missing (10.1)."""
        said = self._said_missing()
        head = len(self.chain.marks) - 1
        objects = self.objects()
        gone = self._gone_objects(objects)
        wanted: set[tuple[int, bytes]] = set()
        blobs: set[bytes] = set()
        for seq in sorted({head, *self.chain.pinned()}):
            self.chain.check_state(seq)
            for record, version in self.chain.in_force(seq):
                wanted.add((version.seq, record))
                blobs.update(version.blobs)
        for seq, record in sorted(wanted - self.versions.keys()):
            silent = "" if (seq, record) in said else ", and the archive does not say so"
            self.missing.append(f"record {id_text(record)} of commit {seq}{silent}")
        for blob in sorted(blobs - objects.keys()):
            silent = "" if blob in gone else ", and the archive does not say so"
            self.missing.append(f"object {id_text(blob)}{silent}")

    def _said_missing(self) -> set[tuple[int, bytes]]:
        said: list[tuple[int, bytes]] = []
        for item in self.section.missing:
            fields = Fields(decode(self.archive.body(item), 64, "missing version"), 2, "missing version")
            place = (fields.uint(), fields.id())
            if (said and place <= said[-1]) or place in self.versions:
                raise Malformed("archive: missing versions are not ascending, or there after all")
            if not self.chain.fault and self._announced(*place) is None:
                raise BrokenChain(f"vault {id_text(self.id)}: a missing version that no change list announces")
            said.append(place)
        return set(said)

    def objects(self) -> dict[bytes, Item]:
        """Items 9 by blob id."""
        found: dict[bytes, Item] = {}
        last = b""
        for item in self.section.objects:
            blob = self.archive.stream(item).read(16) if item.length >= 16 else b""
            if blob <= last:
                raise Malformed("archive: objects are not ascending")
            last = blob
            found[blob] = item
        return found

    def _gone_objects(self, objects: dict[bytes, Item]) -> set[bytes]:
        said = bytes_list([self.archive.body(item) for item in self.section.missing_objects], 16, "missing object")
        if any(a >= b for a, b in zip(said, said[1:])) or set(said) & objects.keys():
            raise Malformed("archive: missing objects are not ascending, or there after all")
        return set(said)


def open_vault(archive: ArchiveFile, section: Section, log: DeviceLog, create: bytes | None) -> Vault:
    """Item 5. The creation is the keyring's where the keyring has one (4.2); the keyring vault's own is the archive's."""
    fields = Fields(decode(archive.body(section.head), LIMIT, "archive vault"), 2, "archive vault")
    vault, entries = fields.id(), fields.array(1, 4096)
    vault_log = [encode(list(signed(entry, "archive vault"))) for entry in entries]
    for entry in vault_log:
        if vault_log_entry(entry)[0].vault != vault:
            raise BrokenChain(f"vault {id_text(vault)}: a log entry of another vault")
    return Vault(archive, section, log, vault, vault_log, Chain(log, vault, create or vault_log[0]))

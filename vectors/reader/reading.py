"""Opens an archive in the order of 10.1 "Reading", and writes what it holds."""

from dataclasses import dataclass, field
from pathlib import Path

from .account import (
    PASSPHRASE,
    KeyHeader,
    account_fingerprint,
    bare_keys,
    check_identity,
    checkpoint,
    id_text,
    key_header,
    keyring_keys,
    keyring_secret,
    root_by_passphrase,
    root_by_recovery_key,
)
from .archive import BARE_KEYS, LIMIT, ArchiveFile, Section
from .bech32m import Kit
from .blob import write_object
from .cbor import Fields, decode, versioned
from .chain import Chain, Version
from .devices import DeviceLog, Pin, open_device_name
from .envelope import BlobRef, Content, vault_secrets
from .errors import BrokenChain, CannotOpen, Malformed, Refused, TooMuch, WrongIdentity
from .keyring import Keyring, KnownVault
from .restore import FileRecord, Snapshot, Tree, put_in_place, read_file, read_snapshot, read_source, safe_name
from .vault import Vault, open_vault

Targets = dict[BlobRef, list[tuple[bytes, FileRecord | None]]]


@dataclass
class Report:
    """What is said at the end. `named` is what is not as it should be, although the archive is what its device made."""

    lines: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)


def read_archive(path: Path, secret: str | Kit, staging: Path, ignored: set[bytes]) -> Report:
    """Reads all of an archive into a folder that is there and empty; whoever calls gives the folder its name."""
    with path.open("rb") as file:
        return Reader(ArchiveFile(file), secret, staging, ignored).read()


class Reader:
    """An archive while it is read."""

    def __init__(self, archive: ArchiveFile, secret: str | Kit, staging: Path, ignored: set[bytes]) -> None:
        self.archive, self.secret, self.staging, self.ignored = archive, secret, staging, ignored
        self.report = Report()
        self.heads: list[tuple[bytes, int, bytes]] = []
        self.fingerprint = ""

    def read(self) -> Report:
        """Everything, in the order of 10.1."""
        self._header()
        keys = self._keys()
        self._device_log(keys)
        ring = keyring_keys(self._root(keys), keys)
        vault, keyring = self._keyring(ring)
        self._log_pins(vault)
        self._count(vault, "keyring", len(vault.chain.versions))
        self._vaults(keyring)
        self.archive.verify_end(self.account, self.device, self.log.devices[self.device].sign_key)
        self._say_who(ring, keyring)
        return self.report

    def _header(self) -> None:
        fields = versioned(self.archive.body(self.archive.header), LIMIT, 6, "archive header")
        self.account, self.identity, self.device, self.utc = fields.id(), fields.digest(), fields.id(), fields.uint()
        check_identity(self.account, self.identity)
        if isinstance(self.secret, Kit) and self.secret.account not in (None, self.account):
            raise WrongIdentity("the kit is of another account")

    def _keys(self) -> KeyHeader:
        data = self.archive.body(self.archive.keys)
        keys = (bare_keys if self.archive.keys.type == BARE_KEYS else key_header)(data, self.account)
        if isinstance(self.secret, str) and PASSPHRASE not in keys.wraps:
            raise CannotOpen("the archive was made without the passphrase's wrap: only the recovery key opens it")
        return keys

    def _device_log(self, keys: KeyHeader) -> None:
        self.log = DeviceLog(self.account, self.identity)
        for item in self.archive.entries:
            self.log.append(self.archive.body(item))
        self.log.end(keys)
        if self.device not in self.log.live_devices():
            raise BrokenChain("archive: its device is not in the log, or was revoked")

    def _root(self, keys: KeyHeader) -> bytes:
        """Steps 3 and 4 of 2.2: only now the secret is used."""
        if isinstance(self.secret, str):
            return root_by_passphrase(keys, self.secret)
        return root_by_recovery_key(keys, self.secret.recovery)

    def _keyring(self, ring: dict[int, bytes]) -> tuple[Vault, Keyring]:
        if not self.archive.sections:
            raise Malformed("archive: no vaults")
        vault = open_vault(self.archive, self.archive.sections[0], self.log, None)
        if vault.id != self.log.keyring:
            raise Malformed("archive: its first vault is not the keyring")
        vault.keys, vault.secrets = ring, vault_secrets(keyring_secret(ring[1], self.account), vault.id)
        vault.read_chain()
        keyring = Keyring(self.log, vault.chain)
        for record, version, content in vault.read_versions():
            keyring.take(record, version, content)
        vault.check_complete()
        keyring.finish()
        return vault, keyring

    def _log_pins(self, keyring: Vault) -> None:
        """The pins of the keyring in the device log, and the kit's checkpoint."""
        for pin in self.log.pins:
            if pin.vault == keyring.id:
                keyring.chain.check_pin(pin)
        if isinstance(self.secret, Kit) and self.secret.checkpoint is not None:
            point = checkpoint(self.secret.checkpoint)
            if point.account != self.account:
                raise WrongIdentity("the kit's checkpoint is of another account")
            self.log.check_pin(point.device_log_index, point.device_log_head, "the kit")
            keyring.chain.check_pin(Pin(keyring.id, point.keyring_seq, point.keyring_head, "the kit"))

    def _vaults(self, keyring: Keyring) -> None:
        self._head_pins(keyring, self.log.keyring, keyring.chain)
        there = set()
        last = b""
        for section in self.archive.sections[1:]:
            vault_id = Fields(decode(self.archive.body(section.head), LIMIT, "archive vault"), 2, "archive vault").id()
            if vault_id <= last:
                raise Malformed("archive: vaults are not ascending")
            last = vault_id
            there.add(vault_id)
            if vault_id in keyring.vaults:
                self._vault(section, keyring, keyring.vaults[vault_id])
            elif vault_id not in keyring.deleted:
                self.report.named.append(f"vault {id_text(vault_id)}: left out, the keyring has no key for it")
        for vault_id in sorted(keyring.vaults.keys() - there):
            self.report.named.append(f"vault {id_text(vault_id)}: the keyring knows it, and the archive lacks it")

    def _vault(self, section: Section, keyring: Keyring, known: KnownVault) -> None:
        vault = open_vault(self.archive, section, self.log, known.create)
        if vault.vault_log[0] != known.create:
            raise BrokenChain(f"vault {id_text(known.id)}: its creation is not the one that the keyring has")
        vault.keys, vault.secrets = known.keys, vault_secrets(known.secret, known.id)
        vault.check_genesis(known.genesis)
        vault.read_chain()
        for pin in self.log.pins:
            if pin.vault == known.id:
                vault.chain.check_pin(pin)
        if not self._head_pins(keyring, known.id, vault.chain):
            return
        records, objects = self._contents(vault, known)
        self._count(vault, known.name, records, objects)

    def _contents(self, vault: Vault, known: KnownVault) -> tuple[int, int]:
        """Writes what a vault holds; gives how many records and objects."""
        content = _Contents(vault, self._folder(known), self.report)
        content.read()
        return content.records, content.objects

    def _folder(self, known: KnownVault) -> Path:
        folder = self.staging / safe_name(known.name.encode("utf-8"))
        if folder.exists():
            folder = self.staging / id_text(known.id)
        folder.mkdir(parents=True)
        return folder

    def _head_pins(self, keyring: Keyring, vault: bytes, chain: Chain) -> bool:
        """Whether every head pin is satisfied, but for those of devices that the user said to ignore (10.1)."""
        good = True
        for said in keyring.head_pins:
            try:
                if vault == self.log.keyring:
                    self.log.check_pin(said.log_index, said.log_head, f"the head pin of device {id_text(said.device)}")
                for pin in said.pins:
                    if pin.vault == vault:
                        chain.check_pin(pin)
            except Refused as refused:
                if vault == self.log.keyring and said.device not in self.ignored:
                    raise
                ignored = ", ignored" if said.device in self.ignored else ", the vault is not read"
                self.report.named.append(f"{refused}{ignored}")
                good = good and said.device in self.ignored
        return good

    def _count(self, vault: Vault, name: str, records: int, objects: int = 0) -> None:
        seq, head = len(vault.chain.marks) - 1, vault.chain.marks[-1].hash
        self.heads.append((vault.id, seq, head))
        self.report.lines.append(
            f"vault {id_text(vault.id)} {name}: head {seq} {head.hex()}, {len(vault.section.commits)} commits, {records} records, "
            f"{objects} objects, {len(vault.quarantined)} quarantined, {len(vault.missing)} missing")
        title = f"vault {id_text(vault.id)}"
        if vault.chain.fault:
            self.report.named.append(f"{title}: read up to commit {seq}, its last good one: {vault.chain.fault}")
        self.report.named += [f"{title}: quarantined: {line}" for line in vault.quarantined]
        self.report.named += [f"{title}: missing: {line}" for line in vault.missing]

    def _say_who(self, ring: dict[int, bytes], keyring: Keyring) -> None:
        device = self.log.devices[self.device]
        name = keyring.device_names.get(self.device)
        if name is None:
            try:
                name = open_device_name(ring[device.name.number], self.account, self.device, device.name)
            except (Refused, KeyError):
                name = "(its name can not be opened)"
        index = len(self.log.hashes) - 1
        heads = sorted(self.heads)
        self.fingerprint = account_fingerprint(self.account, index, self.log.hashes[-1], [[v, s, h] for v, s, h in heads])
        self.report.lines[:0] = [
            f"account {id_text(self.account)}",
            f"made by device {id_text(self.device)} {name!r} at {self.utc}, device log index {index}",
            f"account fingerprint {self.fingerprint}",
        ]


class _Contents:
    """The versions and objects of one vault, on their way to files."""

    def __init__(self, vault: Vault, folder: Path, report: Report) -> None:
        self.vault, self.folder, self.report = vault, folder, report
        self.targets: Targets = {}
        self.sources: dict[bytes, str] = {}
        self.snapshots: dict[bytes, tuple[int, Snapshot]] = {}
        self.trees: list[Tree] = []
        self.records, self.objects = 0, 0

    def read(self) -> None:
        """Versions, completeness, the newest snapshot of each source, records, objects."""
        for record, version, content in self.vault.read_versions():
            for ref in content.blobs:
                self.targets.setdefault(ref, [])
            if self.vault.chain.versions[record][-1] == version and not version.tombstone:
                self._newest(record, version, content)
        self.vault.check_complete()
        for source, (seq, _) in sorted(self.snapshots.items()):
            self._tree(source, seq)
        self._objects()
        for tree in self.trees:
            tree.finish()
            self.report.named += [f"vault {id_text(self.vault.id)}: not written: {line}" for line in tree.damaged]

    def _newest(self, record: bytes, version: Version, content: Content) -> None:
        """A record as of the head."""
        self.records += 1
        try:
            if content.type == "lockstep/source":
                self.sources[content.name] = read_source(content)
            elif content.type == "lockstep/snapshot" and version.revision == 1:
                snapshot = read_snapshot(content)
                if version.seq > self.snapshots.get(snapshot.source, (-1, snapshot))[0]:
                    self.snapshots[snapshot.source] = (version.seq, snapshot)
            elif content.type == "lockstep/file":
                read_file(content)
                return
        except Malformed as error:
            self.vault.quarantined.append(f"record {id_text(record)} of commit {version.seq}: {error}")
            return
        self._record(record, version, content)

    def _record(self, record: bytes, version: Version, content: Content) -> None:
        folder = self.folder / "records"
        folder.mkdir(exist_ok=True)
        (folder / id_text(record)).write_bytes(content.document)
        for number, ref in enumerate(content.blobs):
            self.targets[ref].append((bytes(folder / f"{id_text(record)}.{number}"), None))
        with (folder / "index").open("a", encoding="utf-8") as index:
            index.write(f"{id_text(record)}\t{safe_name(content.type.encode())}\t{content.name.hex()}\t{version.revision}\t{version.seq}\n")

    def _tree(self, source: bytes, seq: int) -> None:
        name = self.sources.get(source, id_text(source))
        root = self.folder / "snapshots" / name
        if root.exists():
            root = self.folder / "snapshots" / id_text(source)
        root.parent.mkdir(exist_ok=True)
        tree = Tree(root)
        self.trees.append(tree)
        for record, version in self.vault.chain.in_force(seq):
            place = f"record {id_text(record)} of commit {version.seq}"
            if (version.seq, record) not in self.vault.versions and not any(line.startswith(place) for line in self.vault.missing):
                self.vault.missing.append(f"{place}, in a snapshot that is not pinned")
            content = None if version.tombstone else self.vault.reopen(record, version)
            if content is None or content.type != "lockstep/file" or content.name[:16] != source:
                continue
            try:
                file = read_file(content)
            except Malformed as error:
                tree.damaged.append(f"record {id_text(record)}: {error}")
                continue
            target = tree.add(file)
            if target is not None and file.ref is not None:
                self.targets[file.ref].append((target, file))
        self.report.lines.append(f"snapshot of commit {seq}, source {id_text(source)}: {root.relative_to(self.folder.parent)}")

    def _objects(self) -> None:
        """Every object, whether or not a file is made of it; a file gets its name only when whole (9)."""
        items = self.vault.objects()
        assert self.vault.secrets is not None
        part = self.folder / ".part"
        for ref, targets in sorted(self.targets.items(), key=lambda pair: (pair[0].blob, pair[0].seed)):
            item = items.get(ref.blob)
            if item is None:
                continue
            try:
                stream = self.vault.archive.stream(item)
                stream.read(16)
                with part.open("wb") as out:
                    write_object(stream, item.length - 16, ref, self.vault.secrets, out)
                stream.end()
                self.objects += 1
                put_in_place(part, targets)
            except (CannotOpen, TooMuch, OSError) as error:
                self.vault.missing.append(f"object {id_text(ref.blob)}: {error}")
        part.unlink(missing_ok=True)

"""The commit chain of a vault: state digest (6.2), valid chains (6.3), repairs (6.7), rotations (3.1)."""

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from .account import ZERO
from .cbor import encode
from .commits import (
    CHANGE,
    GENESIS,
    REPAIR,
    ROTATE,
    VAULT_LOG_ENTRIES,
    Changes,
    Commit,
    Put,
    VaultLogEntry,
    changes,
    commit,
    repair_input,
    vault_log_entry,
)
from .devices import DeviceLog, Pin
from .errors import BadSignature, BrokenChain, Fault, Fork, Malformed, Refused, Rollback, WrongVersion
from .functions import H, verify

EPOCH_STEP = 2**32
LANES = 1024


def element(record: bytes, revision: int, digest: bytes, seq: int) -> tuple[int, ...]:
    """The element of one version in the state (6.2)."""
    return struct.unpack("<1024H", H("state-element", encode([record, revision, digest, seq]), 2 * LANES))


def add(state: list[int], lanes: tuple[int, ...], sign: int) -> list[int]:
    """Adds an element to a state, or takes it away: lane by lane mod 2^16 (6.2)."""
    return [(a + sign * b) & 0xFFFF for a, b in zip(state, lanes)]


def state_bytes(state: list[int]) -> bytes:
    """The 2,048 bytes of a state (6.2)."""
    return struct.pack("<1024H", *state)


def checksum(state: list[int]) -> bytes:
    """What a commit signs of a state (6.2)."""
    return H("state-checksum", state_bytes(state))


def skip_target(seq: int) -> int:
    """The seq of the commit that `skip` names (6.1)."""
    return seq - (seq & -seq)


@dataclass(frozen=True)
class Version:
    """A version of a record, as the commit `seq` put it."""

    seq: int
    revision: int
    digest: bytes
    blobs: tuple[bytes, ...]
    tombstone: bool


@dataclass(frozen=True)
class Mark:
    """A place of the chain: what later commits need of it. `counts` is false for what a repair went back over."""

    hash: bytes
    counts: bool
    epoch: int
    device: bytes
    device_log_index: int
    vault_log: tuple[int, bytes]
    state: bytes
    utc: int


class Chain:
    """A verified chain from genesis on (6.3), and every version that counts in it."""

    def __init__(self, log: DeviceLog, vault: bytes, create: bytes) -> None:
        self.log, self.vault, self.create = log, vault, create
        self.marks: list[Mark] = []
        self.vault_log: list[VaultLogEntry] = []
        self.versions: dict[bytes, list[Version]] = {}
        self.state = [0] * LANES
        self.pin_changes: list[tuple[int, bool, int]] = []
        self.given_up: list[tuple[int, bytes]] = []
        self.abandoned: list[bytes] = []
        self.fault: Fault | None = None

    def read(self, count: int, item: Callable[[int], tuple[bytes, bytes]]) -> None:
        """Reads all commits. After a fault looks for a repair by links only; without one the chain ends before the fault (6.3, 6.7)."""
        place = 0
        while place < count:
            try:
                self.step(*item(place))
                place += 1
            except Fault as fault:
                after = self._past(place, count, item)
                if after is None:
                    self.fault = fault
                    return
                place = after

    def _past(self, place: int, count: int, item: Callable[[int], tuple[bytes, bytes]]) -> int | None:
        good = len(self.marks)
        if good == 0:
            return None
        for at in range(place, count):
            made, _, _ = commit(item(at)[0])
            if made.vault != self.vault or made.seq != at or made.previous != self.marks[-1].hash:
                break
            if made.kind == REPAIR and at > place:
                try:
                    self._repair_after(good - 1, *item(at))
                    return at + 1
                except Refused:
                    pass
            self._link(made)
        del self.marks[good:]
        return None

    def _repair_after(self, last_good: int, signed_bytes: bytes, change_bytes: bytes) -> None:
        back = changes(change_bytes).back_to
        if back is None or back > last_good:
            raise Fault("not a repair that goes back to a commit that counts")
        self.step(signed_bytes, change_bytes)

    def _link(self, made: Commit) -> None:
        last = self.marks[-1]
        self.marks.append(Mark(made.hash, False, last.epoch, made.device, last.device_log_index, last.vault_log, last.state, made.utc))

    def step(self, signed_bytes: bytes, change_bytes: bytes) -> None:
        """Verifies the next commit in full and takes it over (6.3)."""
        made, data, signature = commit(signed_bytes)
        what = f"vault {self.vault.hex()}: commit {made.seq}"
        previous = self.marks[-1].hash if self.marks else ZERO
        if made.vault != self.vault or made.seq != len(self.marks):
            raise BrokenChain(f"{what}: of another vault or not the next")
        if made.previous != previous:
            raise (Fork if self.marks else BrokenChain)(f"{what}: does not follow the commit before it")
        device = self.log.devices.get(made.device)
        if device is None:
            raise BrokenChain(f"{what}: by a device that is not in the log")
        verify(device.sign_key, "commit", data, signature, what)
        if made.device_log_index >= len(self.log.hashes):
            raise BrokenChain(f"{what}: names a device-log entry that is not there")
        if H("changes", change_bytes) != made.changes:
            raise BrokenChain(f"{what}: its change list is another one")
        try:
            listed = changes(change_bytes)
        except Malformed as error:
            raise Fault(f"{what}: {error}", error.kind) from error
        if made.skip != (self.marks[skip_target(made.seq)].hash if made.seq else ZERO):
            raise Fault(f"{what}: skip link is wrong")
        rules = {GENESIS: self._genesis, CHANGE: self._change, ROTATE: self._rotate, REPAIR: self._repair}
        rules[made.kind](made, listed, what)

    def _author(self, made: Commit, least: int, what: str) -> None:
        """The device-log entry that a commit names, and that its device may write at it (3.1, 6.3)."""
        device = self.log.devices[made.device]
        if made.device_log_index < least or not self.log.at(made.device_log_index, made.device_log_head):
            raise Fault(f"{what}: device-log entry goes back or is another one")
        if not device.live(made.device_log_index):
            raise Fault(f"{what}: its device is not live at the entry that it names")
        # A birth stands, pinned or not (3.1).
        if made.kind != GENESIS and not device.counts(self.vault, made.seq):
            raise Fault(f"{what}: beyond the pin of its device's revocation")

    def _place(self, made: Commit, base: Mark, what: str) -> None:
        """Epoch, logs and author, as after `base` (6.3)."""
        self._author(made, base.device_log_index, what)
        if made.epoch != base.epoch:
            raise Fault(f"{what}: epoch {made.epoch}, the vault's is {base.epoch}")
        if (made.vault_log_index, made.vault_log_head) != base.vault_log:
            raise Fault(f"{what}: vault-log entry is not the one in force")

    def _take(self, made: Commit, vault_log: tuple[int, bytes], what: str) -> None:
        if made.state != checksum(self.state):
            raise Fault(f"{what}: state is not the one that it signs")
        self.marks.append(Mark(made.hash, True, made.epoch, made.device, made.device_log_index, vault_log, made.state, made.utc))

    def _genesis(self, made: Commit, listed: Changes, what: str) -> None:
        entry, data, signature = vault_log_entry(self.create)
        if entry.identity != self.log.identity or entry.account != self.log.account:
            raise BrokenChain(f"{what}: the vault is of another account")
        if entry.kind != 1 or entry.vault != self.vault or entry.device != made.device:
            raise BrokenChain(f"{what}: vault-log entry 0 does not create this vault")
        verify(self.log.devices[made.device].sign_key, "vault-log-entry", data, signature, "vault-log entry 0")
        if listed.values or made.epoch != 1 or (made.vault_log_index, made.vault_log_head) != (0, entry.hash):
            raise Fault(f"{what}: changes, epoch or vault-log entry of a genesis are wrong")
        if (entry.device_log_index, entry.device_log_head) != (made.device_log_index, made.device_log_head):
            raise Fault(f"{what}: the creation names another device-log entry")
        self._author(made, 0, what)
        self.vault_log.append(entry)
        try:
            self._take(made, (0, entry.hash), what)
        except Fault:
            self.vault_log.pop()
            raise

    def _change(self, made: Commit, listed: Changes, what: str) -> None:
        self._place(made, self.marks[-1], what)
        revoked = self.log.last_revocation(made.device_log_index)
        if revoked is not None and revoked > self.vault_log[-1].device_log_index:
            raise Fault(f"{what}: no new epoch after a revocation")
        if not listed.values or len(listed.puts) + len(listed.pins) != len(listed.values):
            raise Fault(f"{what}: no changes, or some that do not belong into a commit of kind 2")
        if any(seq > made.seq for _, seq in listed.pins):
            raise Fault(f"{what}: pins a commit to come")
        before = self.state
        for put in listed.puts:
            versions = self.versions.get(put.record, [])
            if put.revision != (versions[-1].revision if versions else 0) + 1:
                self.state = before
                raise Fault(f"{what}: revision of record {put.record.hex()} is not the next")
            if versions:
                self._sum(put.record, versions[-1], -1)
            self._sum(put.record, _version(made.seq, put), 1)
        try:
            self._take(made, self.marks[-1].vault_log, what)
        except Fault:
            self.state = before
            raise
        for put in listed.puts:
            self.versions.setdefault(put.record, []).append(_version(made.seq, put))
        self.pin_changes += [(made.seq, on, seq) for on, seq in listed.pins]

    def _sum(self, record: bytes, version: Version, sign: int) -> None:
        self.state = add(self.state, element(record, version.revision, version.digest, version.seq), sign)

    def _rotate(self, made: Commit, listed: Changes, what: str) -> None:
        """Kind 3 (3.1, 4.1, 6.3)."""
        last = self.marks[-1]
        self._author(made, last.device_log_index, what)
        if listed.rotation is None:
            raise Fault(f"{what}: a rotation carries its vault-log entry and nothing else")
        try:
            entry, data, signature = vault_log_entry(listed.rotation)
            verify(self.log.devices[made.device].sign_key, "vault-log-entry", data, signature, f"{what}: vault-log entry")
        except (Malformed, WrongVersion, BadSignature) as error:
            raise Fault(f"{what}: {error}", error.kind) from error
        head = self.vault_log[-1]
        follows = entry.kind == 2 and entry.vault == self.vault and entry.index == head.index + 1 and entry.previous == head.hash
        ours = (entry.account, entry.identity) == (self.log.account, self.log.identity)
        same = (entry.epoch, entry.device, entry.device_log_index, entry.device_log_head) == (
            made.epoch, made.device, made.device_log_index, made.device_log_head)
        named = (made.vault_log_index, made.vault_log_head) == (entry.index, entry.hash)
        if not (follows and ours and same and named) or entry.index >= VAULT_LOG_ENTRIES:
            raise Fault(f"{what}: vault-log entry does not follow, or is not the commit's")
        revoked = self.log.last_revocation(made.device_log_index)
        if revoked is None or revoked <= head.device_log_index:
            raise Fault(f"{what}: a rotation without a revocation")
        if not last.epoch < made.epoch <= last.epoch + EPOCH_STEP:
            raise Fault(f"{what}: epoch does not rise, or by too much")
        if self.vault == self.log.keyring and made.epoch != 1 + sum(r <= made.device_log_index for r in self.log.revocations):
            raise Fault(f"{what}: epoch is not the keyring's")
        self._take(made, (entry.index, entry.hash), what)
        self.vault_log.append(entry)

    def _repair(self, made: Commit, listed: Changes, what: str) -> None:
        """Kind 5, with and without change 8 (6.3, 6.7)."""
        if listed.authority is None:
            raise Fault(f"{what}: changes of a repair are wrong")
        back = len(self.marks) - 1 if listed.back_to is None else listed.back_to
        if back >= len(self.marks) or not self.marks[back].counts:
            raise Fault(f"{what}: goes back to a commit that does not count")
        if listed.back_to == len(self.marks) - 1:
            raise Fault(f"{what}: goes back over nothing")
        base = self.marks[back]
        self._place(made, base, what)
        said = repair_input(self.log.account, self.vault, made.seq, made.previous, made.device, listed)
        try:
            verify(self.log.identity, "repair", said, listed.authority, what)
        except BadSignature as error:
            raise Fault(f"{what}: the identity's word is not valid") from error
        if made.state != base.state:
            raise Fault(f"{what}: state is not the one after commit {back}")
        self.abandoned += [mark.hash for mark in self.marks[back + 1:] if mark.hash not in self.abandoned]
        self.abandoned += [head for _, head in listed.abandoned]
        self._go_back(back)
        self._take(made, base.vault_log, what)
        self.given_up += listed.abandoned

    def _go_back(self, back: int) -> None:
        """What was written after `back` does not count (6.7)."""
        for at in range(back + 1, len(self.marks)):
            self.marks[at] = replace(self.marks[at], counts=False)
        del self.vault_log[self.marks[back].vault_log[0] + 1:]
        self.pin_changes = [change for change in self.pin_changes if change[0] <= back]
        for record, versions in list(self.versions.items()):
            kept = [version for version in versions if version.seq <= back]
            if len(kept) == len(versions):
                continue
            self._sum(record, versions[-1], -1)
            if kept:
                self._sum(record, kept[-1], 1)
                self.versions[record] = kept
            else:
                del self.versions[record]

    def check_pin(self, pin: Pin) -> None:
        """The chain passes a pinned place, or a repair in it gives the pinned commit up (4.2, 6.7)."""
        if (pin.seq, pin.head) in self.given_up:
            return
        what = f"vault {self.vault.hex()}"
        if pin.seq >= len(self.marks):
            raise Rollback(f"{what}: ends before the commit {pin.seq} that {pin.by} pins")
        if self.marks[pin.seq].hash != pin.head:
            raise Fork(f"{what}: commit {pin.seq} is not the one that {pin.by} pins")

    def pinned(self) -> list[int]:
        """The commits that are pinned at the head, and count (6.1)."""
        seqs: set[int] = set()
        for _, on, seq in self.pin_changes:
            seqs.add(seq) if on else seqs.discard(seq)
        return sorted(seq for seq in seqs if self.marks[seq].counts)

    def in_force(self, seq: int) -> Iterator[tuple[bytes, Version]]:
        """The newest version of every record as of a commit, tombstones included (6.5)."""
        for record, versions in self.versions.items():
            place = bisect_right(versions, seq, key=lambda version: version.seq)
            if place:
                yield record, versions[place - 1]

    def check_state(self, seq: int) -> None:
        """The versions in force sum up to the signed state of a commit (7)."""
        state = [0] * LANES
        for record, version in self.in_force(seq):
            state = add(state, element(record, version.revision, version.digest, version.seq), 1)
        if checksum(state) != self.marks[seq].state:
            raise BrokenChain(f"vault {self.vault.hex()}: versions in force at {seq} are not the signed state")


def _version(seq: int, put: Put) -> Version:
    return Version(seq, put.revision, put.digest, put.blobs, put.tombstone)

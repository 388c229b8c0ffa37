"""Structures of a vault's chain: vault-log entries (4.1), commits and change lists (6.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .account import ZERO
from .cbor import SIGNED_LIMIT, Fields, Value, bytes_list, decode, encode, signed, versioned
from .errors import Malformed, WrongVersion
from .functions import H

COMMIT_LIMIT = 1024
ENTRY_LIMIT = 4096
CHANGES_LIMIT = 2 * 1024 * 1024
CHANGES = 4096
VAULT_LOG_ENTRIES = 4096
GENESIS, CHANGE, ROTATE, PURGE, REPAIR = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class VaultLogEntry:
    """`vault-log-entry` (4.1)."""

    vault: bytes
    index: int
    previous: bytes
    kind: int
    account: bytes
    identity: bytes
    epoch: int
    device: bytes
    device_log_index: int
    device_log_head: bytes
    hash: bytes
    signed: bytes


def vault_log_entry(signed_bytes: bytes) -> tuple[VaultLogEntry, bytes, bytes]:
    """Decodes an entry; gives it, what is signed, and the signature, which is not verified yet (4.1)."""
    data, signature = signed(decode(signed_bytes, SIGNED_LIMIT, "vault-log entry"), "vault-log entry")
    fields = versioned(data, ENTRY_LIMIT, 12, "vault-log entry")
    entry = VaultLogEntry(fields.id(), fields.uint(), fields.digest(), fields.one_of(1, 2), fields.id(), fields.digest(), fields.uint(1),
                          fields.id(), fields.uint(), fields.digest(), H("vault-log-entry", data), signed_bytes)
    if entry.kind == 1 and (entry.index != 0 or entry.previous != ZERO or entry.epoch != 1):
        raise Malformed("vault-log entry: a creation has index 0, no previous entry, and epoch 1")
    if entry.kind == 2 and not 1 <= entry.index < VAULT_LOG_ENTRIES:
        raise Malformed("vault-log entry: a rotation at an index where none can be")
    return entry, data, signature


@dataclass(frozen=True)
class Commit:
    """`commit` (6.1)."""

    vault: bytes
    seq: int
    previous: bytes
    skip: bytes
    kind: int
    epoch: int
    device: bytes
    device_log_index: int
    device_log_head: bytes
    vault_log_index: int
    vault_log_head: bytes
    utc: int
    changes: bytes
    state: bytes
    hash: bytes


def commit(signed_bytes: bytes) -> tuple[Commit, bytes, bytes]:
    """Decodes a commit; gives it, what is signed, and the signature, which is not verified yet (6.1)."""
    data, signature = signed(decode(signed_bytes, SIGNED_LIMIT, "commit"), "commit")
    fields = versioned(data, COMMIT_LIMIT, 16, "commit")
    vault, seq, previous, skip, kind = fields.id(), fields.uint(), fields.digest(), fields.digest(), fields.uint()
    if kind == PURGE:
        raise WrongVersion(f"commit {seq}: a purge; update needed")
    if kind not in (GENESIS, CHANGE, ROTATE, REPAIR) or (kind == GENESIS) != (seq == 0):
        raise Malformed(f"commit {seq}: kind {kind} is unknown, or not of this place")
    made = Commit(vault, seq, previous, skip, kind, fields.uint(), fields.id(), fields.uint(), fields.digest(), fields.uint(), fields.digest(),
                  fields.uint(), fields.digest(), fields.digest(), H("commit", data))
    return made, data, signature


@dataclass(frozen=True)
class Put:
    """Changes 1 and 2: a new version of a record (`tombstone` says which)."""

    record: bytes
    revision: int
    digest: bytes
    blobs: tuple[bytes, ...]
    tombstone: bool


@dataclass(frozen=True)
class Changes:
    """A change list (6.1), sorted by what its changes are."""

    digest: bytes
    puts: tuple[Put, ...]
    pins: tuple[tuple[bool, int], ...]
    rotation: bytes | None
    back_to: int | None
    abandoned: tuple[tuple[int, bytes], ...]
    authority: bytes | None
    values: list[Value]


def changes(data: bytes) -> Changes:
    """Decodes a change list and checks its order (6.1)."""
    value = decode(data, CHANGES_LIMIT, "changes")
    items = Fields([value], 1, "changes").array(0, CHANGES)
    puts, pins, rotations, backs, abandoned, authorities = [], [], [], [], [], []
    order = []
    for item in items:
        if not isinstance(item, list) or not item:
            raise Malformed("changes: a change is no array")
        kind = item[0]
        fields = Fields(item, {1: 5, 2: 4, 4: 2, 5: 2, 7: 2, 8: 2, 9: 3, 10: 2}.get(kind, 0) if isinstance(kind, int) else 0, "change")
        kind = fields.uint()
        order.append({1: 1, 2: 1, 4: 2, 5: 2}.get(kind, kind))
        if kind in (1, 2):
            record, revision, digest = fields.id(), fields.uint(1), fields.digest()
            blobs = bytes_list(fields.array(0, 1024), 16, "change") if kind == 1 else []
            _ascending(blobs, "blobs of a change")
            puts.append(Put(record, revision, digest, tuple(blobs), kind == 2))
        elif kind in (4, 5):
            pins.append((kind == 4, fields.uint()))
        elif kind == 7:
            rotations.append(encode(fields.any()))
        elif kind == 8:
            backs.append(fields.uint())
        elif kind == 9:
            abandoned.append((fields.uint(), fields.digest()))
        else:
            authorities.append(fields.octets(64))
    repair = len(backs) + len(abandoned)
    if order != sorted(order) or max(len(rotations), len(backs), len(authorities)) > 1:
        raise Malformed("changes: out of order, or one that occurs once occurs twice")
    if (rotations and len(items) != 1) or (bool(repair) != bool(authorities)) or (repair and repair + 1 != len(items)):
        raise Malformed("changes: what may not stand together")
    _ascending([put.record for put in puts], "records")
    _ascending([seq for _, seq in pins], "pins and unpins")
    _ascending(abandoned, "abandoned commits")
    return Changes(H("changes", data), tuple(puts), tuple(pins), rotations[0] if rotations else None, backs[0] if backs else None,
                   tuple(abandoned), authorities[0] if authorities else None, items)


def _ascending(values: Sequence[Any], what: str) -> None:
    if any(a >= b for a, b in zip(values, values[1:])):
        raise Malformed(f"changes: {what} are not strictly ascending")


def repair_input(account: bytes, vault: bytes, seq: int, previous: bytes, device: bytes, listed: Changes) -> bytes:
    """What the identity signs of a repair: every change before its authority (6.7)."""
    return encode([account, vault, seq, previous, device, listed.values[:-1]])

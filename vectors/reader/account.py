"""The account: key header, wraps, keyring (2) and device log (3.1)."""

import base64
from dataclasses import dataclass, field

from . import ed25519
from .cbor import SIGNED_LIMIT, SUITE, VERSION, Fields, Value, check_version, decode, encode, signed, versioned
from .errors import BadProfile, BrokenChain, CannotOpen, Fork, Malformed, Rollback, TooMuch, WrongIdentity
from .functions import H, H16, KDF, Open, passphrase_kek, recovery_kek, verify

KEY_HEADER_LIMIT = 256 * 1024
ENTRY_LIMIT = 80 * 1024
LINKS = 1024
LOG_ENTRIES = 4096
LIVE_DEVICES = 64
LOG_BYTES = 4 * 1024 * 1024
LOG_BYTES_REVOKED = 6 * 1024 * 1024
ZERO = bytes(32)

PASSPHRASE, RECOVERY = 1, 2


def id_text(value: bytes) -> str:
    """The text form of an id (1.1)."""
    digits = value.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def account_id(identity: bytes) -> bytes:
    """The account id certifies the identity key (2.1)."""
    return H16("account-id", identity)


def check_identity(account: bytes, identity: bytes) -> None:
    """Refuses an identity key that is not the account's (2.1)."""
    if account_id(identity) != account:
        raise WrongIdentity("the identity key does not belong to the account id")


def valid_key(key: bytes) -> bytes:
    """A public key is decodable, in its canonical encoding and not of small order (1.1)."""
    if not ed25519.valid_key(key):
        raise Malformed("a public key that is none")
    return key


def derived_vault(identity: bytes, name: str) -> bytes:
    """The id of the keyring vault ("keyring") and of the default vault ("files") (4.1)."""
    return H16("vault-id", encode([identity, name]))


@dataclass(frozen=True)
class Sealed:
    """What `Seal` gave, with its nonce and what else its header needs."""

    number: int
    nonce: bytes
    commitment: bytes
    ciphertext: bytes


@dataclass(frozen=True)
class Wrap:
    """`wrap` (2.2)."""

    role: int
    profile: int
    salt: bytes
    nonce: bytes
    commitment: bytes
    ciphertext: bytes


@dataclass(frozen=True)
class KeyHeader:
    """`key-header`, or `bare-keys` of an archive without the passphrase's wrap (2.2, 10.1)."""

    account: bytes
    counter: int
    identity: bytes
    recovery: bytes
    wraps: dict[int, Wrap]
    current: Sealed
    links: tuple[Sealed, ...]
    seals: tuple[bytes, ...]
    hash: bytes | None


def _wrap(value: Value) -> Wrap:
    fields = Fields(value, 6, "wrap")
    return checked_wrap(Wrap(fields.one_of(PASSPHRASE, RECOVERY), fields.uint(), fields.octets(16), fields.octets(24), fields.digest(),
                             fields.octets(48)))


def checked_wrap(wrap: Wrap) -> Wrap:
    """Profiles are a closed list (2.1, 2.2)."""
    if wrap.role not in (PASSPHRASE, RECOVERY):
        raise Malformed(f"wrap: role {wrap.role} is reserved")
    allowed = (1, 2) if wrap.role == PASSPHRASE else (0,)
    if wrap.profile not in allowed:
        raise BadProfile(f"wrap {wrap.role}: profile {wrap.profile} is not in the closed list")
    return wrap


def _sealed(fields: Fields, size: int) -> Sealed:
    return Sealed(fields.uint(1), fields.octets(24), fields.digest(), fields.octets(size))


def _keyring(value: Value, bare: bool) -> tuple[Sealed, tuple[Sealed, ...], tuple[bytes, ...]]:
    fields = Fields(value, 6, "keyring")
    current = _sealed(fields, 48)
    links = tuple(_sealed(Fields(link, 4, "link"), 48) for link in fields.array(0, LOG_ENTRIES))
    seals: list[bytes] = []
    for seal in fields.array(0 if bare else 1, 0 if bare else LIVE_DEVICES):
        parts = Fields(seal, 3, "seal")
        seals.append(parts.id())
        parts.octets(1120)
        parts.octets(48)
    if [link.number for link in links] != list(range(1, current.number)):
        raise Malformed("keyring: links are not of the epochs 1 to current - 1")
    if any(a >= b for a, b in zip(seals, seals[1:])):
        raise Malformed("keyring: seals are not ascending by device")
    return current, links, tuple(seals)


def key_header(signed_bytes: bytes, account: bytes) -> KeyHeader:
    """Steps 1 and 2 of 2.2: decoded, of this account, signed by the identity that the account id certifies."""
    data, signature = signed(decode(signed_bytes, SIGNED_LIMIT, "key header"), "key header")
    fields = versioned(data, KEY_HEADER_LIMIT, 8, "key header")
    owner, counter, identity, recovery = fields.id(), fields.uint(1), valid_key(fields.digest()), valid_key(fields.digest())
    wraps = [_wrap(value) for value in fields.array(2, 2)]
    if [wrap.role for wrap in wraps] != [PASSPHRASE, RECOVERY]:
        raise Malformed("key header: wraps are not of the roles 1 and 2, ascending")
    current, links, seals = _keyring(fields.any(), False)
    if owner != account:
        raise WrongIdentity("key header: of another account")
    check_identity(account, identity)
    verify(identity, "key-header", data, signature, "key header")
    return KeyHeader(owner, counter, identity, recovery, {w.role: w for w in wraps}, current, links, seals, H("key-header", data))


def bare_keys(data: bytes, account: bytes) -> KeyHeader:
    """`bare-keys` (10.1)."""
    fields = versioned(data, KEY_HEADER_LIMIT, 8, "keys")
    owner, counter, identity, recovery = fields.id(), fields.uint(1), valid_key(fields.digest()), valid_key(fields.digest())
    wrap = _wrap(fields.any())
    current, links, seals = _keyring(fields.any(), True)
    if wrap.role != RECOVERY:
        raise Malformed("keys: the wrap is not the recovery key's")
    if owner != account:
        raise WrongIdentity("keys: of another account")
    check_identity(account, identity)
    return KeyHeader(owner, counter, identity, recovery, {RECOVERY: wrap}, current, links, seals, None)


def wrap_header(account: bytes, wrap: Wrap) -> bytes:
    """`wrap-header` (2.2)."""
    return encode([VERSION, SUITE, account, wrap.role, wrap.profile, wrap.salt, wrap.nonce])


def open_wrap(kek: bytes, account: bytes, wrap: Wrap) -> bytes:
    """The root key (2.2)."""
    return Open(kek, "root-wrap", wrap_header(account, wrap), wrap.nonce, wrap.commitment, wrap.ciphertext, "wrap of the root key")


def identity_of_root(root: bytes) -> bytes:
    """The identity's public key (2.1)."""
    return ed25519.public_key(KDF(root, "identity-key", [], 32))


def recovery_login_key(recovery: bytes) -> bytes:
    """The recovery login key's public key (2.1)."""
    return ed25519.public_key(KDF(recovery, "recovery-login", [], 32))


def root_by_passphrase(keys: KeyHeader, passphrase: str) -> bytes:
    """Step 4 of 2.2, with the passphrase."""
    wrap = keys.wraps[PASSPHRASE]
    return _checked_root(keys, wrap, passphrase_kek(passphrase, keys.account, wrap.salt, wrap.profile))


def root_by_recovery_key(keys: KeyHeader, recovery: bytes) -> bytes:
    """Step 4 of 2.2, with the recovery key."""
    if recovery_login_key(recovery) != keys.recovery:
        raise CannotOpen("the recovery key is not the account's")
    wrap = keys.wraps[RECOVERY]
    return _checked_root(keys, wrap, recovery_kek(recovery, keys.account, wrap.salt))


def _checked_root(keys: KeyHeader, wrap: Wrap, kek: bytes) -> bytes:
    root = open_wrap(kek, keys.account, wrap)
    if identity_of_root(root) != keys.identity:
        raise WrongIdentity("the wrap holds the root of another identity")
    return root


def keyring_keys(root: bytes, keys: KeyHeader) -> dict[int, bytes]:
    """Opens the current keyring key and its links: the key of every epoch (2.2)."""
    key = _open_link(KDF(root, "keyring-wrap-key", [], 32), "keyring-wrap", keys.account, keys.current)
    found = {keys.current.number: key}
    for link in reversed(keys.links):
        found[link.number] = _open_link(found[link.number + 1], "keyring-link", keys.account, link)
    return found


def keyring_secret(first_key: bytes, account: bytes) -> bytes:
    """The vault secret of the keyring vault, from the keyring key of epoch 1 (4.2)."""
    return KDF(first_key, "keyring-secret", [account], 32)


def _open_link(key: bytes, name: str, account: bytes, sealed: Sealed) -> bytes:
    header = encode([VERSION, SUITE, account, sealed.number, sealed.nonce])
    return Open(key, name, header, sealed.nonce, sealed.commitment, sealed.ciphertext, f"keyring key of epoch {sealed.number}")


@dataclass(frozen=True)
class Pin:
    """A place of a vault's chain that it has to pass, and who says so."""

    vault: bytes
    seq: int
    head: bytes
    by: str


@dataclass
class Device:
    """An enrolled device, and its revocation."""

    id: bytes
    sign_key: bytes
    enrolled: int
    name: Sealed
    revoked: int | None = None
    last: dict[bytes, int] = field(default_factory=dict)

    def live(self, index: int) -> bool:
        """Live at a log index: enrolled at or before it, and not revoked at or before it (3.1)."""
        return self.enrolled <= index and (self.revoked is None or index < self.revoked)

    def counts(self, vault: bytes, seq: int) -> bool:
        """What a revoked device wrote counts up to the pin of its revocation (3.1)."""
        return self.revoked is None or seq <= self.last.get(vault, -1)


@dataclass(frozen=True)
class Entry:
    """A decoded `device-log-entry` (3.1)."""

    account: bytes
    index: int
    previous: bytes
    kind: int
    header_counter: int
    header_hash: bytes
    body: bytes
    hash: bytes
    size: int


def device_log_entry(signed_bytes: bytes, identity: bytes) -> Entry:
    """Decodes an entry and verifies the identity's signature (3.1)."""
    data, signature = signed(decode(signed_bytes, SIGNED_LIMIT, "device-log entry"), "device-log entry")
    fields = versioned(data, ENTRY_LIMIT, 9, "device-log entry")
    entry = Entry(fields.id(), fields.uint(), fields.digest(), fields.one_of(1, 2, 3), fields.uint(1), fields.digest(),
                  fields.octets(), H("device-log-entry", data), len(data) + 64)
    verify(identity, "device-log-entry", data, signature, f"device-log entry {entry.index}")
    return entry


@dataclass(frozen=True)
class Enrol:
    """Body of kind 1; `proven` is what the proof of possession covers of it (3.1)."""

    device: bytes
    sign_key: bytes
    seal_key: bytes
    name: Sealed
    pins: list[Pin]
    proof: bytes
    proven: list[Value]


@dataclass(frozen=True)
class Revoke:
    """Body of kind 2 (3.1)."""

    device: bytes
    pins: list[Pin]


def entry_body(entry: Entry) -> Enrol | Revoke | None:
    """Decodes the body of an entry (3.1)."""
    what = f"body of device-log entry {entry.index}"
    value = decode(entry.body, ENTRY_LIMIT, what)
    if entry.kind == 3:
        if value != [[]]:
            raise Malformed(f"{what}: not empty")
        return None
    if entry.kind == 2:
        fields = Fields(value, 2, what)
        return Revoke(fields.id(), _pins(fields, what))
    fields = Fields(value, 8, what)
    device, sign_key, seal_key = fields.id(), valid_key(fields.digest()), fields.octets(1216)
    if device == bytes(16):
        raise Malformed(f"{what}: device id is zero")
    if fields.uint() != 1 or fields.array() != []:
        raise Malformed(f"{what}: class or scope is reserved")
    name = _sealed(Fields(fields.any(), 4, what), 80)
    pins = _pins(fields, what)
    assert isinstance(value, list)
    return Enrol(device, sign_key, seal_key, name, pins, fields.octets(64), value[:-1])


def _pins(fields: Fields, what: str) -> list[Pin]:
    pins = [read_pin(item, what) for item in fields.array(0, 1024)]
    if any(a.vault >= b.vault for a, b in zip(pins, pins[1:])):
        raise Malformed(f"{what}: pins are not ascending by vault")
    return pins


class DeviceLog:
    """The device log, verified from index 0 (3.1)."""

    def __init__(self, account: bytes, identity: bytes) -> None:
        self.account, self.identity = account, identity
        self.keyring = derived_vault(identity, "keyring")
        self.hashes: list[bytes] = []
        self.devices: dict[bytes, Device] = {}
        self.keys: set[bytes] = set()
        self.revocations: list[int] = []
        self.pins: list[Pin] = []
        self.header: tuple[int, bytes] = (0, ZERO)
        self.size = 0

    def append(self, signed_bytes: bytes) -> Entry:
        """Verifies the next entry and takes it over."""
        entry = device_log_entry(signed_bytes, self.identity)
        what = f"device-log entry {entry.index}"
        if entry.account != self.account:
            raise BrokenChain(f"{what}: of another account")
        if entry.index != len(self.hashes) or entry.previous != (self.hashes[-1] if self.hashes else ZERO):
            raise BrokenChain(f"{what}: does not follow the entry before it")
        if entry.index == 0 and entry.kind != 1:
            raise BrokenChain(f"{what}: is no enrolment")
        if entry.header_counter != entry.index + 1:
            raise BrokenChain(f"{what}: counter of the key header is {entry.header_counter}")
        self.size += entry.size
        limit = LOG_BYTES_REVOKED if entry.kind == 2 else LOG_BYTES
        if entry.index >= LOG_ENTRIES or self.size > limit:
            raise TooMuch("device log: too long")
        body = entry_body(entry)
        if isinstance(body, Enrol):
            self._enrol(entry, body, what)
        elif isinstance(body, Revoke):
            self._revoke(entry, body, what)
        self.hashes.append(entry.hash)
        self.header = (entry.header_counter, entry.header_hash)
        return entry

    def _enrol(self, entry: Entry, body: Enrol, what: str) -> None:
        self._check_pins(entry, body.pins, what)
        new_keys = {body.device, body.sign_key, body.seal_key}
        if new_keys & self.keys:
            raise BrokenChain(f"{what}: a device id or key occurs a second time")
        if len(self.live_devices()) >= LIVE_DEVICES:
            raise TooMuch(f"{what}: more than {LIVE_DEVICES} live devices")
        proven = encode([self.account, entry.index, entry.previous, body.proven])
        verify(body.sign_key, "device-proof", proven, body.proof, f"{what}: proof")
        self.keys |= new_keys
        self.devices[body.device] = Device(body.device, body.sign_key, entry.index, body.name)
        self.pins += body.pins

    def _revoke(self, entry: Entry, body: Revoke, what: str) -> None:
        self._check_pins(entry, body.pins, what)
        live = self.live_devices()
        if body.device not in live or len(live) == 1:
            raise BrokenChain(f"{what}: revokes no live device, or the only one")
        target = self.devices[body.device]
        target.revoked, target.last = entry.index, {pin.vault: pin.seq for pin in body.pins}
        self.revocations.append(entry.index)
        self.pins += body.pins

    def _check_pins(self, entry: Entry, pins: list[Pin], what: str) -> None:
        if (entry.index == 0 and pins) or (entry.index > 0 and self.keyring not in [pin.vault for pin in pins]):
            raise BrokenChain(f"{what}: pins at index 0, or none of the keyring")

    def end(self, keys: KeyHeader) -> None:
        """The last entry names the key header; the keyring's epoch and seals are those of the log (2.2)."""
        if not self.hashes:
            raise BrokenChain("device log: empty")
        if keys.counter != self.header[0] or keys.current.number != len(self.revocations) + 1:
            raise BrokenChain("key header: counter or epoch is not that of the device log")
        if keys.hash is None:
            return
        if keys.hash != self.header[1]:
            raise BrokenChain("key header: not the one that the device log's last entry names")
        if list(keys.seals) != self.live_devices():
            raise BrokenChain("key header: seals are not exactly for the live devices")

    def live_devices(self) -> list[bytes]:
        """The devices that are live at the log's end, ascending."""
        return sorted(d.id for d in self.devices.values() if d.revoked is None)

    def at(self, index: int, head: bytes) -> bool:
        """Whether an entry has this place and hash."""
        return index < len(self.hashes) and self.hashes[index] == head

    def last_revocation(self, index: int) -> int | None:
        """The last revocation at or before an entry (3.1)."""
        return max((r for r in self.revocations if r <= index), default=None)

    def check_pin(self, index: int, head: bytes, by: str) -> None:
        """A pin of the log itself, of a kit or of a head pin (2.3, 4.2)."""
        if index >= len(self.hashes):
            raise Rollback(f"device log: ends before the place {index} that {by} names")
        if self.hashes[index] != head:
            raise Fork(f"device log: entry {index} is not the one that {by} names")


def read_pin(value: Value, by: str) -> Pin:
    """`[vault, seq, head]` (3.1)."""
    fields = Fields(value, 3, by)
    return Pin(fields.id(), fields.uint(), fields.digest(), by)


def open_device_name(keyring_key: bytes, account: bytes, device: bytes, name: Sealed) -> str:
    """A device's name in its log entry (3.1)."""
    header = encode([VERSION, SUITE, account, device, name.number, name.nonce])
    key = KDF(keyring_key, "device-name", [], 32)
    padded = Open(key, "device-name", header, name.nonce, name.commitment, name.ciphertext, "device name")
    text = padded.rstrip(b"\0")
    try:
        if b"\0" in text:
            raise CannotOpen("device name: zero bytes inside")
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CannotOpen("device name: not UTF-8") from error


@dataclass(frozen=True)
class Checkpoint:
    """`checkpoint` of a kit (2.3)."""

    account: bytes
    device_log_index: int
    device_log_head: bytes
    keyring_seq: int
    keyring_head: bytes


def checkpoint(data: bytes) -> Checkpoint:
    """Decodes a kit's checkpoint (2.3)."""
    fields = Fields(decode(data, 256, "checkpoint"), 6, "checkpoint")
    check_version(fields.uint(), SUITE, "checkpoint")
    return Checkpoint(fields.id(), fields.uint(), fields.digest(), fields.uint(), fields.digest())


def account_fingerprint(account: bytes, index: int, head: bytes, heads: list[list[Value]]) -> str:
    """Account fingerprint; `heads` are `[vault, seq, head]`, ascending by vault (2.3)."""
    return fingerprint("account-fingerprint", encode([account, index, head, list[Value](heads)]))


def fingerprint(name: str, data: bytes) -> str:
    """The text of the identity's and the account's fingerprint (2.3)."""
    text = base64.b32encode(H(name, data)[:25]).decode("ascii").lower()
    return " ".join(text[i:i + 4] for i in range(0, 40, 4))

"""The device log (3.1)."""

from dataclasses import dataclass, field

from .account import LIVE_DEVICES, ZERO, KeyHeader, Sealed, derived_vault, read_sealed, valid_key
from .cbor import SIGNED_LIMIT, SUITE, VERSION, Fields, Value, decode, encode, signed, versioned
from .errors import BrokenChain, CannotOpen, Fork, Malformed, Rollback, TooMuch
from .functions import KDF, H, Open, verify

ENTRY_LIMIT = 80 * 1024
LOG_ENTRIES = 4096
LOG_BYTES = 4 * 1024 * 1024
LOG_BYTES_REVOKED = 6 * 1024 * 1024


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
    if entry.index >= LOG_ENTRIES:
        raise TooMuch(f"device-log entry {entry.index}: beyond the end of any log")
    if entry.index == 0 and (entry.kind != 1 or entry.previous != ZERO):
        raise Malformed("device-log entry 0: is no enrolment, or has one before it")
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
    if fields.uint() != 1 or fields.array() != []:
        raise Malformed(f"{what}: class or scope is reserved")
    name = read_sealed(Fields(fields.any(), 4, what), 80)
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
        if entry.header_counter != entry.index + 1:
            raise BrokenChain(f"{what}: counter of the key header is {entry.header_counter}")
        self.size += entry.size
        limit = LOG_BYTES_REVOKED if entry.kind == 2 else LOG_BYTES
        if self.size > limit:
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
        if new_keys & self.keys or body.device == bytes(16):
            raise BrokenChain(f"{what}: a device id or key occurs a second time, or the id is zero")
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
            raise Malformed(f"{what}: pins at index 0, or none of the keyring")

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

"""The account: ids, key header, wraps, keyring keys, checkpoint, fingerprints (2)."""

import base64
from dataclasses import dataclass

from . import ed25519
from .cbor import SIGNED_LIMIT, SUITE, VERSION, Fields, Value, check_version, decode, encode, signed, versioned
from .errors import CannotOpen, Malformed, WrongIdentity
from .functions import H16, KDF, H, Open, passphrase_kek, recovery_kek, verify

KEY_HEADER_LIMIT = 256 * 1024
LINKS = 1024
LIVE_DEVICES = 64
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
    wrap = Wrap(fields.one_of(PASSPHRASE, RECOVERY), fields.uint(), fields.octets(16), fields.octets(24), fields.digest(), fields.octets(48))
    allowed = (1, 2) if wrap.role == PASSPHRASE else (0,)
    if wrap.profile not in allowed:
        raise Malformed(f"wrap {wrap.role}: profile {wrap.profile} is not in the closed list")
    return wrap


def read_sealed(fields: Fields, size: int) -> Sealed:
    """Epoch, nonce, commitment, ciphertext."""
    return Sealed(fields.uint(1), fields.octets(24), fields.digest(), fields.octets(size))


def _keyring(value: Value, bare: bool) -> tuple[Sealed, tuple[Sealed, ...], tuple[bytes, ...]]:
    fields = Fields(value, 6, "keyring")
    current = read_sealed(fields, 48)
    links = tuple(read_sealed(Fields(link, 4, "link"), 48) for link in fields.array(0, LINKS))
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
        raise CannotOpen("the wrap holds the root of another identity")
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

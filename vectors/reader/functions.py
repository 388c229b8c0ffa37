"""The functions of section 1.2, under the labels of 1.3."""

import hmac
import unicodedata

from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from . import ed25519
from .cbor import Value, encode
from .errors import BadPassphrase, BadProfile, BadSignature, CannotOpen


def label(name: str) -> str:
    """A label's full text (1.3)."""
    return "lockstep/v1/" + name


def H(name: str, data: bytes, size: int = 32) -> bytes:
    """`H(label, x)` (1.2); `size` is another than 32 only for the elements of 6.2."""
    return blake3(data, derive_key_context=label(name)).digest(length=size)


def H16(name: str, data: bytes) -> bytes:
    """`H16(label, x)` (1.2)."""
    return H(name, data)[:16]


def keyed_hash(key: bytes, data: bytes) -> bytes:
    """Keyed BLAKE3 (4.3, 9)."""
    return blake3(data, key=key).digest()


def KDF(key: bytes, name: str, rest: list[Value], size: int) -> bytes:
    """`KDF(k, [label, a...], n)` (1.2)."""
    info = encode([label(name), *rest])
    return HKDF(algorithm=SHA256(), length=size, salt=None, info=info).derive(key)


def sign_bytes(name: str, data: bytes) -> bytes:
    """What `Sign` signs (1.2)."""
    return encode([label(name), H(name, data)])


def verify(public: bytes, name: str, data: bytes, signature: bytes, what: str) -> None:
    """Verifies `Sign(sk, label, x)` strictly (1.2)."""
    if not ed25519.verify(public, sign_bytes(name, data), signature):
        raise BadSignature(f"{what}: signature is not valid")


def Sign(seed: bytes, name: str, data: bytes) -> bytes:
    """`Sign(sk, label, x)` (1.2); only tests and vectors need it."""
    return ed25519.sign(seed, sign_bytes(name, data))


def Seal(key: bytes, name: str, header: bytes, nonce: bytes, message: bytes) -> tuple[bytes, bytes]:
    """`Seal` (1.2); only tests and vectors need it."""
    okm = KDF(key, name, [H(name, header)], 64)
    return okm[32:], crypto_aead_xchacha20poly1305_ietf_encrypt(message, header, nonce, okm[:32])


def Open(key: bytes, name: str, header: bytes, nonce: bytes, commitment: bytes, ciphertext: bytes, what: str) -> bytes:
    """`Open` (1.2): the commitment first, then decryption, one error for both."""
    okm = KDF(key, name, [H(name, header)], 64)
    # The library does not take less than a tag.
    if not hmac.compare_digest(okm[32:], commitment) or len(ciphertext) < 16:
        raise CannotOpen(f"{what}: can not be opened")
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, header, nonce, okm[:32])
    except CryptoError as error:
        raise CannotOpen(f"{what}: can not be opened") from error


def Pad(n: int) -> int:
    """The Padme size of `n`, at least 256 (1.2)."""
    if n <= 256:
        return 256
    e = n.bit_length() - 1
    s = e.bit_length()
    unit = 1 << (e - s)
    return (n + unit - 1) // unit * unit


# The closed list of Argon2id's profiles (2.1): memory in KiB, passes, lanes.
PROFILES = {1: (64 * 1024, 3, 1), 2: (256 * 1024, 4, 1)}


def argon2id(password: bytes, salt: bytes, memory_kib: int, passes: int, lanes: int, size: int) -> bytes:
    """Argon2id v1.3 (1.4)."""
    return hash_secret_raw(password, salt, passes, memory_kib, lanes, size, Type.ID, 0x13)


def normalised(passphrase: str) -> bytes:
    """The bytes of a passphrase: NFKC, UTF-8, 1 to 1,024 of them (2.1, 2.4)."""
    password = unicodedata.normalize("NFKC", passphrase).encode("utf-8")
    if not 1 <= len(password) <= 1024:
        raise BadPassphrase("a passphrase has 1 to 1,024 bytes")
    return password


def passphrase_kek(passphrase: str, account: bytes, salt16: bytes, profile: int) -> bytes:
    """KEK of the passphrase (2.1)."""
    if profile not in PROFILES:
        raise BadProfile(f"Argon2id profile {profile} is not in the closed list")
    return argon2id(normalised(passphrase), H16("kek-salt", encode([account, salt16])), *PROFILES[profile], 32)


def recovery_kek(recovery: bytes, account: bytes, salt16: bytes) -> bytes:
    """KEK of the recovery key (2.1)."""
    return KDF(recovery, "recovery-kek", [account, salt16], 32)

"""The published vectors of the primitives, by the libraries as this reader calls them (vectors/primitives)."""

from collections.abc import Callable
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt, crypto_aead_xchacha20poly1305_ietf_encrypt

from . import ed25519
from .functions import argon2id

SKIPPED = {
    "hpke-x-wing": "HPKE is not among this reader's libraries",
    "hpke-x25519": "HPKE is not among this reader's libraries",
    "x-wing": "X-Wing is not among this reader's libraries",
    "opaque": "OPAQUE is not among this reader's libraries",
}


def _raw(case: Any, *names: str) -> list[bytes]:
    return [bytes.fromhex(case[name]) for name in names]


def _argon2id(case: Any, _: Any) -> bool | str:
    password, salt, secret, data, tag = _raw(case, "password", "salt", "secret", "data", "tag")
    if secret or data:
        return "argon2-cffi takes no secret and no associated data, and neither is used"
    return argon2id(password, salt, case["memory-kib"], case["passes"], case["lanes"], len(tag)) == tag


def _blake3(case: Any, file: Any) -> bool:
    data = bytes(i % 251 for i in range(case["input_len"]))
    plain, keyed, derived = _raw(case, "hash", "keyed_hash", "derive_key")
    return (blake3(data).digest(length=len(plain)) == plain
            and blake3(data, key=file["key"].encode()).digest(length=len(keyed)) == keyed
            and blake3(data, derive_key_context=file["context"]).digest(length=len(derived)) == derived)


def _chacha(case: Any, _: Any) -> bool:
    key, nonce, aad, plain, ciphertext, tag = _raw(case, "key", "nonce", "aad", "plaintext", "ciphertext", "tag")
    return ChaCha20Poly1305(key).encrypt(nonce, plain, aad) == ciphertext + tag


def _xchacha(case: Any, _: Any) -> bool:
    key, nonce, aad, plain, ciphertext, tag = _raw(case, "key", "nonce", "aad", "plaintext", "ciphertext", "tag")
    sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(plain, aad, nonce, key)
    return sealed == ciphertext + tag and crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, aad, nonce, key) == plain


def _ed25519(case: Any, _: Any) -> bool:
    seed, public, message, signature = _raw(case, "seed", "public", "message", "signature")
    return (ed25519.public_key(seed) == public and ed25519.sign(seed, message) == signature and ed25519.verify(public, message, signature)
            and ed25519.valid_key(public) and not ed25519.verify(public, message + b"\0", signature))


def _hkdf(case: Any, _: Any) -> bool:
    ikm, salt, info, okm = _raw(case, "ikm", "salt", "info", "okm")
    return HKDF(algorithm=SHA256(), length=len(okm), salt=salt or None, info=info).derive(ikm) == okm


CHECKS: dict[str, Callable[[Any, Any], bool | str]] = {
    "argon2id": _argon2id, "blake3": _blake3, "chacha20poly1305": _chacha, "xchacha20poly1305": _xchacha, "ed25519": _ed25519,
    "hkdf-sha256": _hkdf,
}

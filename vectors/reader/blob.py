"""Objects (9), as streams: nothing is held but one chunk."""

from collections.abc import Iterator
from typing import BinaryIO, Protocol

from blake3 import blake3
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
from nacl.exceptions import CryptoError

from .cbor import SUITE, VERSION, encode
from .envelope import BlobRef, VaultSecrets
from .errors import CannotOpen, TooMuch
from .functions import KDF, H, Pad

MAGIC = b"LSO1"
HEADER = 59
TAG = 16
PART = 8 * 1024 * 1024
OBJECT_MOST = 2**40


class Source(Protocol):
    """What bytes are read from."""

    def read(self, count: int) -> bytes: ...


def object_length(size: int, chunk_log2: int) -> int:
    """The length of an object of `size` bytes of content (9)."""
    padded = Pad(size)
    return HEADER + padded + TAG * -(-padded // (1 << chunk_log2))


def object_digest(size: int, parts: list[bytes]) -> bytes:
    """The digest that the server verifies (9)."""
    return H("object", encode([size, list(parts)]))


def read_object(source: Source, length: int | None, ref: BlobRef, secrets: VaultSecrets) -> Iterator[bytes]:
    """Gives the content chunk by chunk, each verified before it is given; the content hash is verified before the iterator ends.

    Whoever writes the content gives the file its name only after the end (9). A length that is known is judged first.
    """
    if not 16 <= ref.chunk_log2 <= 20 or ref.size > OBJECT_MOST:
        raise TooMuch("object: its size or that of its chunks is none that is allowed")
    if length is not None and length != object_length(ref.size, ref.chunk_log2):
        raise CannotOpen("object: another length than its reference's size gives")
    header = source.read(HEADER)
    numbers = [VERSION, SUITE, ref.chunk_log2]
    okm = KDF(ref.seed, "blob-key", [*numbers, secrets.blob_secret, ref.blob, ref.content_hash], 83)
    key, commitment, prefix = okm[:32], okm[32:64], okm[64:]
    if header != MAGIC + bytes([*numbers, 0]) + prefix + commitment:
        raise CannotOpen("object: header is not the one of its key")
    hasher = blake3(key=secrets.content_hash_key)
    left, index, content_left = Pad(ref.size), 0, ref.size
    while left:
        plain_size = min(1 << ref.chunk_log2, left)
        left -= plain_size
        nonce = prefix + index.to_bytes(4, "big") + bytes([left == 0])
        plain = _open_chunk(source.read(plain_size + TAG), plain_size, header + ref.blob, nonce, key, index)
        content, zeros = plain[:content_left], plain[content_left:]
        if any(zeros):
            raise CannotOpen("object: padding is not zero")
        content_left -= len(content)
        hasher.update(content)
        yield content
        index += 1
    if hasher.digest() != ref.content_hash:
        raise CannotOpen("object: content hash is wrong")
    if length is None and source.read(1):
        raise CannotOpen("object: bytes after its end")


def _open_chunk(sealed: bytes, plain_size: int, associated: bytes, nonce: bytes, key: bytes, index: int) -> bytes:
    if len(sealed) != plain_size + TAG:
        raise CannotOpen(f"object: chunk {index} is cut off")
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, associated, nonce, key)
    except CryptoError as error:
        raise CannotOpen(f"object: chunk {index} can not be opened") from error


def write_object(source: Source, length: int, ref: BlobRef, secrets: VaultSecrets, out: BinaryIO) -> None:
    """Writes the whole content or raises; `out` has no name yet (9)."""
    for content in read_object(source, length, ref, secrets):
        out.write(content)

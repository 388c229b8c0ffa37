"""Vault secrets (4.3), envelopes and their contents (5)."""

from dataclasses import dataclass

from .cbor import Fields, Value, decode, encode, versioned
from .errors import CannotOpen, Malformed, WrongVersion
from .functions import KDF, H, Open, Pad, keyed_hash, label

ENVELOPE_LIMIT = 1024 * 1024
HEADER_LIMIT = 512
TYPE_LIMIT = 128
NAME_LIMIT = 8192
BLOB_LIMIT = 1024

DOCUMENT, TOMBSTONE = 1, 2


@dataclass(frozen=True)
class VaultSecrets:
    """What follows from the 32-byte secret of a vault (4.3)."""

    record_id_key: bytes
    content_hash_key: bytes
    chunker_key: bytes
    blob_secret: bytes


def vault_secrets(secret: bytes, vault: bytes) -> VaultSecrets:
    """4.3."""
    names = ("record-id-key", "content-hash-key", "chunker-key", "blob-secret")
    return VaultSecrets(*(KDF(secret, name, [vault], 32) for name in names))


def record_id(secrets: VaultSecrets, record_type: str, name: bytes) -> bytes:
    """Record id (4.3)."""
    return keyed_hash(secrets.record_id_key, encode([label("record-id"), record_type, name]))[:16]


@dataclass(frozen=True)
class BlobRef:
    """`blob-ref` (5)."""

    blob: bytes
    size: int
    content_hash: bytes
    seed: bytes
    chunk_log2: int


@dataclass(frozen=True)
class Header:
    """`envelope-header` (5)."""

    kind: int
    vault: bytes
    record: bytes
    revision: int
    epoch: int
    device: bytes
    blobs: bytes
    nonce: bytes
    encoding: bytes


@dataclass(frozen=True)
class Content:
    """`content` (5), as far as a reader needs it."""

    type: str
    name: bytes
    document: bytes
    blobs: tuple[BlobRef, ...]
    value: Value


def envelope_digest(data: bytes) -> bytes:
    """Envelope digest (5)."""
    return H("envelope", data)


def blob_list_digest(blobs: list[bytes]) -> bytes:
    """The header's digest of the ids, which are ascending without duplicates (5)."""
    return H("blob-list", encode(list[Value](blobs)))


def parse_envelope(data: bytes) -> tuple[Header, bytes, bytes]:
    """The header, the commitment and the ciphertext (5)."""
    fields = Fields(decode(data, ENVELOPE_LIMIT, "envelope"), 3, "envelope")
    encoding, commitment, ciphertext = fields.octets(), fields.digest(), fields.octets()
    head = versioned(encoding, HEADER_LIMIT, 10, "envelope header")
    header = Header(head.one_of(DOCUMENT, TOMBSTONE), head.id(), head.id(), head.uint(1), head.uint(1), head.id(), head.digest(),
                    head.octets(24), encoding)
    return header, commitment, ciphertext


def open_envelope(data: bytes, key: bytes, secrets: VaultSecrets) -> tuple[Header, Content]:
    """Opens an envelope and checks that its contents belong to its header (5)."""
    try:
        header, commitment, ciphertext = parse_envelope(data)
    except (Malformed, WrongVersion) as error:
        raise CannotOpen(str(error)) from error
    padded = Open(key, "envelope-header", header.encoding, header.nonce, commitment, ciphertext, "envelope")
    try:
        content = read_content(unpad(padded), header, secrets)
    except Malformed as error:
        raise CannotOpen(f"envelope: {error}") from error
    return header, content


def unpad(padded: bytes) -> bytes:
    """Length, encoding, zeros up to `Pad(n + 4)` (5)."""
    length = int.from_bytes(padded[:4], "big")
    if len(padded) < 4 or len(padded) != Pad(length + 4) or any(padded[4 + length:]):
        raise Malformed("contents: padding is wrong")
    return padded[4:4 + length]


def read_content(encoding: bytes, header: Header, secrets: VaultSecrets) -> Content:
    """Decodes `content`, and compares it with the header (5)."""
    value = decode(encoding, ENVELOPE_LIMIT, "contents")
    fields = Fields(value, 11, "contents")
    record_type, name = fields.text(), fields.octets()
    fields.uint()
    fields.one_of(0)
    hlc = Fields(fields.any(), 2, "contents")
    hlc.uint(), hlc.uint()
    fields.octets(16)
    fields.uint()
    fields.octets(0, 16)
    document = fields.octets()
    blobs = tuple(blob_ref(item) for item in fields.array(0, BLOB_LIMIT))
    fields.null()
    if not 1 <= len(record_type.encode()) <= TYPE_LIMIT or len(name) > NAME_LIMIT:
        raise Malformed("contents: type or name is too long")
    if record_id(secrets, record_type, name) != header.record:
        raise Malformed("contents: type and name are not the record's")
    if blob_list_digest(sorted({ref.blob for ref in blobs})) != header.blobs:
        raise Malformed("contents: blobs are not those of the header")
    if header.kind == TOMBSTONE and (document or blobs):
        raise Malformed("contents: a tombstone with a document or blobs")
    return Content(record_type, name, document, blobs, value)


def blob_ref(value: Value) -> BlobRef:
    """`blob-ref` (5)."""
    fields = Fields(value, 5, "blob reference")
    return BlobRef(fields.id(), fields.uint(), fields.digest(), fields.digest(), fields.one_of(*range(256)))


@dataclass(frozen=True)
class Announced:
    """What a commit and its change list say of a version (5, 6.1)."""

    vault: bytes
    record: bytes
    revision: int
    kind: int
    epoch: int
    device: bytes
    blobs: tuple[bytes, ...]


def open_announced(data: bytes, announced: Announced, key: bytes | None, secrets: VaultSecrets) -> Content:
    """Opens an envelope whose digest is the change's; whatever is wrong now was the device's doing (5)."""
    if key is None:
        raise CannotOpen(f"envelope: no key of epoch {announced.epoch}")
    header, content = open_envelope(data, key, secrets)
    said = (header.vault, header.record, header.revision, header.kind, header.epoch, header.device)
    wanted = (announced.vault, announced.record, announced.revision, announced.kind, announced.epoch, announced.device)
    if said != wanted or header.blobs != blob_list_digest(list(announced.blobs)):
        raise CannotOpen("envelope: its header is not what commit and change say")
    return content

"""Structures that an archive does not hold, but the vectors do: statements, actions (3.2, 3.3) and bodies of requests (12.2)."""

from .cbor import Fields, Value, decode, encode
from .errors import Malformed
from .functions import H, verify


def statement_input(origin: str, data: bytes, public: bytes) -> bytes:
    """What a sign-in statement signs; the signature is verified (3.2, 12.2)."""
    fields = Fields(decode(data, 1024, "statement"), 6, "statement")
    account, device, purpose = fields.id(), fields.id(), fields.one_of(1, 2)
    server_nonce, client_nonce, signature = fields.digest(), fields.digest(), fields.octets(64)
    said = encode([origin, account, device, purpose, server_nonce, client_nonce])
    verify(public, "login", said, signature, "statement")
    if purpose == 2 and device != bytes(16):
        raise Malformed("statement: a recovery names a device")
    return said


def action_input(account: bytes, action: int, body: bytes, log_index: int, log_head: bytes) -> bytes:
    """What an action signs (3.3)."""
    if action not in range(1, 8):
        raise Malformed(f"action {action} is unknown")
    return encode([account, action, H("action-body", body), log_index, log_head])


# Shapes: a name is one of `_BASIC`; a tuple an array of fields; a list with one shape an array of such items.
Shape = str | tuple["Shape", ...] | list["Shape"]

ENTRY: Shape = ("uint", "id", "uint", "uint", "bytes")
BODIES: dict[str, Shape] = {
    "server-info": (["uint"], "uint", "text", "uint", "uint", [("text", "uint")]),
    "register-start": ("id", "bytes"),
    "opaque-start": ("bytes",),
    "opaque-started": ("digest", "bytes"),
    "authorised": ("bytes", "signature"),
    "register-finish": ("text", "text", "digest", "bytes", "signed", "signed", "signed", "signed"),
    "login-start": ("text", "bytes"),
    "login-started": ("digest", "id", "bytes"),
    "login-finish": ("digest", "bytes"),
    "recovery-start": ("text",),
    "recovery-started": ("id", "digest"),
    "device-login-start": ("id", "id"),
    "device-login-started": ("digest",),
    "statement": ("id", "id", "uint", "digest", "digest", "signature"),
    "session": ("text", "id", "id", "uint", "uint"),
    "session-info": ("id", "id", "uint", "uint"),
    "devices": ("uint", ["signed"], "signed"),
    "enrol-device": ("signed", "signed"),
    "recover": ("digest", "bytes", "signed", "signed"),
    "change-credentials": ("record?", "signed", "signed"),
    "delete-account": ("id",),
    "delete-vault": ("id",),
    "heal-devices": ("id", ["signed"], "signed"),
    "usage": ("uint", "uint?", "uint", "uint"),
    "sessions": [("id", "id", "uint", "uint", "uint", "uint", "bool")],
    "vaults": [("id", "uint", "digest", "uint")],
    "create-vault": ("signed", "signed"),
    "vault-log": ["signed"],
    "stage-envelopes": ["bytes"],
    "staged-envelopes": ["digest"],
    "push-commit": ("signed", "bytes", ["bytes"], "bool"),
    "pushed": ("uint", "digest"),
    "page": ("uint", [("signed", "bytes?")], "bool", [ENTRY]),
    "entries": ("bool", [ENTRY]),
    "get-envelopes": [("uint", "id")],
    "history": [ENTRY],
    "stored": ["id"],
    "object-list": ["id"],
    "begin-upload": ("id", "uint", "digest"),
    "upload-state": ("bool", ["uint"]),
    "heads": [("id", "uint")],
    "listen": ("text", [("id", "uint")]),
    "wait-for-heads": ([("id", "uint")], "uint"),
    "signed": "signed",
}
# Limits of bodies in bytes (1.5).
LIMITS = {
    **dict.fromkeys(("register-finish", "authorised", "enrol-device", "recover", "change-credentials", "heal-devices"), 512 * 1024),
    **dict.fromkeys(("push-commit", "stage-envelopes"), 8 * 1024 * 1024),
    **dict.fromkeys(("page", "entries", "history", "devices"), 16 * 1024 * 1024),
    **dict.fromkeys(("object-list", "stored"), 69_648),
    "vaults": 128 * 1024, "create-vault": 16 * 1024, "vault-log": 1024 * 1024, "get-envelopes": 256 * 1024, "upload-state": 2 * 1024 * 1024,
    "staged-envelopes": 1024 * 1024, "sessions": 64 * 1024, "signed": 256 * 1024 + 128,
    "heads": 32 * 1024, "listen": 33 * 1024, "wait-for-heads": 33 * 1024,
}
TINY = 8 * 1024
_SIZES = {"id": 16, "digest": 32, "signature": 64}


def decode_body(name: str, data: bytes) -> Value:
    """A body of a request or an answer (12.2)."""
    value = decode(data, LIMITS.get(name, TINY), name)
    check_shape(value, BODIES[name], name)
    return value


def check_shape(value: Value, shape: Shape, what: str) -> None:
    """Refuses a value of another shape."""
    if isinstance(shape, list) or isinstance(shape, tuple):
        if not isinstance(value, list) or (isinstance(shape, tuple) and len(value) != len(shape)):
            raise Malformed(f"{what}: not an array of its fields")
        for number, item in enumerate(value):
            check_shape(item, shape[number] if isinstance(shape, tuple) else shape[0], what)
        return
    if shape.endswith("?"):
        if value is None:
            return
        shape = shape[:-1]
    if shape in _SIZES:
        good = isinstance(value, bytes) and len(value) == _SIZES[shape]
    elif shape == "signed":
        return check_shape(value, ("bytes", "signature"), what)
    elif shape == "record":
        return check_shape(value, ("digest", "bytes"), what)
    elif shape == "uint":
        good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    else:
        good = isinstance(value, {"text": str, "bytes": bytes, "bool": bool}[shape])
    if not good:
        raise Malformed(f"{what}: {shape} expected")

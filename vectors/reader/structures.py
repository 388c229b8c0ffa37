"""Structures that an archive does not hold, but the vectors do: statements, actions (3.2, 3.3) and bodies of requests (12.2)."""

from .cbor import Fields, Value, decode, encode
from .errors import Malformed
from .functions import H, verify


def statement_input(origin: str, data: bytes, public: bytes) -> bytes:
    """What a sign-in statement signs; the signature is verified (3.2, 12.2)."""
    fields = Fields(decode(data, 1024, "statement"), 6, "statement")
    account, device, purpose = fields.id(), fields.id(), fields.one_of(1, 2)
    server_nonce, client_nonce, signature = fields.digest(), fields.digest(), fields.octets(64)
    if purpose == 2 and device != bytes(16):
        raise Malformed("statement: a recovery names a device")
    said = encode([origin, account, device, purpose, server_nonce, client_nonce])
    verify(public, "login", said, signature, "statement")
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
    "server": (["uint"], "uint", "text", "uint", "uint", [("text", "uint")]),
    "register-start": ("id", "bytes"),
    "register-started": ("digest", "bytes"),
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
    "action": ("bytes", "signature"),
    "commit": ("signed", "bytes", ["bytes"], "bool"),
    "page": ("uint", [("signed", "bytes?")], "bool", [ENTRY]),
    "entry": ENTRY,
    "session-entry": ("id", "id", "uint", "uint", "uint", "uint", "bool"),
}
_SIZES = {"id": 16, "digest": 32, "signature": 64}
LIMIT = 16 * 1024 * 1024


def decode_body(name: str, data: bytes) -> Value:
    """A body of a request or an answer (12.2)."""
    value = decode(data, LIMIT, name)
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
    elif shape == "uint":
        good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    else:
        good = isinstance(value, {"text": str, "bytes": bytes, "bool": bool}[shape])
    if not good:
        raise Malformed(f"{what}: {shape} expected")

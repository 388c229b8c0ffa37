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


def decode_body(name: str, data: bytes) -> Value:
    """A body of a request or an answer (12.2)."""
    raise Malformed(f"body {name} is not known")

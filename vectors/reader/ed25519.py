"""Strict verification of Ed25519 (1.2).

The library (OpenSSL) computes `S B - h A` and compares its encoding with the bytes of `R`: no cofactor, no batch. What it does not promise is checked here first:
canonical `S`, canonical `A` and `R`, neither of small order.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
L = 2**252 + 27742317777372353535851937790883648493
# The y of a point whose order is 8; that of the others of small order are 0, 1, -1 and its negative.
Y8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
SMALL_ORDER_Y = frozenset({0, 1, P - 1, Y8, P - Y8})


def good_point(encoding: bytes) -> bool:
    """A canonical encoding of a point that is not of small order.

    With `y < P` the only encodings left that are not canonical are those of `x = 0` with the sign set; their `y` is 1 or -1, of small order.
    """
    y = int.from_bytes(encoding, "little") & (2**255 - 1)
    return len(encoding) == 32 and y < P and y not in SMALL_ORDER_Y


def valid_key(encoding: bytes) -> bool:
    """A good point that is on the curve: `x^2 = (y^2 - 1) / (d y^2 + 1)` has a root (1.1)."""
    if not good_point(encoding):
        return False
    y = int.from_bytes(encoding, "little") & (2**255 - 1)
    x_squared = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    return pow(x_squared, (P - 1) // 2, P) == 1


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Strict verification (1.2)."""
    if len(signature) != 64 or not good_point(public) or not good_point(signature[:32]):
        return False
    if int.from_bytes(signature[32:], "little") >= L:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_key(seed: bytes) -> bytes:
    """The public key of a seed (RFC 8032)."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def sign(seed: bytes, message: bytes) -> bytes:
    """Signs as RFC 8032; only tests and vectors need it."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)

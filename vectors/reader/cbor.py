"""The strict decoder and the encoder (1.1): a small part of CBOR, in one form only."""

from .errors import Malformed, TooMuch, WrongVersion

Value = int | bytes | str | bool | None | list["Value"]

MOST = 2**64 - 1
LEAST = -(2**63)
# No structure nests deeper than six arrays (1.1); an archive holds some of them inside others.
DEEPEST = 16
SIGNED_LIMIT = 256 * 1024 + 128
VERSION = 0x82
SUITE = 1


def encode(value: Value) -> bytes:
    """The one encoding of a value (1.1)."""
    if value is None:
        return b"\xf6"
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        text = value.encode("utf-8")
        return _head(3, len(text)) + text
    return _head(4, len(value)) + b"".join(encode(item) for item in value)


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << (8 * size):
            return bytes([major << 5 | code]) + argument.to_bytes(size, "big")
    raise ValueError("integer beyond 64 bits")


def decode(data: bytes, limit: int, what: str) -> Value:
    """Exactly one value, in its one encoding, of at most `limit` bytes (1.1)."""
    if len(data) > limit:
        raise TooMuch(f"{what}: {len(data)} bytes, at most {limit} are allowed")
    decoder = _Decoder(data, what)
    value = decoder.value(DEEPEST)
    if decoder.at != len(data):
        raise Malformed(f"{what}: bytes after its end")
    return value


class _Decoder:
    def __init__(self, data: bytes, what: str) -> None:
        self.data, self.what, self.at = data, what, 0

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise Malformed(f"{self.what}: cut off")
        piece = self.data[self.at:end]
        self.at = end
        return piece

    def value(self, depth: int) -> Value:
        if depth == 0:
            raise Malformed(f"{self.what}: nested too deeply")
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if major == 7:
            simple: dict[int, Value] = {20: False, 21: True, 22: None}
            if info in simple:
                return simple[info]
            raise Malformed(f"{self.what}: float or simple value")
        argument = self.argument(info)
        if major == 0:
            return argument
        if major == 1:
            if -1 - argument < LEAST:
                raise Malformed(f"{self.what}: integer below -2^63")
            return -1 - argument
        if major == 2:
            return self.take(argument)
        if major == 3:
            try:
                return self.take(argument).decode("utf-8")
            except UnicodeDecodeError as error:
                raise Malformed(f"{self.what}: text is not UTF-8") from error
        if major == 4:
            if argument > len(self.data) - self.at:
                raise Malformed(f"{self.what}: cut off")
            return [self.value(depth - 1) for _ in range(argument)]
        raise Malformed(f"{self.what}: map or tag")

    def argument(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            raise Malformed(f"{self.what}: indefinite length")
        size = 1 << (info - 24)
        argument = int.from_bytes(self.take(size), "big")
        if argument < 24 or (size > 1 and argument < 1 << (4 * size)):
            raise Malformed(f"{self.what}: integer or length is not in its shortest form")
        return argument


class Fields:
    """Takes the fields of a positional array one after the other, each with its type (CDDL)."""

    def __init__(self, value: Value, count: int, what: str) -> None:
        if not isinstance(value, list) or len(value) != count:
            raise Malformed(f"{what}: not an array of {count} fields")
        self.values, self.what = iter(value), what

    def wrong(self, expected: str) -> Malformed:
        return Malformed(f"{self.what}: {expected} expected")

    def any(self) -> Value:
        return next(self.values)

    def integer(self) -> int:
        value = next(self.values)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong("an integer")
        return value

    def uint(self, least: int = 0) -> int:
        value = self.integer()
        if value < least:
            raise self.wrong(f"an unsigned integer of at least {least}")
        return value

    def one_of(self, *allowed: int) -> int:
        value = self.uint()
        if value not in allowed:
            raise Malformed(f"{self.what}: {value} is none of {allowed}")
        return value

    def octets(self, *sizes: int) -> bytes:
        """A byte string of one of these sizes; of any size if none is given."""
        value = next(self.values)
        if not isinstance(value, bytes) or (sizes and len(value) not in sizes):
            raise self.wrong(f"a byte string of {sizes or 'any'} bytes")
        return value

    def text(self) -> str:
        value = next(self.values)
        if not isinstance(value, str):
            raise self.wrong("a text")
        return value

    def array(self, least: int = 0, most: int = 2**32) -> list[Value]:
        value = next(self.values)
        if not isinstance(value, list) or len(value) < least:
            raise self.wrong(f"an array of at least {least} items")
        if len(value) > most:
            raise TooMuch(f"{self.what}: {len(value)} items, at most {most} are allowed")
        return value

    def null(self) -> None:
        if next(self.values) is not None:
            raise self.wrong("null")

    def id(self) -> bytes:
        return self.octets(16)

    def digest(self) -> bytes:
        return self.octets(32)

    def signed(self) -> tuple[bytes, bytes]:
        """`signed = [bytes, signature]`."""
        return signed(next(self.values), self.what)


def versioned(data: bytes, limit: int, count: int, what: str) -> Fields:
    """A structure that begins with version and suite. Another version is refused by its name before anything after it is judged (1.1)."""
    if len(data) > limit:
        raise TooMuch(f"{what}: {len(data)} bytes, at most {limit} are allowed")
    decoder = _Decoder(data, what)
    first = decoder.take(1)[0]
    if first >> 5 == 4 and decoder.argument(first & 31):
        version = decoder.value(1)
        if isinstance(version, int):
            check_version(version, SUITE, what)
    fields = Fields(decode(data, limit, what), count, what)
    check_version(fields.uint(), fields.uint(), what)
    return fields


def check_version(version: int, suite: int, what: str) -> None:
    """Refuses another version by its name (status), and another suite (1.4)."""
    if not 0 <= version <= 255:
        raise Malformed(f"{what}: {version} is no version")
    if version != VERSION:
        number, draft = version & 0x7F, version & 0x80
        name = f"draft {number} of version 1" if draft else f"version {number}"
        raise WrongVersion(f"{what}: {name}; this reader knows draft 2 of version 1")
    if suite != SUITE:
        raise WrongVersion(f"{what}: suite {suite}; this reader knows suite 1")


def signed(value: Value, what: str) -> tuple[bytes, bytes]:
    """`signed = [bytes, signature]`."""
    fields = Fields(value, 2, what)
    return fields.octets(), fields.octets(64)


def bytes_list(values: list[Value], size: int, what: str) -> list[bytes]:
    """An array of byte strings of one size."""
    out = []
    for value in values:
        if not isinstance(value, bytes) or len(value) != size:
            raise Malformed(f"{what}: a byte string of {size} bytes expected")
        out.append(value)
    return out

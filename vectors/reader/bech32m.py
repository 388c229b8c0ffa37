"""Bech32m (BIP 350) as section 2.3 uses it, and the kit."""

import html
from dataclasses import dataclass
from uuid import UUID

from .errors import BadText

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
CONSTANT = 0x2BC830A3
GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def _polymod(values: list[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate(GENERATOR):
            if top >> i & 1:
                check ^= generator
    return check


def _expand(part: str) -> list[int]:
    return [ord(c) >> 5 for c in part] + [0] + [ord(c) & 31 for c in part]


def _good(part: str, values: list[int]) -> bool:
    return _polymod(_expand(part) + values) == CONSTANT


def _regroup(values: list[int], source: int, target: int, pad: bool) -> list[int]:
    bits, count, out = 0, 0, []
    for value in values:
        bits, count = bits << source | value, count + source
        while count >= target:
            count -= target
            out.append(bits >> count & ((1 << target) - 1))
    rest = bits & ((1 << count) - 1)
    if pad and count:
        out.append(rest << (target - count))
    elif not pad and (rest or count >= source):
        raise BadText("Bech32m: bits after the end of the data")
    return out


def encode(part: str, data: bytes) -> str:
    """Lower-case Bech32m text, without spaces."""
    values = _regroup(list(data), 8, 5, True)
    check = _polymod(_expand(part) + values + [0] * 6) ^ CONSTANT
    values += [check >> 5 * (5 - i) & 31 for i in range(6)]
    return part + "1" + "".join(CHARSET[v] for v in values)


def decode(part: str, text: str, size: int | None = None) -> bytes:
    """Reads without regard to spaces, hyphens, line ends and case (2.3); names the place of one wrong character, which is not corrected."""
    plain = "".join(text.split()).replace("-", "").lower()
    if not plain.startswith(part + "1"):
        raise BadText(f"not a text that begins with {part}1")
    body = plain[len(part) + 1:]
    values = [CHARSET.find(character) for character in body]
    if len(values) < 6:
        raise BadText("too short")
    if -1 in values or not _good(part, values):
        place = _wrong_place(part, values)
        if place is None:
            raise BadText("the checksum is wrong: more than one character")
        raise BadText(f"character {place} (group {(place - 1) // 4 + 1}) is wrong", place)
    data = bytes(_regroup(values[:-6], 5, 8, False))
    if size is not None and len(data) != size:
        raise BadText(f"{len(data)} bytes, not {size}")
    return data


def _wrong_place(part: str, values: list[int]) -> int | None:
    """The one place, from 1, where another character makes the text right (2.3)."""
    places = [place for place in range(len(values))
              if any(_good(part, values[:place] + [other] + values[place + 1:]) for other in range(32))]
    return len(part) + 2 + places[0] if len(places) == 1 else None


@dataclass(frozen=True)
class Kit:
    """What a recovery kit says, or a recovery key alone."""

    recovery: bytes
    account: bytes | None
    checkpoint: bytes | None


def read_id(text: str) -> bytes:
    """The text form of an id, and no other form (1.1)."""
    try:
        value = UUID(text)
    except ValueError as error:
        raise BadText(f"{text}: not an id") from error
    if str(value) != text:
        raise BadText(f"{text}: not an id")
    return value.bytes


def read_kit(text: str) -> Kit:
    """A kit's text, its HTML page, or a recovery key alone (2.3)."""
    if '<pre id="kit">' in text:
        text = html.unescape(text.split('<pre id="kit">', 1)[1].split("</pre>", 1)[0])
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    values = {name.strip(): value.strip() for name, value in lines.items()}
    account, checkpoint = values.get("account"), values.get("checkpoint")
    return Kit(
        decode("lsrk", values.get("recovery key", text), 32),
        read_id(account) if account else None,
        decode("lscp", checkpoint) if checkpoint else None,
    )

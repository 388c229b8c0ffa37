"""The strict decoder, Pad, the strictness of Ed25519, Bech32m, the state digest."""

import random
import unittest

import cbor2

from .. import bech32m, cbor, chain, ed25519
from ..errors import BadText, Malformed, TooMuch, WrongVersion
from ..functions import Pad
from ..restore import safe_name


class Cbor(unittest.TestCase):
    def test_what_is_not_deterministic_is_refused(self) -> None:
        wrong = {
            "longer integer": "1817", "two bytes for one": "1900ff", "four for two": "1a0000ffff", "eight for four": "1b00000000ffffffff",
            "longer length": "580100", "indefinite string": "5f4100ff", "indefinite array": "9f00ff", "map": "a0", "tag": "c000",
            "float": "f90000", "undefined": "f7", "simple": "e0", "simple in two bytes": "f814", "trailing": "0000", "nothing": "",
            "cut off": "4200", "array cut off": "8200", "text that is none": "61ff", "surrogate": "63eda080", "reserved": "1c",
            "below -2^63": "3b8000000000000000", "huge array": "9b7fffffffffffffff", "huge string": "5b7fffffffffffffff", "break": "ff",
        }
        for name, data in wrong.items():
            with self.subTest(name), self.assertRaises(Malformed):
                cbor.decode(bytes.fromhex(data), 100, "test")

    def test_limit_and_depth(self) -> None:
        with self.assertRaises(TooMuch):
            cbor.decode(bytes(11), 10, "test")
        cbor.decode(b"\x81" * 15 + b"\x00", 100, "test")
        with self.assertRaises(Malformed):
            cbor.decode(b"\x81" * 16 + b"\x00", 100, "test")

    def test_as_another_encoder(self) -> None:
        draw = random.Random(1)

        def value(depth: int) -> cbor.Value:
            kind = draw.randrange(6 if depth else 5)
            size = draw.choice([0, 1, 23, 24, 255, 256, 65535, 65536])
            choices: list[cbor.Value] = [draw.randrange(2 ** draw.choice([3, 5, 8, 16, 32, 63])), draw.randbytes(size), "ä" * size, None,
                                         -1 - draw.randrange(2 ** draw.choice([3, 5, 8, 16, 32, 63]))]
            return [value(depth - 1) for _ in range(draw.randrange(30))] if kind == 5 else choices[kind]

        for _ in range(200):
            made = value(2)
            data = cbor2.dumps(made, canonical=True)
            self.assertEqual(cbor.encode(made), data)
            self.assertEqual(cbor.decode(data, len(data), "test"), made)

    def test_other_versions_are_named(self) -> None:
        for version, name in (("1881", "draft 1 of version 1"), ("03", "version 3")):
            # Whatever comes after it.
            with self.assertRaisesRegex(WrongVersion, name):
                cbor.versioned(bytes.fromhex("83" + version + "a0ff"), 100, 2, "test")
        with self.assertRaisesRegex(WrongVersion, "suite 2"):
            cbor.check_version(0x82, 2, "test")


class Padme(unittest.TestCase):
    def test_sizes(self) -> None:
        for n, padded in ((0, 256), (256, 256), (257, 272), (272, 272), (273, 288), (1000, 1024), (1025, 1088), (65537, 67584),
                          (2**40, 2**40), (2**40 + 1, 2**40 + 2**34)):
            self.assertEqual(Pad(n), padded, n)

    def test_never_less_and_at_most_an_eighth_more(self) -> None:
        for n in range(256, 5000):
            self.assertTrue(n <= Pad(n) <= n * 9 // 8 and Pad(Pad(n)) == Pad(n))


class Ed25519(unittest.TestCase):
    SEED = bytes(range(32))

    def setUp(self) -> None:
        self.public = ed25519.public_key(self.SEED)
        self.signature = ed25519.sign(self.SEED, b"message")

    def test_good(self) -> None:
        self.assertTrue(ed25519.verify(self.public, b"message", self.signature))
        self.assertFalse(ed25519.verify(self.public, b"massage", self.signature))

    def test_s_has_one_encoding(self) -> None:
        s = int.from_bytes(self.signature[32:], "little")
        for k in (1, 2, 8):
            if s + k * ed25519.L < 2**256:
                self.assertFalse(ed25519.verify(self.public, b"message", self.signature[:32] + (s + k * ed25519.L).to_bytes(32, "little")))

    def test_small_order_is_refused(self) -> None:
        """With A of small order and R = S B a signature is valid for every eighth message: not here."""
        for y in sorted(ed25519.SMALL_ORDER_Y):
            for sign in (0, 1):
                point = (y | sign << 255).to_bytes(32, "little")
                self.assertFalse(ed25519.good_point(point))
                self.assertFalse(ed25519.verify(point, b"message", self.signature))
                self.assertFalse(ed25519.verify(point, b"message", point + bytes(32)))
                self.assertFalse(ed25519.verify(self.public, b"message", point + self.signature[32:]))

    def test_every_y_of_small_order_is_listed(self) -> None:
        p = ed25519.P
        d = -121665 * pow(121666, -1, p) % p

        def x_squared(y: int) -> int:
            return (y * y - 1) * pow(d * y * y + 1, -1, p) % p

        for y in ed25519.SMALL_ORDER_Y - {0, 1, p - 1}:
            # Doubling gives y = (y^2 + x^2) / (2 - y^2 + x^2) = 0: a point of order 4, so this one has order 8.
            self.assertEqual((y * y + x_squared(y)) % p, 0)
        self.assertEqual(x_squared(1), 0)
        self.assertEqual(x_squared(p - 1), 0)
        # d y^4 + 2 y^2 - 1 = 0 has two roots in y^2, of which one is a square: y and -y are all there are.
        self.assertEqual((d * pow(ed25519.Y8, 4, p) + 2 * pow(ed25519.Y8, 2, p) - 1) % p, 0)
        other = (-2 * pow(d, -1, p) - pow(ed25519.Y8, 2, p)) % p
        self.assertEqual(pow(other, (p - 1) // 2, p), p - 1)

    def test_encodings_of_points_are_canonical(self) -> None:
        for y in range(2**255 - 19, 2**255):
            for sign in (0, 1):
                self.assertFalse(ed25519.good_point((y | sign << 255).to_bytes(32, "little")))


class Bech32m(unittest.TestCase):
    # Valid and invalid texts of BIP 350.
    def test_published(self) -> None:
        self.assertEqual(bech32m.encode("a", b""), "a1lqfn3a")
        text = "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx"
        values = [bech32m.CHARSET.index(c) for c in text[7:]]
        self.assertTrue(bech32m._good("abcdef", values))
        self.assertEqual(values[:-6], list(range(31, -1, -1)))
        for part, wrong in (("a", "a1lqfn3q"), ("M", "M1VUXWEZ"), ("in", "in1muywd"), ("mm", "mm1crxm3i"), ("au", "au1s5cgom")):
            with self.assertRaises(BadText):
                bech32m.decode(part.lower(), wrong)

    def test_spaces_case_and_one_wrong_character(self) -> None:
        key = bytes(range(32))
        text = bech32m.encode("lsrk", key)
        grouped = " ".join(text[i:i + 4] for i in range(0, len(text), 4))
        self.assertEqual(bech32m.decode("lsrk", grouped.upper().replace(" ", "\r\n", 2).replace(" ", "-", 2), 32), key)
        for place in range(5, len(text), 6):
            for other in ("q" if text[place] != "q" else "p", "b"):
                with self.assertRaises(BadText) as raised:
                    bech32m.decode("lsrk", text[:place] + other + text[place + 1:], 32)
                self.assertEqual(raised.exception.position, place + 1)

    def test_kit(self) -> None:
        text = bech32m.encode("lsrk", bytes(32))
        kit = f"server: http://x\naccount: 00000000-0000-0000-0000-000000000000\nrecovery key: {text}\n"
        page = f'<html><pre id="kit">{kit}</pre></html>'
        for said in (kit, page):
            self.assertEqual(bech32m.read_kit(said), bech32m.Kit(bytes(32), bytes(16), None))
        self.assertEqual(bech32m.read_kit(text + "\n").recovery, bytes(32))


class State(unittest.TestCase):
    def test_order_does_not_matter_and_what_is_taken_away_is_gone(self) -> None:
        a, b = chain.element(bytes(16), 1, bytes(32), 1), chain.element(bytes(16), 2, bytes(32), 2)
        empty = [0] * chain.LANES
        self.assertEqual(chain.add(chain.add(empty, a, 1), b, 1), chain.add(chain.add(empty, b, 1), a, 1))
        self.assertEqual(chain.add(chain.add(empty, a, 1), a, -1), empty)

    def test_skip(self) -> None:
        self.assertEqual([chain.skip_target(seq) for seq in (1, 2, 3, 4, 6, 8, 12)], [0, 0, 2, 0, 4, 0, 8])


class Names(unittest.TestCase):
    def test_safe(self) -> None:
        for name, safe in ((b"plain-1.txt", "plain-1.txt"), (b"..", "%2E."), (b"a/b", "a%2Fb"), (b"", "%"), (b"\xff%", "%FF%25")):
            self.assertEqual(safe_name(name), safe)


if __name__ == "__main__":
    unittest.main()

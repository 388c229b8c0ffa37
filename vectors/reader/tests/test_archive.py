"""Archives made by the tiny writer: what is right is read, and what was changed is refused or named."""

import os
import random
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from ..__main__ import main
from ..bech32m import Kit, read_kit
from ..cbor import Value, encode
from ..chain import checksum
from ..errors import Refused
from ..reading import Report, read_archive
from . import writer
from .writer import PASSPHRASE, Item, World


class Archives(unittest.TestCase):
    world: World
    kit: Kit

    @classmethod
    def setUpClass(cls) -> None:
        cls.world = World()
        cls.kit = read_kit(cls.world.recovery_text())

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.count = 0

    def read(self, data: bytes, secret: str | Kit | None = None) -> tuple[Report, Path]:
        self.count += 1
        path, out = self.folder / f"archive{self.count}", self.folder / f"out{self.count}"
        path.write_bytes(data)
        out.mkdir()
        return read_archive(path, secret or self.kit, out, set()), out

    def refused(self, items: list[Item], expected: str) -> None:
        with self.assertRaisesRegex(Refused, expected):
            self.read(self.world.archive(items))

    def test_by_recovery_key_and_by_passphrase(self) -> None:
        good = self.world.archive(self.world.items())
        for secret in (self.kit, PASSPHRASE, "correct horse fi"):
            report, out = self.read(good, secret)
            self.check_tree(report, out / "my%2Fvault")

    def check_tree(self, report: Report, vault: Path) -> None:
        tree = vault / "snapshots" / "x"
        self.assertEqual((tree / "folder/large").read_bytes(), World.LARGE)
        self.assertEqual((tree / "again").read_bytes(), World.LARGE)
        self.assertEqual((tree / "small").read_bytes(), b"hello")
        self.assertEqual(os.readlink(tree / "link"), "folder/large")
        self.assertFalse((tree / "gone").exists())
        self.assertEqual((tree / "small").stat().st_mtime_ns, 1700000000 * 10**9 + 5)
        self.assertEqual((tree / "small").stat().st_mode & 0o777, 0o640)
        # What lies below a link of the snapshot is not written through it.
        self.assertFalse(Path("/tmp/evil").exists())
        self.assertEqual(sorted(p.name for p in tree.iterdir()), ["again", "folder", "link", "small", "through"])
        documents = {p.read_bytes() for p in (vault / "records").iterdir() if p.name != "index"}
        self.assertIn(encode("under a new key"), documents)
        self.assertEqual(len(report.named), 1, report.named)
        self.assertIn("through", report.named[0])

    def test_without_the_passphrases_wrap(self) -> None:
        bare = self.world.archive(self.world.items(bare=True))
        report, out = self.read(bare)
        self.check_tree(report, out / "my%2Fvault")
        with self.assertRaisesRegex(Refused, "only the recovery key"):
            self.read(bare, PASSPHRASE)

    def test_wrong_secrets(self) -> None:
        good = self.world.archive(self.world.items())
        for secret in ("wrong", Kit(bytes(32), None, None), Kit(self.kit.recovery, bytes(16), None)):
            with self.assertRaises(Refused):
                self.read(good, secret)

    def test_flipped_bits_and_cut_ends(self) -> None:
        good = self.world.archive(self.world.items())
        draw = random.Random(1)
        for _ in range(60):
            place = draw.randrange(len(good))
            with self.assertRaises(Refused, msg=f"byte {place}"):
                self.read(good[:place] + bytes([good[place] ^ 1 << draw.randrange(8)]) + good[place + 1:])
            with self.assertRaises(Refused, msg=f"cut at {place}"):
                self.read(good[:place])
        with self.assertRaises(Refused):
            self.read(good + b"\0")

    def test_items_left_out_swapped_or_doubled_under_a_good_end(self) -> None:
        """The end is signed anew, so that not the digest but the rule itself refuses (or names what is missing)."""
        items = self.world.items()
        for at in range(len(items)):
            with self.subTest(left_out=items[at][0], at=at):
                self.expect(items[:at] + items[at + 1:], items[at])
            with self.subTest(doubled=items[at][0], at=at), self.assertRaises(Refused):
                self.read(self.world.archive(items[:at + 1] + items[at:]))
            if at + 1 < len(items):
                with self.subTest(swapped=items[at][0], at=at), self.assertRaises(Refused):
                    self.read(self.world.archive([*items[:at], items[at + 1], items[at], *items[at + 2:]]))

    def expect(self, items: list[Item], left_out: Item) -> None:
        """Refused, or named; but a version that neither head nor snapshot needs may be left out without a word."""
        needless = (7, encode(list(self.world.files.versions[6])))
        try:
            report, _ = self.read(self.world.archive(items))
        except Refused:
            return
        named = [line for line in report.named if "missing" in line or "head pin" in line]
        self.assertTrue(named if left_out != needless else not named, report.named)

    def test_ends_that_say_something_else(self) -> None:
        items = self.world.items()
        for at in range(6):
            def other(fields: list[Value], at: int = at) -> list[Value]:
                old = fields[at]
                return [*fields[:at], old + 1 if isinstance(old, int) else bytes(len(old)) if isinstance(old, bytes) else None, *fields[at + 1:]]
            with self.subTest(at), self.assertRaises(Refused):
                self.read(self.world.archive(items, other))

    def test_missing_items_are_named(self) -> None:
        items = self.world.items()
        blob = next(i for i in items if i[0] == 9)
        version = next(i for i in items if i[0] == 7 and i[1] == encode(list(self.world.files.versions[0])))
        place = encode(self.world.files.versions[0][:2])
        left = [i for i in items if i not in (blob, version)]
        left.insert(max(n for n, i in enumerate(left) if i[0] == 7) + 1, (8, place))
        report, _ = self.read(self.world.archive([*left, (10, blob[1][:16])]))
        said = [line for line in report.named if "missing" in line]
        self.assertEqual(len(said), 2, report.named)
        self.assertFalse(any("does not say" in line for line in said))
        self.refused([*items, (10, blob[1][:16])], "there after all")

    def test_what_a_revoked_device_wrote_late_stops_its_vault_until_a_repair(self) -> None:
        state: list[bytes] = []

        def late(files: writer.VaultWriter) -> None:
            state.append(checksum(files.state))
            before = files.state, dict(files.records), len(files.versions)
            files.put(files.owner.b, "app/note", b"late", "late")
            files.state, files.records = before[0], before[1]
            del files.versions[before[2]:]

        broken = World(late)
        report = self.read_other(broken, pins_hold=False)
        self.assertTrue(any("last good one" in line for line in report.named), report.named)

        def repaired(files: writer.VaultWriter) -> None:
            late(files)
            files.repair(files.owner.a, len(files.commits) - 2, state[-1])
            files.put(files.owner.a, "app/note", b"on", "goes on")

        report = self.read_other(World(repaired), pins_hold=True)
        self.assertEqual(len(report.named), 1, report.named)

    def test_what_a_device_made_wrong_is_quarantined(self) -> None:
        def wrong(files: writer.VaultWriter) -> None:
            # The contents say another name than the record's id is made of; the chain is right.
            with patch.object(writer, "record_id", lambda secrets, kind, name: bytes(16)):
                files.put(files.owner.a, "app/note", b"wrong", "wrong")

        report = self.read_other(World(wrong), pins_hold=True)
        self.assertEqual(len([line for line in report.named if "quarantined" in line and "type and name" in line]), 1, report.named)

    def test_checkpoint_of_a_kit(self) -> None:
        world, ring = self.world, self.world.ring
        good = world.archive(world.items())

        def kit(index: int, log_head: bytes, seq: int, head: bytes) -> Kit:
            return Kit(world.owner.recovery, world.owner.id, encode([0x82, world.owner.id, index, log_head, seq, head]))

        self.read(good, kit(1, world.owner.hashes[1], 2, ring.hashes[2]))
        for wrong in (kit(1, world.owner.hashes[0], 2, ring.hashes[2]), kit(1, world.owner.hashes[1], 2, ring.hashes[3]),
                      kit(9, world.owner.hashes[1], 2, ring.hashes[2]), kit(1, world.owner.hashes[1], 99, ring.hashes[2])):
            with self.assertRaisesRegex(Refused, "the kit"):
                self.read(good, wrong)

    def test_command_line(self) -> None:
        archive, key = self.folder / "archive", self.folder / "key"
        archive.write_bytes(self.world.archive(self.world.items()))
        key.write_text(self.world.recovery_text())

        def run(out: str) -> int:
            arguments = ["reader", str(archive), "--out", str(self.folder / out), "--recovery-key-file", str(key)]
            with patch("sys.argv", arguments), redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
                status = main()
            self.assertEqual(len(said.getvalue().splitlines()), 0 if status == 3 else 1)
            return status

        self.assertEqual(run("out"), 3)
        self.assertEqual(run("out"), 2)
        archive.write_bytes(archive.read_bytes()[:-1])
        self.assertEqual(run("other"), 1)
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["archive", "key", "out"])

    def read_other(self, world: World, pins_hold: bool) -> Report:
        data = world.archive(world.items())
        self.count += 1
        path, out = self.folder / f"archive{self.count}", self.folder / f"out{self.count}"
        path.write_bytes(data)
        if not pins_hold:
            # The head pin lies beyond the last good commit: the vault is refused unless the device is ignored.
            out.mkdir()
            said = read_archive(path, self.kit, out, set()).named
            self.assertTrue(any("head pin" in line and "not read" in line for line in said), said)
            out = self.folder / f"ignored{self.count}"
        out.mkdir()
        return read_archive(path, self.kit, out, set() if pins_hold else {world.owner.a.id})


if __name__ == "__main__":
    unittest.main()

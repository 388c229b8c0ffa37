"""Opens archives that the real programs made, and compares with what was backed up.

Usage: python -m reader.against_cli LOCKSTEP LOCKSTEP_SERVER

A server on loopback and an account with three devices: files, folders, links and records in several vaults, several snapshots, deleted files and
records, a forgotten snapshot, a changed passphrase, a revocation with new epochs, a deleted vault. The archive is opened with the passphrase and with
the recovery kit; what was written is compared with the source byte for byte; damaged archives are refused.
"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PASSPHRASE, NEW_PASSPHRASE = "seven words would be better than this", "ﬁve other words, with a ligature"


class Account:
    """The real programs at work in one folder."""

    def __init__(self, work: Path, lockstep: Path, server: Path) -> None:
        self.work, self.lockstep, self.fingerprint = work, lockstep, ""
        self.log = (work / "server.log").open("wb")
        environment = {**os.environ, "LOCKSTEP_LISTEN": "127.0.0.1:0", "LOCKSTEP_DATA": str(work / "data")}
        self.server = subprocess.Popen([server, "serve"], cwd=work, env=environment, stdout=subprocess.PIPE, stderr=self.log, text=True)
        assert self.server.stdout is not None
        found = None
        while found is None:
            line = self.server.stdout.readline()
            assert line, "the server does not listen: " + (work / "server.log").read_text()
            found = re.search(r"\((http://[^)]*)\)", line)
        self.url = found[1]
        for name, text in (("passphrase", PASSPHRASE), ("new-passphrase", NEW_PASSPHRASE)):
            (work / name).write_text(text + "\n", encoding="utf-8")

    def run(self, device: str, *arguments: str | Path, given: str = "") -> str:
        """Runs the client on one device; any exit status but 0 fails."""
        command = [self.lockstep, "--home", self.work / device, *arguments]
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"lockstep {' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def passphrase(self, name: str = "passphrase") -> list[str | Path]:
        """The option."""
        return ["--passphrase-file", self.work / name]

    def enrol(self, device: str, passphrase: str) -> None:
        """Adds a device."""
        self.run(device, "login", "--server", self.url, "--name", "ada", *self.passphrase(passphrase), "--device-name", device)

    def put(self, device: str, record_type: str, name: str, document: object, vault: str = "files") -> None:
        """Writes a record."""
        self.run(device, "record", "put", "--type", record_type, "--id", name, "--vault", vault, given=json.dumps(document))

    def stop(self) -> None:
        """Stops the server."""
        self.server.terminate()
        self.server.wait(60)
        self.log.close()


def make_tree(root: Path, seed: int) -> None:
    """Files of all sizes that matter, folders, links, odd names, modes and times."""
    draw = random.Random(seed)
    for size in (0, 1, 255, 256, 257, 4096, 65535, 65536, 65537, 70_000, 1_000_003, 9_000_000):
        file = root / f"folder {size % 7}" / f"file-{size}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(draw.randbytes(size))
    (root / "empty folder").mkdir()
    (root / "ünïcode\nname").write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(root) + b"/not-utf8-\xff")).write_bytes(b"y")
    (root / "twice").write_bytes(next(root.rglob("file-70000")).read_bytes())
    (root / "link").symlink_to("folder 0/file-0")
    (root / "dangling").symlink_to("/nowhere/at all")
    os.utime(root / "twice", ns=(10**18 + 1, 10**18 + 1))
    os.utime(root / "link", ns=(-5 * 10**9 + 7, -5 * 10**9 + 7), follow_symlinks=False)
    (root / "twice").chmod(0o751)
    (root / "empty folder").chmod(0o700)


def build(account: Account) -> None:
    """The life of the account."""
    work, run = account.work, account.run
    photos, notes = work / "photos", work / "notes"
    make_tree(photos, 1)
    make_tree(notes, 2)
    run("laptop", "signup", "--server", account.url, "--name", "ada", *account.passphrase(), "--kit", work / "kit.txt", "--device-name", "laptop")
    run("laptop", "backup", photos)
    account.put("laptop", "app/note", "one", {"text": "first"})
    account.put("laptop", "app/note", "two", {"text": "goes away"})
    run("laptop", "record", "rm", "--type", "app/note", "--id", "two")
    account.put("laptop", "app/note", "one", {"text": "second", "n": 3})
    account.enrol("phone", "passphrase")
    run("phone", "vault", "create", "other / vault")
    run("phone", "vault", "create", "short-lived")
    run("phone", "backup", "--vault", "other / vault", notes)
    account.put("phone", "app/note", "three", ["by the phone"])
    account.put("phone", "app/note", "x", 1, "short-lived")
    run("laptop", "passphrase", "change", *account.passphrase(), "--new-passphrase-file", work / "new-passphrase")
    next(photos.rglob("file-0")).write_bytes(b"no more empty")
    next(photos.rglob("file-257")).unlink()
    run("laptop", "backup", photos, "--tag", "second")
    run("laptop", "vault", "delete", "short-lived", "--yes", *account.passphrase("new-passphrase"))
    run("laptop", "device", "revoke", "phone", *account.passphrase("new-passphrase"))
    (photos / "new one").write_bytes(b"after the revocation" * 1000)
    run("laptop", "backup", photos, notes)
    account.put("laptop", "app/note", "four", {"text": "after the revocation"})
    account.put("laptop", "app/note", "five", {"text": "in the other vault"}, "other / vault")
    account.enrol("tablet", "new-passphrase")
    run("tablet", "device", "rename", "laptop", "old laptop")
    account.put("tablet", "app/note", "one", {"text": "third"})
    (photos / "newest").write_bytes(b"z" * 300_000)
    run("laptop", "backup", photos)
    (photos / "after the last snapshot").write_bytes(b"is not in the archive")


def read(archive: Path, out: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the reader as a user does."""
    command = [sys.executable, "-m", "reader", archive, "--out", out, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def opened(archive: Path, out: Path, *options: str | Path) -> str:
    """Reads an archive of which nothing is missing."""
    done = read(archive, out, *options)
    assert done.returncode == 0, f"{options}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def refused(archive: Path, out: Path, why: str, *options: str | Path) -> None:
    """Reads an archive that has to be refused: one line, and nothing is left behind."""
    done = read(archive, out, *options)
    said = done.stderr.splitlines()
    assert done.returncode == 1 and len(said) == 1 and said[0].startswith("refused: "), f"{why}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert not out.exists() and not out.with_name(out.name + ".partial").exists(), f"{why}: something was left behind"


def describe(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything below a folder: kind, contents, mode and time."""
    found: dict[bytes, tuple[object, ...]] = {}
    for path in [root, *root.rglob("*")]:
        info = path.lstat()
        name = bytes(path)[len(bytes(root)):]
        if path.is_symlink():
            found[name] = ("link", os.readlink(bytes(path)), info.st_mtime_ns)
        elif path.is_dir():
            found[name] = ("folder", info.st_mode & 0o777, info.st_mtime_ns)
        else:
            found[name] = ("file", path.read_bytes(), info.st_mode & 0o777, info.st_mtime_ns)
    return found


def compare(source: Path, written: Path, without: set[bytes]) -> None:
    """Exactly what was backed up, but for what changed since."""
    there, here = describe(source), describe(written)
    touched = {b""} if without else set()
    for name in sorted(there.keys() | here.keys()):
        if name in without:
            assert name not in here, f"{written}: {name!r} was written after the last snapshot"
        elif name in touched:
            assert there[name][:2] == here[name][:2]
        else:
            assert there.get(name) == here.get(name), f"{written}: {name!r} is another"


def documents(vault: Path, record_type: str) -> dict[str, object]:
    """The JSON records of a type, by name."""
    lines = [line.split("\t") for line in (vault / "records" / "index").read_text(encoding="utf-8").splitlines()]
    wanted = record_type.replace("/", "%2F")
    return {bytes.fromhex(name).decode(): json.loads((vault / "records" / record).read_bytes())
            for record, kind, name, _, _ in lines if kind == wanted}


def check(account: Account, said: str, out: Path) -> None:
    """What was written is what was backed up."""
    files, other = out / "files", out / "other%20%2F%20vault"
    compare(account.work / "photos", files / "snapshots" / "photos", {b"/after the last snapshot"})
    compare(account.work / "notes", files / "snapshots" / "notes", set())
    compare(account.work / "notes", other / "snapshots" / "notes", set())
    assert documents(files, "app/note") == {
        "one": {"text": "third"}, "three": ["by the phone"], "four": {"text": "after the revocation"}}, documents(files, "app/note")
    assert documents(other, "app/note") == {"five": {"text": "in the other vault"}}
    assert sorted(path.name for path in out.iterdir()) == ["files", "other%20%2F%20vault"]
    assert account.fingerprint in said, said


def damage(good: bytes, draw: random.Random) -> list[tuple[str, bytes]]:
    """Archives that are none: bits, ends, items."""
    bad = [("nothing", b""), ("a byte more", good + b"\0"), ("a byte less", good[:-1]), ("no magic", good[6:])]
    for place in [0, 4, 5, 6, 7, 14, *(draw.randrange(len(good)) for _ in range(12)), *(len(good) - 1 - draw.randrange(200) for _ in range(6))]:
        bad.append((f"a bit of byte {place}", good[:place] + bytes([good[place] ^ 1 << draw.randrange(8)]) + good[place + 1:]))
    bad += [(f"cut off at {place}", good[:place]) for place in (6, 15, *(draw.randrange(len(good)) for _ in range(4)))]
    items, at = [], 6
    while at < len(good):
        end = at + 9 + int.from_bytes(good[at + 1:at + 9], "big")
        items.append(good[at:end])
        at = end
    for kind in range(1, 12):
        places = [n for n, item in enumerate(items) if item[0] == kind]
        if not places:
            continue
        place = draw.choice(places)
        bad.append((f"item {place} of type {kind} left out", good[:6] + b"".join(items[:place] + items[place + 1:])))
        bad.append((f"item {place} of type {kind} twice", good[:6] + b"".join(items[:place + 1] + items[place:])))
    return bad


def main(arguments: list[str]) -> int:
    """Everything."""
    if len(arguments) != 2:
        print("usage: python -m reader.against_cli LOCKSTEP LOCKSTEP_SERVER", file=sys.stderr)
        return 2
    lockstep, server = (Path(argument).resolve() for argument in arguments)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        account = Account(work, lockstep, server)
        try:
            build(account)
            whole, bare = work / "whole.archive", work / "bare.archive"
            account.run("laptop", "export", whole)
            account.run("laptop", "export", bare, "--without-passphrase-wrap")
            account.fingerprint = account.run("laptop", "fingerprint").split("account:")[1].split("\n")[0].strip()
        finally:
            account.stop()
        new = account.passphrase("new-passphrase")
        kit: list[str | Path] = ["--recovery-key-file", work / "kit.txt"]
        check(account, opened(whole, work / "by-passphrase", *new), work / "by-passphrase")
        check(account, opened(whole, work / "by-kit", *kit), work / "by-kit")
        check(account, opened(bare, work / "bare", *kit), work / "bare")
        print("opened by passphrase and by recovery kit, with and without the passphrase's wrap: equal to the source")
        refused(bare, work / "no", "no wrap of the passphrase", *new)
        refused(whole, work / "no", "the old passphrase", *account.passphrase())
        bad = damage(whole.read_bytes(), random.Random(7))
        for why, data in bad:
            (work / "bad.archive").write_bytes(data)
            refused(work / "bad.archive", work / "no", why, *kit)
        print(f"{len(bad)} damaged archives refused")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

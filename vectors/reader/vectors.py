"""Runs the vectors of `vectors/` (vectors/README.md). Usage: python -m reader.vectors DIR

What needs HPKE or OPAQUE is skipped and named.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from blake3 import blake3

from . import primitives
from .errors import Refused
from .operations import In, Out, Released, operations

SKIPPED = {
    "device-seal": "HPKE (X-Wing) is not among this reader's libraries",
    "opaque": "OPAQUE is not among this reader's libraries",
}
# A reader that can not tell these apart may count them as one (vectors/README.md).
ALIKE = {"limit": "malformed", "version": "malformed"}


def assemble(root: Path, i: In) -> In:
    """Puts inputs together that are given by what other files hold (vectors/README.md)."""
    for name, file, held in (("log", "device-log", "log"), ("key-header", "key-header", "signed")):
        if name in i:
            cases = json.loads((root / "golden" / f"{file}.json").read_text())["cases"]
            if isinstance(i[name], int):
                i = {**i, name: cases[i[name]]["in"][held]}
            elif isinstance(i[name], list):
                i = {**i, name: [cases[0]["in"][held][item] if isinstance(item, int) else item for item in i[name]]}
    for name, value in i.items():
        if isinstance(value, dict) and "pieces" in value:
            i = {**i, name: b"".join(pieces(root, value)).hex()}
    source = i.get("object")
    if not isinstance(source, dict):
        return i
    other = json.loads((root / source["file"]).read_text())["cases"][source["case"]]["in"]
    data = bytes.fromhex(assemble(root, other)["object"])
    return {**i, "object": b"".join(data[a:b] for a, b in source["ranges"]).hex()}


def pieces(root: Path, value: Any) -> Iterator[bytes]:
    """An input in pieces: hexadecimal, a byte so many times, or what another file's case has between two places."""
    whole = b""
    if "file" in value:
        whole = bytes.fromhex(json.loads((root / value["file"]).read_text())["cases"][value["case"]]["in"]["archive"])
    for piece in value["pieces"]:
        if isinstance(piece, str):
            yield bytes.fromhex(piece)
        elif isinstance(piece, dict):
            yield bytes([piece["byte"]]) * piece["count"]
        else:
            yield whole[piece[0]:piece[1]]


def flips(value: Any, unread: list[int], end: int = 0) -> list[Any]:
    """The input with some bits flipped: of every byte string in it one in every 61 bytes, and one in its first and last byte.

    Of commits that a repair goes back over (`unread`) only what is signed is flipped: neither their change lists nor their signatures are read.
    """
    if isinstance(value, list):
        out = []
        for at, item in enumerate(value):
            others = [[signed, item[1]] for signed in flips(item[0], [], 66)] if at in unread else flips(item, [])
            out += [value[:at] + [flipped] + value[at + 1:] for flipped in others]
        return out
    if not isinstance(value, str) or not value:
        return []
    try:
        data = bytes.fromhex(value)
    except ValueError:
        return []
    length = len(data) - end
    places = sorted({0, length - 1, *range(0, length, 61)}) if length < 4096 else [0, 60, length // 2, length - 1]
    return [(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1:]).hex() for at in places]


def main(arguments: list[str]) -> int:
    """Runs everything under a folder."""
    if len(arguments) != 1:
        print("usage: python -m reader.vectors DIR", file=sys.stderr)
        return 2
    root, ops = Path(arguments[0]), operations()
    counts, failures, skipped = Counter[str](), list[str](), list[str]()
    files = sorted(root.glob("golden/*.json")) + sorted(root.glob("reject/*.json"))
    for file in files:
        vector = json.loads(file.read_text())
        name, op, kind = f"{file.parent.name}/{file.name}", vector["op"], file.parent.name
        if op not in ops:
            skipped.append(f"{name} ({len(vector['cases'])} cases): {SKIPPED.get(op, 'unknown op ' + op)}")
            if op not in SKIPPED:
                failures.append(f"{name}: unknown op {op}")
            continue
        for case in vector["cases"]:
            said = f"{name}: {case.get('name', case.get('fault'))}"
            i = assemble(root, case["in"])
            try:
                if kind == "golden":
                    wrong = golden(ops[op], i, case, vector, counts)
                else:
                    wrong = reject(ops[op], i, case)
            except Exception as error:  # One broken operation does not hide the others: it is a failure like any other.
                wrong = f"broke: {error!r}"
            counts[kind] += 1
            if wrong:
                failures.append(f"{said}: {wrong}")
    files += primitive_files(root, counts, skipped, failures)
    for line in skipped:
        print(f"skipped {line}")
    for line in failures:
        print(f"FAILED {line}")
    print(f"{len(files)} files: {counts['golden']} golden and {counts['reject']} reject cases run, {counts['flips']} flipped bits, "
          f"{counts['primitives']} cases of primitives, {len(skipped)} skipped, {len(failures)} failures")
    return 1 if failures or not counts["golden"] or not counts["reject"] else 0


def primitive_files(root: Path, counts: Counter[str], skipped: list[str], failures: list[str]) -> list[Path]:
    """The published vectors."""
    files = sorted(root.glob("primitives/*.json"))
    for path in files:
        file, check = json.loads(path.read_text()), primitives.CHECKS.get(path.stem)
        if check is None:
            skipped.append(f"primitives/{path.name}: {primitives.SKIPPED.get(path.stem, 'unknown')}")
            if path.stem not in primitives.SKIPPED:
                failures.append(f"primitives/{path.name}: unknown")
            continue
        for number, case in enumerate(file["cases"]):
            name = f"primitives/{path.name}: {case.get('name', number)}"
            good = check(case, file)
            if isinstance(good, str):
                skipped.append(f"{name}: {good}")
                continue
            counts["primitives"] += 1
            if not good:
                failures.append(f"{name}: another result")
    return files


def golden(op: Callable[[In], Out], i: In, case: Any, vector: Any, counts: Counter[str]) -> str | None:
    """A golden case: exactly this output, and no other bits in what is sealed."""
    try:
        out = op(i)
    except (Refused, Released) as refused:
        return f"refused: {refused}"
    for key, value in case["out"].items():
        if out.get(key) != value:
            return f"{key} is {out.get(key)}, not {value}"
    if set(out) != set(case["out"]):
        return f"gives {sorted(out)}, not {sorted(case['out'])}"
    for name in vector.get("sealed", []) + vector.get("plain", []):
        for flipped in flips(i[name], case.get("unread", []) if name == "commits" else []):
            counts["flips"] += 1
            try:
                other = op({**i, name: flipped})
            except (Refused, Released):
                continue
            if name in vector.get("sealed", []) or other == out:
                return f"a flipped bit of {name} is not noticed"
    return None


def reject(op: Callable[[In], Out], i: In, case: Any) -> str | None:
    """A reject case: this class of error (or the other one that is as right), and this much given out before."""
    released = blake3().hexdigest()
    try:
        op(i)
    except Released as failed:
        refused, released = failed.refused, failed.digest
    except Refused as error:
        refused = error
    else:
        return "accepted"
    classes = [case["error"], case.get("or", case["error"])]
    if ALIKE.get(refused.kind, refused.kind) not in [ALIKE.get(said, said) for said in classes]:
        return f"{refused.kind} ({refused}), not {' or '.join(classes)}"
    if released != case["released"]:
        return "released something else"
    if "position" in case and getattr(refused, "position", None) != case["position"]:
        return f"position {getattr(refused, 'position', None)}, not {case['position']}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

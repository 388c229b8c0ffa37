"""Opens an archive. Usage: python -m reader ARCHIVE --out DIR (--passphrase-file F | --recovery-key-file F)

Exit status: 0 all of it was read; 1 refused; 2 wrong use; 3 read, and what is missing, quarantined or left out is named.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from .bech32m import Kit, read_id, read_kit
from .errors import Refused
from .reading import read_archive


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m reader", description="Opens and verifies a Lockstep archive.")
    parser.add_argument("archive", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    secrets = parser.add_mutually_exclusive_group(required=True)
    secrets.add_argument("--passphrase-file", type=Path)
    secrets.add_argument("--recovery-key-file", type=Path, help="a recovery key, or a kit")
    parser.add_argument("--ignore-device", action="append", default=[], metavar="ID", help="a device whose head pins do not count")
    options = parser.parse_args()
    staging = options.out.with_name(options.out.name + ".partial")
    if os.path.lexists(options.out) or os.path.lexists(staging):
        print(f"{options.out} or {staging} exists already", file=sys.stderr)
        return 2
    staging.mkdir(parents=True, mode=0o700)
    try:
        secret: str | Kit
        if options.passphrase_file:
            secret = options.passphrase_file.read_text(encoding="utf-8").rstrip("\r\n")
        else:
            secret = read_kit(options.recovery_key_file.read_text(encoding="utf-8"))
        ignored = {read_id(device) for device in options.ignore_device}
        report = read_archive(options.archive, secret, staging, ignored)
        staging.rename(options.out)
    except (Refused, OSError, ValueError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    finally:
        if os.path.lexists(staging):
            shutil.rmtree(staging, ignore_errors=True)
    for line in report.lines:
        print(line)
    for line in report.named:
        print(f"named: {line}")
    return 3 if report.named else 0


if __name__ == "__main__":
    sys.exit(main())

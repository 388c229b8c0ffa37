"""What an archive holds, as a value and not as files: the operation `archive` of the vectors."""

import tempfile
from pathlib import Path
from typing import Any

from blake3 import blake3

from .account import KeyHeader
from .archive import ArchiveFile
from .bech32m import Kit
from .blob import read_object
from .envelope import BlobRef, Content
from .errors import BadArchive, CannotOpen, Refused
from .keyring import KnownVault
from .reading import Reader
from .vault import Vault


class WrongKey(Exception):
    """The recovery key is not that of the archive."""


class Lister(Reader):
    """Reads an archive as it is always read, and writes nothing."""

    def __init__(self, archive: ArchiveFile, secret: Kit) -> None:
        super().__init__(archive, secret, Path(), set())
        self.vaults: list[dict[str, Any]] = []

    def _root(self, keys: KeyHeader) -> bytes:
        try:
            return super()._root(keys)
        except CannotOpen as error:
            raise WrongKey from error

    def _contents(self, vault: Vault, known: KnownVault) -> tuple[int, int]:
        contents = {(version.seq, record): content for record, version, content in vault.read_versions()}
        vault.check_complete()
        head = len(vault.chain.marks) - 1
        records: list[Any] = []
        for record, version in sorted(vault.chain.in_force(head), key=lambda pair: pair[0]):
            if not version.tombstone:
                place = [record.hex(), version.revision, version.seq]
                content = contents.get((version.seq, record))
                records.append([place, None if content is None else self._record(vault, content)])
        mark = vault.chain.marks[head]
        self.vaults.append({"vault": known.id.hex(), "name": known.name, "seq": head, "hash": mark.hash.hex(), "records": records})
        return len(records), 0

    def _record(self, vault: Vault, content: Content) -> list[Any]:
        objects = [[ref.blob.hex(), self._object(vault, ref)] for ref in content.blobs]
        return [content.type, content.name.hex(), content.document.hex(), objects]

    def _object(self, vault: Vault, ref: BlobRef) -> str | None:
        item = vault.objects().get(ref.blob)
        if item is None:
            return None
        assert vault.secrets is not None
        stream, hasher = self.archive.stream(item), blake3()
        stream.read(16)
        try:
            for piece in read_object(stream, item.length - 16, ref, vault.secrets):
                hasher.update(piece)
        except CannotOpen as error:
            vault.missing.append(f"object {ref.blob.hex()}: {error}")
            return None
        return hasher.hexdigest()


def list_archive(data: bytes, recovery: bytes) -> dict[str, Any]:
    """Everything that an archive says, or one refusal of all of it."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        try:
            reader = Lister(ArchiveFile(file), Kit(recovery, None, None))
            report = reader.read()
        except WrongKey as error:
            raise CannotOpen("archive: another recovery key") from error
        except Refused as refused:
            raise BadArchive(str(refused)) from refused
    return {
        "account": reader.account.hex(), "device": reader.device.hex(), "utc": reader.utc, "log-index": len(reader.log.hashes) - 1,
        "fingerprint": reader.fingerprint, "whole": not report.named, "vaults": reader.vaults,
    }

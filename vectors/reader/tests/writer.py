"""A tiny writer: an account with two devices, of which one is revoked, and an archive of it. Nothing of it is random."""

from collections.abc import Callable

from blake3 import blake3
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from .. import account, bech32m, chain, ed25519
from ..cbor import SUITE, VERSION, Value, encode
from ..envelope import TOMBSTONE, BlobRef, VaultSecrets, blob_list_digest, envelope_digest, record_id, vault_secrets
from ..functions import KDF, H, Pad, Seal, Sign, passphrase_kek, recovery_kek

ZERO = bytes(32)
HEAD: list[Value] = [VERSION, SUITE]
PASSPHRASE = "correct horse ﬁ"


def fixed(text: str, size: int = 32) -> bytes:
    """Bytes that follow from a text."""
    return blake3(text.encode()).digest(length=size)


def signed(seed: bytes, name: str, data: bytes) -> bytes:
    """`signed`."""
    return encode([data, Sign(seed, name, data)])


def value(encoding: bytes) -> list[Value]:
    """A `signed` as a value, to be put into another structure."""
    from ..cbor import decode
    made = decode(encoding, 2**23, "test")
    assert isinstance(made, list)
    return made


class Device:
    """A device's keys."""

    def __init__(self, name: str) -> None:
        self.id, self.seed, self.name = fixed("device " + name, 16), fixed("seed " + name), name


class Account:
    """Keys, device log and key header."""

    def __init__(self) -> None:
        self.root, self.recovery = fixed("root"), fixed("recovery")
        self.seed = KDF(self.root, "identity-key", [], 32)
        self.identity = ed25519.public_key(self.seed)
        self.id = account.account_id(self.identity)
        self.ring = [fixed("keyring 1"), fixed("keyring 2")]
        self.a, self.b = Device("a"), Device("b")
        self.log: list[bytes] = []
        self.hashes: list[bytes] = []
        self.header = b""

    def key_header(self, epoch: int, devices: list[Device]) -> bytes:
        """The key header that comes with the next entry."""
        wraps: list[Value] = []
        for role, profile in ((1, 1), (2, 0)):
            salt, nonce = fixed(f"salt {role}", 16), fixed(f"nonce {role}", 24)
            kek = passphrase_kek(PASSPHRASE, self.id, salt, 1) if role == 1 else recovery_kek(self.recovery, self.id, salt)
            wrap_header = encode([*HEAD, self.id, role, profile, salt, nonce])
            wraps.append([role, profile, salt, nonce, *Seal(kek, "root-wrap", wrap_header, nonce, self.root)])
        self.wrap, self.keyring = wraps[1], self._keyring(epoch)
        seals: list[Value] = [[d.id, bytes(1120), bytes(48)] for d in sorted(devices, key=lambda d: d.id)]
        login = account.recovery_login_key(self.recovery)
        self.counter = len(self.log) + 1
        data = encode([*HEAD, self.id, self.counter, self.identity, login, wraps, [*self.keyring, seals]])
        self.header = signed(self.seed, "key-header", data)
        return H("key-header", data)

    def _keyring(self, epoch: int) -> list[Value]:
        def seal(key: bytes, name: str, number: int) -> list[Value]:
            nonce = fixed(f"{name} {number}", 24)
            return [number, nonce, *Seal(key, name, encode([*HEAD, self.id, number, nonce]), nonce, self.ring[number - 1])]

        links: list[Value] = [list(seal(self.ring[number], "keyring-link", number)) for number in range(1, epoch)]
        return [*seal(KDF(self.root, "keyring-wrap-key", [], 32), "keyring-wrap", epoch), links]

    def bare_keys(self) -> bytes:
        """`bare-keys`."""
        login = account.recovery_login_key(self.recovery)
        return encode([*HEAD, self.id, self.counter, self.identity, login, self.wrap, [*self.keyring, []]])

    def entry(self, kind: int, body: list[Value], header_hash: bytes) -> None:
        """The next entry of the device log."""
        index, previous = len(self.log), self.hashes[-1] if self.hashes else ZERO
        data = encode([*HEAD, self.id, index, previous, kind, index + 1, header_hash, encode(body)])
        self.log.append(signed(self.seed, "device-log-entry", data))
        self.hashes.append(H("device-log-entry", data))

    def enrol(self, device: Device, devices: list[Device], pins: list[Value]) -> None:
        """Kind 1."""
        nonce = fixed("name " + device.name, 24)
        key = KDF(self.ring[0], "device-name", [], 32)
        header = encode([*HEAD, self.id, device.id, 1, nonce])
        name: list[Value] = [1, nonce, *Seal(key, "device-name", header, nonce, device.name.encode().ljust(64, b"\0"))]
        place: list[Value] = [device.id, ed25519.public_key(device.seed), fixed("seal " + device.name, 1216), 1, [], name, pins]
        proven = encode([self.id, len(self.log), self.hashes[-1] if self.hashes else ZERO, place])
        self.entry(1, [*place, Sign(device.seed, "device-proof", proven)], self.key_header(1, devices))


class VaultWriter:
    """A chain that is written commit by commit, with its envelopes and objects."""

    def __init__(self, owner: Account, vault: bytes, secret: bytes, keys: dict[int, bytes]) -> None:
        self.owner, self.vault, self.keys, self.epoch = owner, vault, keys, 1
        self.secrets: VaultSecrets = vault_secrets(secret, vault)
        self.commits: list[list[Value]] = []
        self.hashes: list[bytes] = []
        self.state = [0] * chain.LANES
        self.records: dict[bytes, tuple[int, bytes, int]] = {}
        self.versions: list[list[Value]] = []
        self.objects: dict[bytes, bytes] = {}
        self.vault_log: list[bytes] = []
        self.log_head = self._log_entry(1, owner.a, ZERO)
        self.commit(owner.a, 1, [])
        self.genesis = encode(self.commits[0][0])

    def _log_entry(self, kind: int, device: Device, previous: bytes) -> bytes:
        owner, index = self.owner, len(self.owner.hashes) - 1
        data = encode([*HEAD, self.vault, len(self.vault_log), previous, kind, owner.id, owner.identity, self.epoch, device.id, index,
                       owner.hashes[index]])
        self.vault_log.append(signed(device.seed, "vault-log-entry", data))
        return H("vault-log-entry", data)

    def commit(self, device: Device, kind: int, changes: list[Value], state: bytes | None = None) -> None:
        """The next commit."""
        seq, index = len(self.commits), len(self.owner.hashes) - 1
        previous = self.hashes[-1] if self.hashes else ZERO
        skip = self.hashes[chain.skip_target(seq)] if seq else ZERO
        listed = encode(changes)
        data = encode([*HEAD, self.vault, seq, previous, skip, kind, self.epoch, device.id, index, self.owner.hashes[index],
                       len(self.vault_log) - 1, self.log_head, 1000 + seq, H("changes", listed), state or chain.checksum(self.state)])
        self.commits.append([value(signed(device.seed, "commit", data)), listed])
        self.hashes.append(H("commit", data))

    def rotate(self, device: Device, epoch: int) -> None:
        """Kind 3."""
        self.epoch = epoch
        self.log_head = self._log_entry(2, device, self.log_head)
        self.commit(device, 3, [[7, value(self.vault_log[-1])]])

    def put(self, device: Device, kind: str, name: bytes, document: Value, refs: list[BlobRef] = [], pins: list[int] = [],
            dead: bool = False) -> None:
        """A commit with one version of a record, and pins."""
        record, seq = record_id(self.secrets, kind, name), len(self.commits)
        old = self.records.get(record)
        revision = old[0] + 1 if old else 1
        blobs = sorted({ref.blob for ref in refs})
        envelope = self._envelope(device, kind, name, document, refs, record, revision, dead)
        digest = envelope_digest(envelope)
        if old:
            self.state = chain.add(self.state, chain.element(record, *old), -1)
        self.state = chain.add(self.state, chain.element(record, revision, digest, seq), 1)
        self.records[record] = (revision, digest, seq)
        put: list[Value] = [2, record, revision, digest] if dead else [1, record, revision, digest, list[Value](blobs)]
        self.commit(device, 2, [put, *(list[Value]([4, pin]) for pin in pins)])
        self.versions.append([seq, record, revision, 2 if dead else 1, envelope])

    def _envelope(self, device: Device, kind: str, name: bytes, document: Value, refs: list[BlobRef], record: bytes, revision: int,
                  dead: bool) -> bytes:
        nonce = fixed(f"{self.vault.hex()} {len(self.commits)}", 24)
        blobs: list[Value] = [[r.blob, r.size, r.content_hash, r.seed, r.chunk_log2] for r in refs]
        content = encode([kind, name, 1, 0, [5, 0], fixed("operation", 16), revision - 1, b"", b"" if dead else encode(document), blobs, None])
        plain = len(content).to_bytes(4, "big") + content
        header = encode([*HEAD, TOMBSTONE if dead else 1, self.vault, record, revision, self.epoch, device.id,
                         blob_list_digest(sorted({r.blob for r in refs})), nonce])
        plain = plain.ljust(Pad(len(plain)), b"\0")
        return encode([header, *Seal(self.keys[self.epoch], "envelope-header", header, nonce, plain)])

    def object(self, content: bytes, chunk_log2: int = 16) -> BlobRef:
        """Seals an object."""
        content_hash = blake3(content, key=self.secrets.content_hash_key).digest()
        blob, seed = fixed("blob" + content_hash.hex(), 16), fixed("blob seed" + content_hash.hex())
        numbers = [VERSION, SUITE, chunk_log2]
        okm = KDF(seed, "blob-key", [*numbers, self.secrets.blob_secret, blob, content_hash], 83)
        made = header = b"LSO1" + bytes([*numbers, 0]) + okm[64:] + okm[32:64]
        plain, size = content.ljust(Pad(len(content)), b"\0"), 1 << chunk_log2
        count = -(-len(plain) // size)
        for i in range(count):
            nonce = okm[64:] + i.to_bytes(4, "big") + bytes([i == count - 1])
            made += crypto_aead_xchacha20poly1305_ietf_encrypt(plain[i * size:(i + 1) * size], header + blob, nonce, okm[:32])
        self.objects[blob] = made
        return BlobRef(blob, len(content), content_hash, seed, chunk_log2)

    def repair(self, device: Device, back: int, state: bytes) -> None:
        """A repair that goes back."""
        seq, before = len(self.commits), list[Value]([[8, back]])
        said = encode([self.owner.id, self.vault, seq, self.hashes[-1], device.id, before])
        self.commit(device, 5, [*before, [10, Sign(self.owner.seed, "repair", said)]], state)

    def pin(self) -> list[Value]:
        """A pin of the head."""
        return [self.vault, len(self.commits) - 1, self.hashes[-1]]


def file_document(source: bytes, path: bytes, kind: int, size: int, inline: bytes = b"", target: bytes = b"") -> list[Value]:
    """`file` (7)."""
    return [source, path, kind, size, [1700000000, 5], 0o640 if kind == 1 else 0o750, target, inline, *[None] * 7]


Item = tuple[int, bytes]


def item(item_type: int, body: bytes) -> Item:
    """An item."""
    return item_type, body


def vault_items(vault: VaultWriter) -> list[Item]:
    """Items 5 to 9 of a vault."""
    log: list[Value] = [value(entry) for entry in vault.vault_log]
    items = [item(5, encode([vault.vault, log]))]
    items += [item(6, encode(list(commit))) for commit in vault.commits]
    items += [item(7, encode(list(version))) for version in sorted(vault.versions, key=lambda v: (v[0], v[1]))]
    items += [item(9, blob + data) for blob, data in sorted(vault.objects.items())]
    return items


class World:
    """The account, and an archive of it made by device a."""

    LARGE = fixed("large", 200_000)

    def __init__(self, before_end: Callable[[VaultWriter], None] | None = None) -> None:
        owner = self.owner = Account()
        owner.enrol(owner.a, [owner.a], [])
        ring_vault = account.derived_vault(owner.identity, "keyring")
        ring = self.ring = VaultWriter(owner, ring_vault, account.keyring_secret(owner.ring[0], owner.id), {1: owner.ring[0], 2: owner.ring[1]})
        vault = fixed("a vault", 16)
        self.secret = fixed("vault secret")
        keys = {1: fixed("vault key 1"), 7: fixed("vault key 7")}
        files = self.files = VaultWriter(owner, vault, self.secret, keys)
        self._key(owner.a, 1, 1)
        ring.put(owner.a, "lockstep/vault", vault, [vault, "my/vault", 0, None])
        owner.enrol(owner.b, [owner.a, owner.b], self._pins())
        self.source = fixed("source", 16)
        self._backup()
        header_hash = owner.key_header(2, [owner.a])
        owner.entry(2, [owner.b.id, self._pins()], header_hash)
        ring.rotate(owner.a, 2)
        self._key(owner.a, 7, 2)
        files.rotate(owner.a, 7)
        files.put(owner.a, "app/note", b"after", "under a new key")
        if before_end:
            before_end(files)
        pins: list[Value] = [[vault, len(files.hashes) - 1, files.hashes[-1]]]
        ring.put(owner.a, "lockstep/head-pin", owner.a.id, [owner.a.id, 9, len(owner.log) - 1, owner.hashes[-1], pins])

    def _pins(self) -> list[Value]:
        pins = {vault.vault: vault.pin() for vault in (self.ring, self.files)}
        return [pins[vault] for vault in sorted(pins)]

    def _key(self, device: Device, epoch: int, made_in: int) -> None:
        files = self.files
        name = files.vault + epoch.to_bytes(8, "big")
        document: list[Value] = [files.vault, epoch, files.keys[epoch], self.secret, value(files.vault_log[0]), value(files.genesis), made_in]
        self.ring.put(device, "lockstep/vault-key", name, document)

    def _backup(self) -> None:
        files, source, b = self.files, self.source, self.owner.b
        files.put(b, "lockstep/source", source, [b.id, b"/home/x", b"x", 3])
        ref = files.object(self.LARGE)

        def put(path: bytes, *rest: object, refs: list[BlobRef] = [], dead: bool = False) -> None:
            files.put(b, "lockstep/file", source + path, file_document(source, path, *rest), refs, dead=dead)  # type: ignore[arg-type]

        put(b"", 2, 0)
        put(b"folder", 2, 0)
        put(b"folder/large", 1, len(self.LARGE), refs=[ref])
        put(b"again", 1, len(self.LARGE), refs=[ref])
        put(b"small", 1, 5, b"hello")
        put(b"gone", 1, 4, b"gone")
        put(b"gone", 1, 0, dead=True)
        put(b"link", 3, 0, b"", b"folder/large")
        put(b"through", 3, 0, b"", b"/tmp")
        put(b"through/evil", 1, 4, b"evil")
        snapshot: list[Value] = [source, 1, 2, [b"/home/x"], [], [4, 2, 1, 9, 0], []]
        files.put(b, "lockstep/snapshot", fixed("snapshot", 16), snapshot, pins=[len(files.commits)])
        put(b"small", 1, 7, b"changed")

    def items(self, bare: bool = False) -> list[Item]:
        """All items but the end."""
        owner = self.owner
        header = encode([*HEAD, owner.id, owner.identity, owner.a.id, 1_700_000_000])
        items = [item(1, header), item(3, owner.bare_keys()) if bare else item(2, owner.header)]
        items += [item(4, entry) for entry in owner.log]
        return items + vault_items(self.ring) + vault_items(self.files)

    def archive(self, items: list[Item], end: Callable[[list[Value]], list[Value]] = lambda fields: fields) -> bytes:
        """The bytes of an archive of these items, with a good end."""
        data = b"LSAR" + bytes([VERSION, SUITE]) + b"".join(frame(*i) for i in items)
        fields: list[Value] = [*HEAD, self.owner.id, self.owner.a.id, len(items), H("archive-bytes", data)]
        return data + frame(11, signed(self.owner.a.seed, "archive", encode(end(fields))))

    def recovery_text(self) -> str:
        """The recovery key."""
        return bech32m.encode("lsrk", self.owner.recovery)


def frame(item_type: int, body: bytes) -> bytes:
    """An item's bytes."""
    return bytes([item_type]) + len(body).to_bytes(8, "big") + body

"""What the records of the keyring vault say (4.2)."""

from dataclasses import dataclass, field

from .account import derived_vault, id_text
from .cbor import Fields, decode, encode
from .chain import Chain, Version
from .devices import DeviceLog, Pin, read_pin
from .envelope import ENVELOPE_LIMIT, Content
from .errors import BadSignature, Malformed, Refused
from .functions import verify

VAULTS = 1024


@dataclass(frozen=True)
class VaultKey:
    """`lockstep/vault-key` of one epoch; `create` and `genesis` are encodings of `signed`."""

    seq: int
    epoch: int
    key: bytes
    secret: bytes
    create: bytes
    genesis: bytes


@dataclass
class KnownVault:
    """A vault of which the keyring holds a birth that verifies."""

    id: bytes
    secret: bytes
    create: bytes
    genesis: bytes
    keys: dict[int, bytes]
    name: str


@dataclass(frozen=True)
class HeadPin:
    """`lockstep/head-pin`: one device's word."""

    device: bytes
    log_index: int
    log_head: bytes
    pins: tuple[Pin, ...]


@dataclass
class Keyring:
    """Gathers the keyring's records, one version after the other; `finish` draws the conclusions."""

    log: DeviceLog
    chain: Chain
    keys: dict[bytes, dict[int, VaultKey]] = field(default_factory=dict)
    names: dict[bytes, tuple[int, str]] = field(default_factory=dict)
    deleted: set[bytes] = field(default_factory=set)
    device_names: dict[bytes, str] = field(default_factory=dict)
    head_pins: list[HeadPin] = field(default_factory=list)
    vaults: dict[bytes, KnownVault] = field(default_factory=dict)

    def take(self, record: bytes, version: Version, content: Content) -> None:
        """Takes one opened version over. A record that does not hold what its name says is left out."""
        newest = self.chain.versions[record][-1] == version
        try:
            if version.tombstone:
                return
            if content.type == "lockstep/vault-key" and version.revision == 1:
                self._vault_key(version, content)
            elif content.type == "lockstep/vault":
                self._vault(version, content)
            elif content.type == "lockstep/device-name" and newest:
                fields = Fields(decode(content.document, ENVELOPE_LIMIT, "device name"), 2, "device name")
                device, name = fields.id(), fields.text()
                if device == content.name:
                    self.device_names[device] = name
            elif content.type == "lockstep/head-pin" and newest:
                self._head_pin(version, content)
        except Malformed:
            return

    def _vault_key(self, version: Version, content: Content) -> None:
        fields = Fields(decode(content.document, ENVELOPE_LIMIT, "vault key"), 7, "vault key")
        vault, epoch, key, secret = fields.id(), fields.uint(), fields.digest(), fields.digest()
        create, genesis = encode(list(fields.signed())), encode(list(fields.signed()))
        made_in = fields.uint()
        if content.name == vault + epoch.to_bytes(8, "big") and epoch >= 1 and made_in >= 1:
            self.keys.setdefault(vault, {})[epoch] = VaultKey(version.seq, epoch, key, secret, create, genesis)

    def _vault(self, version: Version, content: Content) -> None:
        fields = Fields(decode(content.document, ENVELOPE_LIMIT, "vault record"), 4, "vault record")
        vault, name, _, deletion = fields.id(), fields.text(), fields.uint(), fields.any()
        if content.name != vault:
            return
        if version.revision == 1:
            self.names[vault] = (version.seq, name)
        if isinstance(deletion, bytes) and vault != self.log.keyring:
            try:
                verify(self.log.identity, "vault-deletion", encode([self.log.account, vault]), deletion, "deletion")
                self.deleted.add(vault)
            except BadSignature:
                return

    def _head_pin(self, version: Version, content: Content) -> None:
        fields = Fields(decode(content.document, ENVELOPE_LIMIT, "head pin"), 5, "head pin")
        device, _, index, head = fields.id(), fields.uint(), fields.uint(), fields.digest()
        by = f"the head pin of device {id_text(device)}"
        pins = tuple(read_pin(item, by) for item in fields.array())
        known = self.log.devices.get(device)
        if content.name == device == self.chain.marks[version.seq].device and known and known.revoked is None:
            self.head_pins.append(HeadPin(device, index, head, pins))

    def finish(self) -> None:
        """Which vaults there are, their keys and names (4.2)."""
        first = {vault: keys[1] for vault, keys in self.keys.items() if 1 in keys and vault != self.log.keyring and vault not in self.deleted}
        born = [vault for vault in sorted(first, key=lambda vault: first[vault].seq) if self._born(vault, first[vault])]
        for vault in born[:VAULTS]:
            birth = first[vault]
            same = {e: k.key for e, k in self.keys[vault].items()
                    if (k.secret, k.create, k.genesis) == (birth.secret, birth.create, birth.genesis)}
            self.vaults[vault] = KnownVault(vault, birth.secret, birth.create, birth.genesis, same, id_text(vault))
        taken = {"files"} | {id_text(vault) for vault in self.vaults}
        for vault, (_, name) in sorted(self.names.items(), key=lambda item: item[1][0]):
            if vault in self.vaults and name not in taken:
                self.vaults[vault].name = name
                taken.add(name)
        files = derived_vault(self.log.identity, "files")
        if files in self.vaults:
            self.vaults[files].name = "files"

    def _born(self, vault: bytes, birth: VaultKey) -> bool:
        """Whether the birth verifies against the device log (6.3)."""
        try:
            Chain(self.log, vault, birth.create).step(birth.genesis, encode([]))
        except Refused:
            return False
        return True

"""Every operation of the vectors (vectors/README.md), by the functions that open archives."""

from collections.abc import Callable
from typing import Any

from blake3 import blake3

from . import account, bech32m, blob, chain, commits, devices, ed25519, envelope, functions, listing, structures
from .cbor import Fields, Value, decode, encode
from .errors import BadText, CannotOpen, Malformed, Refused, WrongIdentity, WrongVersion

In = dict[str, Any]
Out = dict[str, Any]


def from_json(value: Any) -> Value:
    """A value in JSON."""
    if isinstance(value, dict):
        return bytes.fromhex(value["bytes"])
    return [from_json(item) for item in value] if isinstance(value, list) else value


def to_json(value: Value) -> Any:
    """The JSON of a value."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    return [to_json(item) for item in value] if isinstance(value, list) else value


def raw(i: In, *names: str) -> list[bytes]:
    """Byte strings of an input."""
    return [bytes.fromhex(i[name]) for name in names]


def bare(label: str) -> str:
    """A label without its beginning: the functions put it before."""
    return label.removeprefix("lockstep/v1/")


def inside(signed_bytes: bytes) -> bytes:
    """What a `signed` holds."""
    return Fields(decode(signed_bytes, 2**23, "signed"), 2, "signed").octets()


def do_hash(i: In) -> Out:
    (x,) = raw(i, "x")
    return {"h": functions.H(bare(i["label"]), x).hex(), "h16": functions.H16(bare(i["label"]), x).hex()}


def do_kdf(i: In) -> Out:
    (key,) = raw(i, "key")
    args = [from_json(arg) for arg in i["args"]]
    okm = functions.KDF(key, bare(i["label"]), args, i["length"])
    return {"info": encode([i["label"], *args]).hex(), "okm": okm.hex()}


def do_sign(i: In) -> Out:
    seed, x = raw(i, "seed", "x")
    signature = functions.Sign(seed, bare(i["label"]), x)
    return {"public": ed25519.public_key(seed).hex(), "input": functions.sign_bytes(bare(i["label"]), x).hex(), "signature": signature.hex()}


def do_verify(i: In) -> Out:
    public, x, signature = raw(i, "public", "x", "signature")
    functions.verify(public, bare(i["label"]), x, signature, "vector")
    return {}


def do_seal(i: In) -> Out:
    key, header, nonce, plaintext = raw(i, "key", "header", "nonce", "plaintext")
    commitment, ciphertext = functions.Seal(key, bare(i["label"]), header, nonce, plaintext)
    return {"commitment": commitment.hex(), "ciphertext": ciphertext.hex()}


def do_open(i: In) -> Out:
    key, header, nonce, commitment, ciphertext = raw(i, "key", "header", "nonce", "commitment", "ciphertext")
    return {"plaintext": functions.Open(key, bare(i["label"]), header, nonce, commitment, ciphertext, "vector").hex()}


def do_pad(i: In) -> Out:
    return {"padded": functions.Pad(i["n"])}


def do_skip(i: In) -> Out:
    return {"target": chain.skip_target(i["seq"])}


def do_ids(i: In) -> Out:
    (identity,) = raw(i, "identity")
    return {
        "account": account.account_id(identity).hex(),
        "keyring": account.derived_vault(identity, "keyring").hex(),
        "files": account.derived_vault(identity, "files").hex(),
        "fingerprint": account.fingerprint("identity-fingerprint", identity),
    }


def do_fingerprint(i: In) -> Out:
    owner, head = raw(i, "account", "device-log-head")
    heads = [[bytes.fromhex(v), seq, bytes.fromhex(h)] for v, seq, h in i["heads"]]
    return {"text": account.account_fingerprint(owner, i["device-log-index"], head, heads)}


def do_passphrase_kek(i: In) -> Out:
    owner, salt = raw(i, "account", "salt")
    kek = functions.passphrase_kek(i["passphrase"], owner, salt, i["profile"])
    return {
        "normalised": functions.normalised(i["passphrase"]).hex(),
        "argon-salt": functions.H16("kek-salt", encode([owner, salt])).hex(),
        "kek": kek.hex(),
    }


def do_recovery_kek(i: In) -> Out:
    recovery, owner, salt = raw(i, "recovery", "account", "salt")
    return {"kek": functions.recovery_kek(recovery, owner, salt).hex(), "login-public": account.recovery_login_key(recovery).hex()}


def do_recovery_text(i: In) -> Out:
    return {"key": bech32m.decode("lsrk", i["text"], 32).hex()}


def do_checkpoint(i: In) -> Out:
    data = bech32m.decode("lscp", i["text"])
    try:
        account.checkpoint(data)
    except (Malformed, WrongVersion) as error:
        raise BadText(str(error)) from error
    return {"bytes": data.hex(), "value": to_json(decode(data, 1024, "checkpoint"))}


def do_wrap(i: In) -> Out:
    kek, owner, salt, nonce, commitment, ciphertext = raw(i, "kek", "account", "salt", "nonce", "commitment", "ciphertext")
    wrap = account.Wrap(i["role"], i["profile"], salt, nonce, commitment, ciphertext)
    root = account.open_wrap(kek, owner, wrap)
    return {"header": account.wrap_header(owner, wrap).hex(), "root": root.hex(), "identity": account.identity_of_root(root).hex()}


def do_key_header(i: In) -> Out:
    owner, data = raw(i, "account", "signed")
    keys = account.key_header(data, owner)
    assert keys.hash is not None
    value = decode(inside(data), 2**20, "key header")
    return {"identity": keys.identity.hex(), "counter": keys.counter, "hash": keys.hash.hex(), "value": to_json(value)}


def do_unlock(i: In) -> Out:
    owner, data, recovery = raw(i, "account", "signed", "recovery")
    keys = account.key_header(data, owner)
    root = account.root_by_recovery_key(keys, recovery)
    found = account.keyring_keys(root, keys)
    return {"keys": [found[epoch].hex() for epoch in sorted(found)], "vault-secret": account.keyring_secret(found[1], owner).hex()}


def _device_log(i: In, owner: bytes) -> devices.DeviceLog:
    (identity,) = raw(i, "identity")
    log = devices.DeviceLog(owner, identity)
    for entry in i["log"]:
        log.append(bytes.fromhex(entry))
    return log


def do_device_log(i: In) -> Out:
    owner, header = raw(i, "account", "key-header")
    keys = account.key_header(header, owner)
    if keys.identity.hex() != i["identity"]:
        raise WrongIdentity("the key header is of another identity")
    log = _device_log(i, owner)
    log.end(keys)
    return {
        "head": log.hashes[-1].hex(),
        "entries": len(log.hashes),
        "key-header-counter": keys.counter,
        "keyring-epoch": keys.current.number,
        "live": [device.hex() for device in log.live_devices()],
        "revoked": sorted(d.id.hex() for d in log.devices.values() if d.revoked is not None),
    }


def do_device_log_entry(i: In) -> Out:
    identity, data = raw(i, "identity", "signed")
    entry = devices.device_log_entry(data, identity)
    devices.entry_body(entry)
    value, body = decode(inside(data), 2**20, "entry"), decode(entry.body, 2**20, "body")
    return {"hash": entry.hash.hex(), "value": to_json(value), "body": to_json(body)}


def do_device_name(i: In) -> Out:
    key, owner, device, nonce, commitment, ciphertext = raw(i, "key", "account", "device", "nonce", "commitment", "ciphertext")
    return {"name": devices.open_device_name(key, owner, device, account.Sealed(i["epoch"], nonce, commitment, ciphertext))}


def do_vault_secrets(i: In) -> Out:
    s = envelope.vault_secrets(*raw(i, "secret", "vault"))
    return {
        "record-id-key": s.record_id_key.hex(),
        "content-hash-key": s.content_hash_key.hex(),
        "chunker-key": s.chunker_key.hex(),
        "blob-secret": s.blob_secret.hex(),
    }


def do_record_id(i: In) -> Out:
    secret, vault, name = raw(i, "secret", "vault", "name")
    return {"id": envelope.record_id(envelope.vault_secrets(secret, vault), i["type"], name).hex()}


def do_envelope(i: In) -> Out:
    secret, vault, key, data = raw(i, "secret", "vault", "key", "envelope")
    header, content = envelope.open_envelope(data, key, envelope.vault_secrets(secret, vault))
    if header.vault != vault or header.epoch != i["epoch"]:
        raise CannotOpen("envelope: of another vault or epoch")
    value = decode(header.encoding, 2**20, "header")
    return {"digest": envelope.envelope_digest(data).hex(), "header": to_json(value), "content": to_json(content.value)}


def do_vault_log_entry(i: In) -> Out:
    public, signed_bytes = raw(i, "public", "signed")
    entry, data, signature = commits.vault_log_entry(signed_bytes)
    functions.verify(public, "vault-log-entry", data, signature, "vault-log entry")
    return {"hash": entry.hash.hex(), "value": to_json(decode(data, 2**20, "entry"))}


def do_commit(i: In) -> Out:
    public, signed_bytes = raw(i, "public", "signed")
    made, data, signature = commits.commit(signed_bytes)
    functions.verify(public, "commit", data, signature, "commit")
    return {"hash": made.hash.hex(), "value": to_json(decode(data, 2**20, "commit"))}


def do_changes(i: In) -> Out:
    (data,) = raw(i, "bytes")
    listed = commits.changes(data)
    return {"digest": listed.digest.hex(), "value": to_json(decode(data, 2**23, "changes"))}


def do_state(i: In) -> Out:
    state = [0] * chain.LANES
    for record, revision, digest, seq in i["elements"]:
        state = chain.add(state, chain.element(bytes.fromhex(record), revision, bytes.fromhex(digest), seq), 1)
    return {"sum": chain.state_bytes(state).hex(), "checksum": chain.checksum(state).hex()}


def _chain(i: In, commits: list[Any]) -> chain.Chain:
    identity, vault, create = raw(i, "identity", "vault", "create")
    made = chain.Chain(_device_log(i, account.account_id(identity)), vault, create)
    pairs = [(bytes.fromhex(s), bytes.fromhex(c)) for s, c in commits]
    made.read(len(pairs), lambda at: pairs[at])
    if made.fault:
        raise made.fault
    return made


def _chain_out(made: chain.Chain) -> Out:
    seq = len(made.marks) - 1
    records = [[r.hex(), v.revision, v.digest.hex(), v.seq] for r, v in sorted(made.in_force(seq))]
    head = made.marks[-1]
    return {"seq": seq, "hash": head.hash.hex(), "epoch": head.epoch, "state": head.state.hex(), "records": records,
            "abandoned": [head.hex() for head in made.abandoned]}


def do_chain(i: In) -> Out:
    made = _chain(i, i["commits"])
    for seq, head in i.get("pins", []):
        made.check_pin(devices.Pin(made.vault, seq, bytes.fromhex(head), "the vector"))
    return _chain_out(made)


def do_parted(i: In) -> Out:
    """A reader that holds another chain takes this one only if a repair in it names its head (6.7)."""
    held, made = _chain(i, i["held"]), _chain(i, i["commits"])
    for seq, head in i.get("pins", []):
        made.check_pin(devices.Pin(made.vault, seq, bytes.fromhex(head), "the vector"))
    made.check_pin(devices.Pin(made.vault, len(held.marks) - 1, held.marks[-1].hash, "the reader"))
    return _chain_out(made)


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def read(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count:self.at]


class Released(Exception):
    """An object that failed after it gave out some content."""

    def __init__(self, refused: Refused, digest: str) -> None:
        super().__init__(str(refused))
        self.refused, self.digest = refused, digest


def do_object(i: In) -> Out:
    secret, vault, blob_id, content_hash, seed, data = raw(i, "secret", "vault", "blob", "content-hash", "seed", "object")
    ref = envelope.BlobRef(blob_id, i["size"], content_hash, seed, i["chunk-log2"])
    released = blake3()
    try:
        for piece in blob.read_object(_Bytes(data), None, ref, envelope.vault_secrets(secret, vault)):
            released.update(piece)
    except Refused as refused:
        raise Released(refused, released.hexdigest()) from refused
    parts = [functions.H("object-part", data[at:at + blob.PART]) for at in range(0, len(data), blob.PART)]
    return {"content": released.hexdigest(), "digest": blob.object_digest(len(data), parts).hex()}


def do_object_digest(i: In) -> Out:
    return {"digest": blob.object_digest(i["size"], [bytes.fromhex(part) for part in i["parts"]]).hex()}


def do_statement(i: In) -> Out:
    public, data = raw(i, "public", "statement")
    said = structures.statement_input(i["origin"], data, public)
    return {"input": said.hex(), "value": to_json(decode(data, 1024, "statement"))}


def do_action(i: In) -> Out:
    identity, owner, body, log_head, signature = raw(i, "identity", "account", "body", "log-head", "signature")
    said = structures.action_input(owner, i["action"], body, i["log-index"], log_head)
    functions.verify(identity, "action", said, signature, "action")
    return {"input": said.hex()}


def do_repair(i: In) -> Out:
    identity, owner, vault, previous, device, listed = raw(i, "identity", "account", "vault", "previous", "device", "changes")
    decoded = commits.changes(listed)
    said = commits.repair_input(owner, vault, i["seq"], previous, device, decoded)
    if decoded.authority is None:
        raise Malformed("changes: no repair")
    functions.verify(identity, "repair", said, decoded.authority, "repair")
    return {"input": said.hex()}


def do_vault_deletion(i: In) -> Out:
    identity, owner, vault, signature = raw(i, "identity", "account", "vault", "signature")
    said = encode([owner, vault])
    functions.verify(identity, "vault-deletion", said, signature, "vault deletion")
    return {"input": said.hex()}


def do_archive(i: In) -> Out:
    data, recovery = raw(i, "archive", "recovery")
    return listing.list_archive(data, recovery)


def do_decode(i: In) -> Out:
    (data,) = raw(i, "bytes")
    return {"value": to_json(structures.decode_body(i["type"], data))}


def operations() -> dict[str, Callable[[In], Out]]:
    """Every `op`: the functions above that begin with `do_`."""
    return {name[3:].replace("_", "-"): f for name, f in globals().items() if name.startswith("do_")}

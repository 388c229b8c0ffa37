//! Vaults: secrets, record ids, envelopes, commits, change lists, state.

use super::account::account;
use crate::vectors::json::{self, Fault, In, hex, item_array};
use lockstep_client_crypto::kdf;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::{Changes, Commit, RepairPlace, repair_input};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{DeviceId, Epoch, RecordId, Revision, Seq, VaultId};
use lockstep_proto::label::{self, Label};
use lockstep_proto::state::StateDigest;
use lockstep_proto::vault_log::{VaultLogEntry, deletion_input};
use serde_json::{Value, json};

type Out = Result<Value, Fault>;

pub(super) fn vault(input: In<'_>) -> Result<VaultId, Fault> {
    input.array("vault").map(VaultId::from_bytes)
}

pub(super) fn keys(input: In<'_>) -> Result<VaultKeys, Fault> {
    Ok(VaultKeys::new(vault(input)?, &SecretKey::from_bytes(&input.array("secret")?)))
}

pub(super) fn vault_secrets(input: In<'_>) -> Out {
    let (vault, secret) = (vault(input)?, SecretKey::from_bytes(&input.array("secret")?));
    let derived = |label: Label| hex(kdf::derive_key(&secret, label, &[vault]).expose());
    Ok(json!({
        "record-id-key": derived(label::RECORD_ID_KEY),
        "content-hash-key": derived(label::CONTENT_HASH_KEY),
        "chunker-key": derived(label::CHUNKER_KEY),
        "blob-secret": derived(label::BLOB_SECRET),
    }))
}

pub(super) fn record_id(input: In<'_>) -> Out {
    let id = keys(input)?.record_id(input.text("type"), &input.bytes("name"));
    Ok(json!({ "id": hex(id.as_bytes()) }))
}

pub(super) fn envelope(input: In<'_>) -> Out {
    let epoch = Epoch::new(input.number("epoch"));
    let keys = keys(input)?.with_epoch(epoch, SecretKey::from_bytes(&input.array("key")?));
    let bytes = input.bytes("envelope");
    let opened = keys.open(&bytes)?;
    Ok(json!({
        "digest": hex(lockstep_proto::envelope::digest(&bytes).as_bytes()),
        "header": json::value(&opened.header.encode()),
        "content": json::value(&opened.content.encode()),
    }))
}

pub(super) fn vault_log_entry(input: In<'_>) -> Out {
    let signed = input.signed("signed")?;
    VaultLogEntry::decode(&signed.bytes.0)?;
    signed.verify("vault-log entry", label::VAULT_LOG_ENTRY, &input.public("public")?)?;
    let hash = VaultLogEntry::hash_of(&signed.bytes.0);
    Ok(json!({ "hash": hex(hash.as_bytes()), "value": json::value(&signed.bytes.0) }))
}

pub(super) fn commit(input: In<'_>) -> Out {
    let signed = input.signed("signed")?;
    Commit::decode(&signed.bytes.0)?;
    signed.verify("commit", label::COMMIT, &input.public("public")?)?;
    let hash = Commit::hash_of(&signed.bytes.0);
    Ok(json!({ "hash": hex(hash.as_bytes()), "value": json::value(&signed.bytes.0) }))
}

pub(super) fn changes(input: In<'_>) -> Out {
    let bytes = input.bytes("bytes");
    Changes::decode(&bytes)?;
    Ok(json!({ "digest": hex(Changes::digest_of(&bytes).as_bytes()), "value": json::value(&bytes) }))
}

pub(super) fn state(input: In<'_>) -> Out {
    let mut state = StateDigest::default();
    for element in input.list("elements") {
        state.add(
            RecordId::from_bytes(item_array(&element[0])?),
            Revision::new(element[1].as_u64().unwrap()),
            Digest::from_bytes(item_array(&element[2])?),
            Seq::new(element[3].as_u64().unwrap()),
        );
    }
    Ok(json!({ "sum": hex(state.to_bytes()), "checksum": hex(state.checksum().as_bytes()) }))
}

pub(super) fn repair(input: In<'_>) -> Out {
    let changes = Changes::decode(&input.bytes("changes"))?;
    let (says, signature) = changes.repair().ok_or(Fault::new("malformed"))?;
    let place = RepairPlace {
        vault: vault(input)?,
        seq: Seq::new(input.number("seq")),
        previous: input.digest("previous")?,
        device: DeviceId::from_bytes(input.array("device")?),
    };
    let signed = repair_input(account(input)?, &place, says);
    input.public("identity")?.verify("repair", label::REPAIR, &signed, signature)?;
    Ok(json!({ "input": hex(signed) }))
}

pub(super) fn vault_deletion(input: In<'_>) -> Out {
    let signed = deletion_input(account(input)?, vault(input)?);
    input.public("identity")?.verify(
        "deletion",
        label::VAULT_DELETION,
        &signed,
        &input.fixed("signature")?,
    )?;
    Ok(json!({ "input": hex(signed) }))
}

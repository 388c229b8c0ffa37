//! Functions of section 1, ids, and texts.

use super::label_of;
use crate::vectors::json::{self, Fault, In, hex, item_array};
use ed25519_dalek::{Signer as _, SigningKey};
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::{kdf as derive, seal as sealing};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{AccountId, Seq, VaultId};
use lockstep_proto::recovery::{self, Checkpoint};
use lockstep_proto::sign::signing_input;
use lockstep_proto::{cbor, envelope, key_header, vault_log};
use serde_json::{Value, json};

type Out = Result<Value, Fault>;

pub(super) fn hash(input: In<'_>) -> Out {
    let digest = Digest::of(label_of(input.text("label")), &input.bytes("x"));
    Ok(json!({ "h": hex(digest.as_bytes()), "h16": hex(digest.truncate16()) }))
}

pub(super) fn kdf(input: In<'_>) -> Out {
    let key = SecretKey::from_bytes(&input.array("key")?);
    let label = label_of(input.text("label"));
    let mut items = vec![serde_cbor::Value::Text(label.as_str().into())];
    items.extend(input.list("args").iter().map(json::to_cbor));
    let info = cbor::encode(&items);
    let args = items.split_off(1);
    let okm = match input.number("length") {
        32 => {
            let okm = derive::derive::<32, _>(&key, label, &args).to_vec();
            assert_eq!(okm, derive::expand::<32>(&key, &info).to_vec(), "one info either way");
            okm
        }
        64 => derive::expand::<64>(&key, &info).to_vec(),
        83 => derive::expand::<83>(&key, &info).to_vec(),
        other => panic!("no key of {other} bytes is derived"),
    };
    Ok(json!({ "info": hex(info), "okm": hex(okm) }))
}

pub(super) fn sign(input: In<'_>) -> Out {
    let key = SigningKey::from_bytes(&input.array("seed")?);
    let signed = signing_input(label_of(input.text("label")), &input.bytes("x"));
    Ok(json!({
        "public": hex(key.verifying_key().to_bytes()),
        "signature": hex(key.sign(&signed).to_bytes()),
        "input": hex(signed),
    }))
}

pub(super) fn verify(input: In<'_>) -> Out {
    let public = input.public("public")?;
    public.verify("vector", label_of(input.text("label")), &input.bytes("x"), &input.fixed("signature")?)?;
    Ok(json!({}))
}

pub(super) fn seal(input: In<'_>) -> Out {
    let key = SecretKey::from_bytes(&input.array("key")?);
    let label = label_of(input.text("label"));
    let (commitment, ciphertext) =
        sealing::seal(&key, label, &input.bytes("header"), &input.array("nonce")?, &input.bytes("plaintext"));
    Ok(json!({ "commitment": hex(commitment.as_bytes()), "ciphertext": hex(ciphertext) }))
}

pub(super) fn open(input: In<'_>) -> Out {
    let key = SecretKey::from_bytes(&input.array("key")?);
    let plaintext = sealing::open(
        &key,
        label_of(input.text("label")),
        &input.bytes("header"),
        &input.array("nonce")?,
        &input.digest("commitment")?,
        &input.bytes("ciphertext"),
    )?;
    Ok(json!({ "plaintext": hex(&*plaintext) }))
}

pub(super) fn pad(input: In<'_>) -> Out {
    Ok(json!({ "padded": envelope::padded_size(input.number("n")) }))
}

pub(super) fn skip(input: In<'_>) -> Out {
    Ok(json!({ "target": Seq::new(input.number("seq")).skip_target().value() }))
}

pub(super) fn ids(input: In<'_>) -> Out {
    let identity = input.array("identity")?;
    Ok(json!({
        "account": hex(key_header::account_id(&identity).as_bytes()),
        "keyring": hex(vault_log::keyring_vault_id(&identity).as_bytes()),
        "files": hex(vault_log::files_vault_id(&identity).as_bytes()),
        "fingerprint": recovery::identity_fingerprint(&identity),
    }))
}

pub(super) fn fingerprint(input: In<'_>) -> Out {
    let mut heads = Vec::new();
    for head in input.list("heads") {
        heads.push((
            VaultId::from_bytes(item_array(&head[0])?),
            Seq::new(head[1].as_u64().unwrap()),
            Digest::from_bytes(item_array(&head[2])?),
        ));
    }
    let text = recovery::account_fingerprint(
        AccountId::from_bytes(input.array("account")?),
        input.number("device-log-index"),
        input.digest("device-log-head")?,
        &heads,
    );
    Ok(json!({ "text": text }))
}

pub(super) fn recovery_text(input: In<'_>) -> Out {
    Ok(json!({ "key": hex(recovery::parse_recovery_key(input.text("text"))?) }))
}

pub(super) fn checkpoint(input: In<'_>) -> Out {
    let checkpoint = Checkpoint::parse(input.text("text"))?;
    let bytes = checkpoint.encode();
    Ok(json!({ "value": json::value(&bytes), "bytes": hex(bytes) }))
}

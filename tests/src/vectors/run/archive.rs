//! Archives, by the reader of the client: what is in one is read from a file, as everybody does.

use super::account::recovery_key;
use crate::vectors::json::{Fault, In, hex, piece};
use lockstep_client::archive::{Key, Opened, OpenedVault, open};
use lockstep_client::blob::download;
use lockstep_client::error::ClientError;
use lockstep_client::kit::Kit;
use lockstep_client_crypto::content::{BlobRef, Content};
use lockstep_engine::read;
use lockstep_engine::replica::{RecordRow, Replica as _};
use lockstep_proto::envelope::KIND_DOCUMENT;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::Builder;

/// More records than a vector has.
const RECORDS_MAX: usize = 1000;

/// A folder that goes away again.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lockstep-vectors-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The archive of an input: whole, or pieces of a golden one with others between them.
fn bytes(input: In<'_>) -> Vec<u8> {
    let value = &input.0["archive"];
    let Some(pieces) = value.get("pieces") else { return input.bytes("archive") };
    let whole = crate::vectors::make::golden_archive();
    let place = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let pieces = pieces.as_array().unwrap().iter().flat_map(|one| match one.as_array() {
        Some(range) => whole[place(&range[0])..place(&range[1])].to_vec(),
        None => piece(one),
    });
    pieces.collect()
}

/// An archive is refused as a whole; only another key is told apart.
fn class(error: ClientError) -> Fault {
    match error {
        ClientError::WrongRecoveryKey => Fault::new("open"),
        ClientError::Io { .. } | ClientError::Database(_) | ClientError::DiskFull(_) => panic!("{error}"),
        _ => Fault::new("archive"),
    }
}

pub(super) fn archive(input: In<'_>) -> Result<Value, Fault> {
    let kit = Kit { recovery: recovery_key(input)?, account: None, checkpoint: None };
    let folder = Folder::new();
    let path = folder.0.join("archive");
    std::fs::write(&path, bytes(input)).unwrap();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(read(&path, &folder.0, &kit)).map_err(class)
}

async fn read(path: &Path, folder: &Path, kit: &Kit) -> Result<Value, ClientError> {
    let mut opened = open(path, folder, Key::Recovery(kit), &[], &mut |_| {}).await?;
    opened.look_at_all(&mut |_| {})?;
    let mut vaults = Vec::new();
    for opened in &opened.vaults {
        vaults.push(vault(opened).await?);
    }
    Ok(said(&opened, vaults))
}

fn said(opened: &Opened, vaults: Vec<Value>) -> Value {
    json!({
        "account": hex(opened.header.account.as_bytes()),
        "device": hex(opened.header.device.as_bytes()),
        "utc": opened.header.utc,
        "log-index": opened.log_index,
        "fingerprint": opened.fingerprint,
        "whole": opened.problems.is_empty(),
        "vaults": vaults,
    })
}

async fn vault(opened: &OpenedVault) -> Result<Value, ClientError> {
    let OpenedVault { name, vault } = opened;
    let replica = vault.replica();
    let head = replica.head()?.unwrap().tip;
    let mut records = Vec::new();
    for row in replica.records_after(None, RECORDS_MAX)?.iter().filter(|row| row.kind == KIND_DOCUMENT) {
        let content = if row.present { read::open(replica, &vault.setup().keys, row)? } else { None };
        records.push(record(opened, row, content).await);
    }
    let (id, hash) = (hex(vault.setup().vault().as_bytes()), hex(head.hash.as_bytes()));
    Ok(json!({ "vault": id, "name": name, "seq": head.seq.value(), "hash": hash, "records": records }))
}

async fn record(opened: &OpenedVault, row: &RecordRow, content: Option<Content>) -> Value {
    let place = json!([hex(row.record.as_bytes()), row.revision.value(), row.seq.value()]);
    let Some(content) = content else { return json!([place, null]) };
    let mut objects = Vec::new();
    for reference in &content.blobs {
        objects.push(json!([hex(reference.blob.as_bytes()), object(opened, reference).await]));
    }
    json!([place, [content.record_type, hex(&content.name.0), hex(&content.document.0), objects]])
}

/// Digest of an object's contents; none if it is not whole.
async fn object(opened: &OpenedVault, reference: &BlobRef) -> Option<String> {
    let (vault, mut hasher) = (&opened.vault, blake3::Hasher::new());
    let mut sink = |piece: &[u8]| {
        hasher.update(piece);
        Ok(())
    };
    let whole = download(vault.api(), &vault.setup().keys, reference, &mut sink).await;
    whole.is_ok().then(|| hasher.finalize().to_hex().to_string())
}

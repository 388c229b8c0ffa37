//! Sources: a root on a device, under one name.

use super::input::PREFIX;
use crate::account::Account;
use crate::error::Result;
use crate::rng;
use crate::snapshot::Source;
use crate::vault::Vault;
use lockstep_engine::NewRecord;
use lockstep_engine::files::{SOURCE_TYPE, SourceDoc};
use lockstep_engine::replica::{Pinning, Policy};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::SourceId;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// One path for one root, however it was written: `docs/`, `./docs/.` and `x/../docs` are one source. A root that is
/// a symbolic link itself stays one.
pub(super) fn root_of(path: &Path) -> std::io::Result<PathBuf> {
    let plain: PathBuf = std::path::absolute(path)?.components().collect();
    match (plain.parent(), plain.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => plain.canonicalize(),
    }
}

/// What a root restores under, if nothing else does: its last component, or the name of what was a stream.
fn base_name(root: &Path) -> Vec<u8> {
    if let Some(name) = root.as_os_str().as_bytes().strip_prefix(PREFIX.as_bytes()) {
        return name.to_vec();
    }
    root.file_name().map_or_else(|| b"root".to_vec(), |name| name.as_bytes().to_vec())
}

/// The source of a root on this device; a new one comes with its record.
pub(super) fn source_of(
    account: &Account,
    vault: &Vault,
    root: &Path,
) -> Result<(Source, Option<NewRecord>)> {
    let device = account.device.id();
    let sources = vault.sources()?;
    let bytes = root.as_os_str().as_bytes();
    if let Some(known) =
        sources.iter().find(|source| source.doc.device == device && source.doc.root.0 == bytes)
    {
        return Ok((known.clone(), None));
    }
    let base = base_name(root);
    let mut name = base.clone();
    let mut number = 2_u32;
    while sources.iter().any(|source| source.doc.name.0 == name) {
        name.clone_from(&base);
        name.extend_from_slice(format!("-{number}").as_bytes());
        number = number.saturating_add(1);
    }
    let id = SourceId::from_bytes(rng::bytes());
    let doc = SourceDoc { device, root: bytes.into(), name: name.into(), utc: rng::now_utc() };
    let record = NewRecord {
        record_type: SOURCE_TYPE.into(),
        name: id.as_bytes().to_vec(),
        schema: 1,
        document: Some(doc.encode()),
        blobs: Vec::new(),
        policy: Policy::Overwrite,
        pin: Pinning::None,
        expected: None,
    };
    Ok((Source { id, doc }, Some(record)))
}

//! Every structure of the protocol, of both sides of HTTP and of the vaults: what decodes is encoded to the same bytes.

use lockstep_client_crypto::content::Content;
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_engine::files::{FileDoc, SnapshotDoc, SourceDoc};
use lockstep_engine::keyring::{DeviceNameDoc, HeadPinDoc, VaultDoc, VaultKeyDoc};
use lockstep_proto::api::account::{
    ChangeCredentials, DeleteAccount, DeleteVault, Devices, EnrolDevice, HealDevices, NewRecord, OpaqueStart,
    Recover,
};
use lockstep_proto::api::auth::{
    Authorised, DeviceLoginStart, DeviceLoginStarted, LoginFinish, LoginStart, LoginStarted, OpaqueStarted,
    RecoveryStart, RecoveryStarted, RegisterFinish, RegisterStart, Session, SessionInfo, Statement,
};
use lockstep_proto::api::notice::{Heads, Listen, WaitForHeads};
use lockstep_proto::api::object::{BeginUpload, ObjectList, Stored, UploadState};
use lockstep_proto::api::server::ServerInfo;
use lockstep_proto::api::session::Sessions;
use lockstep_proto::api::usage::Usage;
use lockstep_proto::api::vault::{
    CreateVault, Entries, GetEnvelopes, History, Page, PushCommit, Pushed, StageEnvelopes, StagedEnvelopes,
    VaultLog, Vaults,
};
use lockstep_proto::archive::{
    ArchiveCommit, ArchiveEnd, ArchiveHeader, ArchiveVault, BareKeys, MissingVersion,
};
use lockstep_proto::blob::{HEADER_BYTES, ObjectHeader};
use lockstep_proto::cbor::{CodecError, Wire};
use lockstep_proto::commit::{Changes, Commit};
use lockstep_proto::device_log::{DeviceLogEntry, Enrol, KeysChanged, Revoke};
use lockstep_proto::envelope::{Envelope, EnvelopeHeader};
use lockstep_proto::key_header::KeyHeader;
use lockstep_proto::recovery::Checkpoint;
use lockstep_proto::sign::Signed;
use lockstep_proto::state::StateDigest;
use lockstep_proto::vault_log::VaultLogEntry;
use std::error::Error as _;

/// Encodes again what decodes; none if it does not.
type Again = fn(&[u8]) -> Option<Vec<u8>>;

fn again<T: Wire>(bytes: &[u8]) -> Option<Vec<u8>> {
    match T::decode(bytes) {
        Ok(value) => {
            assert!(bytes.len() <= T::BYTES_MAX, "{} has a limit", T::NAME);
            Some(value.encode())
        }
        Err(error) => {
            say::<T>(&error);
            None
        }
    }
}

/// A message is a line of a bounded length, whatever came.
fn say<T: Wire>(error: &CodecError) {
    let mut text = error.to_string();
    if let Some(cause) = error.source() {
        text.push_str(&cause.to_string());
    }
    assert!(text.len() < 200, "{}: {text}", T::NAME);
}

macro_rules! decoders {
    ($($name:ident),+ $(,)?) => { &[$((stringify!($name), again::<$name>)),+] };
}

/// All decoders by name. New ones go to the end: a file of the corpus names its decoder by its place.
pub(super) const DECODERS: &[(&str, Again)] = decoders![
    KeyHeader,
    DeviceLogEntry,
    Enrol,
    Revoke,
    KeysChanged,
    Signed,
    VaultLogEntry,
    Commit,
    Changes,
    Envelope,
    EnvelopeHeader,
    Checkpoint,
    Content,
    VaultKeyDoc,
    VaultDoc,
    HeadPinDoc,
    DeviceNameDoc,
    SourceDoc,
    FileDoc,
    SnapshotDoc,
    RegisterStart,
    OpaqueStarted,
    Authorised,
    RegisterFinish,
    LoginStart,
    LoginStarted,
    LoginFinish,
    RecoveryStart,
    RecoveryStarted,
    DeviceLoginStart,
    DeviceLoginStarted,
    Statement,
    Session,
    SessionInfo,
    OpaqueStart,
    Devices,
    EnrolDevice,
    Recover,
    NewRecord,
    ChangeCredentials,
    DeleteAccount,
    DeleteVault,
    HealDevices,
    BeginUpload,
    UploadState,
    Stored,
    ObjectList,
    ServerInfo,
    Sessions,
    Usage,
    Vaults,
    CreateVault,
    VaultLog,
    StageEnvelopes,
    StagedEnvelopes,
    PushCommit,
    Pushed,
    Page,
    GetEnvelopes,
    Entries,
    History,
    Heads,
    Listen,
    WaitForHeads,
    ArchiveHeader,
    BareKeys,
    ArchiveVault,
    ArchiveCommit,
    MissingVersion,
    ArchiveEnd,
];

/// The first byte names the decoder, the rest is what it gets.
pub(super) fn target(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    let which = usize::from(*which);
    if let Some((name, decode)) = DECODERS.get(which) {
        let encoded = decode(bytes);
        assert!(encoded.is_none_or(|encoded| encoded == bytes), "{name} has two encodings");
    }
    match which.checked_sub(DECODERS.len()) {
        Some(0) => {
            if let Ok(keys) = DeviceKeys::from_bytes(bytes) {
                assert_eq!(*keys.to_bytes(), bytes, "the device file has two encodings");
            }
        }
        Some(1) => {
            let header: Option<[u8; HEADER_BYTES]> = bytes.try_into().ok();
            if let Some(Ok(parsed)) = header.as_ref().map(ObjectHeader::parse) {
                assert_eq!(parsed.to_bytes(), bytes, "the object header has two encodings");
            }
        }
        Some(2) => {
            if let Some(state) = StateDigest::from_bytes(bytes) {
                assert_eq!(state.to_bytes(), bytes, "the state digest has two encodings");
            }
        }
        _ => {}
    }
}

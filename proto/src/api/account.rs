//! Key header, device log, enrolment and recovery.

use super::body;
use crate::cbor::Bytes;
use crate::hash::Digest;
use crate::id::{AccountId, VaultId};
use crate::limits::{DEVICE_LOG_ENTRY_BYTES_MAX, KEY_HEADER_BYTES_MAX};
use crate::limits::{DEVICE_LOG_PAGE_MAX, SMALL_BODY_BYTES_MAX, TINY_BODY_BYTES_MAX};
use crate::sign::Signed;

body! {
    /// `POST /v1/account/opaque`.
    OpaqueStart("OPAQUE request", TINY_BODY_BYTES_MAX) {
        /// OPAQUE registration request.
        request: Bytes,
    }
}

body! {
    /// `GET /v1/account/devices`: log and key header of one moment.
    Devices("device log", DEVICE_LOG_PAGE_MAX * DEVICE_LOG_ENTRY_BYTES_MAX + KEY_HEADER_BYTES_MAX + 4096) {
        /// Entries of the whole log.
        total: u64,
        /// Entries from the index asked for.
        entries: Vec<Signed>,
        /// Current key header.
        key_header: Signed,
    }
}

body! {
    /// Body of `POST /v1/account/devices` and `POST /v1/account/devices/revoke`, inside an identity-signed request.
    EnrolDevice("enrolment", SMALL_BODY_BYTES_MAX) {
        /// New key header.
        key_header: Signed,
        /// New device-log entry.
        entry: Signed,
    }
}

body! {
    /// Body of `POST /v1/account/recover`, inside an identity-signed request.
    Recover("recovery", SMALL_BODY_BYTES_MAX) {
        /// From `POST /v1/account/opaque`.
        ticket: Digest,
        /// OPAQUE registration upload for the new passphrase.
        opaque_record: Bytes,
        /// New key header.
        key_header: Signed,
        /// New device-log entry.
        entry: Signed,
    }
}

body! {
    /// A new OPAQUE record.
    NewRecord("OPAQUE record", TINY_BODY_BYTES_MAX) {
        /// From `POST /v1/account/opaque`.
        ticket: Digest,
        /// OPAQUE registration upload for the new passphrase.
        opaque_record: Bytes,
    }
}

body! {
    /// Body of `POST /v1/account/credentials`, inside an identity-signed request.
    ChangeCredentials("change of credentials", SMALL_BODY_BYTES_MAX) {
        /// With a new passphrase, its record.
        record: Option<NewRecord>,
        /// New key header: a new passphrase wrap exactly if there is a record, or a new recovery wrap, or both.
        key_header: Signed,
        /// New device-log entry, of kind 3.
        entry: Signed,
    }
}

body! {
    /// Body of `POST /v1/account/delete`, inside an identity-signed request.
    DeleteAccount("deletion of an account", TINY_BODY_BYTES_MAX) {
        /// The account.
        account: AccountId,
    }
}

body! {
    /// Body of `POST /v1/vaults/{v}/delete`, inside an identity-signed request.
    DeleteVault("deletion of a vault", TINY_BODY_BYTES_MAX) {
        /// The vault.
        vault: VaultId,
    }
}

body! {
    /// `POST /v1/heal/devices`: entries that a server which was restored from an older copy lacks. They carry the
    /// identity's signatures, and no session is needed.
    HealDevices("missing device-log entries", SMALL_BODY_BYTES_MAX) {
        /// The account.
        account: AccountId,
        /// Entries from the server's end on, at most as many as fit.
        entries: Vec<Signed>,
        /// The key header that the last of them names.
        key_header: Signed,
    }
}

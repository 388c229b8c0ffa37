//! Key header, device log, enrolment and recovery.

use super::body;
use crate::cbor::Bytes;
use crate::hash::Digest;
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
    /// Body of `POST /v1/account/devices`, inside an identity-signed request.
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

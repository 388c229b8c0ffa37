//! Every maximum of the protocol, with its unit. The server publishes them at `/v1/server`.

/// One KiB in bytes.
pub const KIB: usize = 1024;
/// One MiB in bytes.
pub const MIB: usize = 1024 * KIB;

/// One envelope.
pub const ENVELOPE_BYTES_MAX: usize = MIB;
/// Header inside an envelope.
pub const ENVELOPE_HEADER_BYTES_MAX: usize = 512;
/// Body of a commit request.
pub const COMMIT_BODY_BYTES_MAX: usize = 8 * MIB;
/// Commit header.
pub const COMMIT_BYTES_MAX: usize = 1024;
/// Changes in one commit.
pub const CHANGES_MAX: usize = 4096;
/// Encoding of one commit's change list.
pub const CHANGES_BYTES_MAX: usize = 2 * MIB;
/// Blobs named by one change.
pub const BLOBS_PER_CHANGE_MAX: usize = 1024;
/// Entries in one page of a pull.
pub const PAGE_ENTRIES_MAX: usize = 4096;
/// Envelope bytes in one page of a pull (one envelope always fits).
pub const PAGE_BYTES_MAX: usize = 4 * MIB;
/// Commits in one page.
pub const PAGE_COMMITS_MAX: usize = 1024;
/// Change-list bytes in one page of commits (one list always fits).
pub const PAGE_CHANGES_BYTES_MAX: usize = 4 * MIB;
/// Whole encoded page, as a client accepts it.
pub const PAGE_BODY_BYTES_MAX: usize = 16 * MIB;
/// Bytes of a record's name, conflict suffix included.
pub const RECORD_NAME_BYTES_MAX: usize = 8192;
/// Bytes of a name that an app gives: a source id and a path.
pub const APP_NAME_BYTES_MAX: usize = 4096 + 16;
/// Bytes of a record's type.
pub const RECORD_TYPE_BYTES_MAX: usize = 128;
/// Records in one vault, tombstones included.
pub const RECORDS_MAX: u64 = 1 << 24;
/// Size of an object's part; only the last may be shorter.
pub const PART_BYTES: usize = 8 * MIB;
/// Parts of one object.
pub const PARTS_MAX: u64 = 131_072;
/// Body of a framed upload.
pub const FRAMES_BODY_BYTES_MAX: usize = 16 * MIB;
/// Objects in a framed upload.
pub const FRAMES_MAX: usize = 4096;
/// Key header.
pub const KEY_HEADER_BYTES_MAX: usize = 256 * KIB;
/// One device-log entry.
pub const DEVICE_LOG_ENTRY_BYTES_MAX: usize = 80 * KIB;
/// Entries of a device log.
pub const DEVICE_LOG_ENTRIES_MAX: u64 = 4096;
/// Entries of a device log together, encodings and signatures; a revocation may go beyond it, to
/// [`DEVICE_LOG_WITH_REVOCATIONS_BYTES_MAX`].
pub const DEVICE_LOG_BYTES_MAX: usize = 4 * MIB;
/// The same with the revocations.
pub const DEVICE_LOG_WITH_REVOCATIONS_BYTES_MAX: usize = 6 * MIB;
/// Entries in one page of a device log.
pub const DEVICE_LOG_PAGE_MAX: usize = 256;
/// Live devices of an account.
pub const DEVICES_MAX: usize = 64;
/// Links to older keyring keys.
pub const KEYRING_LINKS_MAX: usize = 1024;
/// Vaults of an account.
pub const VAULTS_MAX: usize = 1024;
/// One vault-log entry.
pub const VAULT_LOG_ENTRY_BYTES_MAX: usize = 4 * KIB;
/// Entries of a vault log.
pub const VAULT_LOG_ENTRIES_MAX: u64 = 4096;
/// A rotation of a vault goes on to an epoch at most so much later; more than anybody can fill with keys.
pub const EPOCH_STEP_MAX: u64 = 1 << 32;
/// Account name.
pub const ACCOUNT_NAME_BYTES_MAX: usize = 64;
/// Any small request body: sign-in, registration, enrolment.
pub const SMALL_BODY_BYTES_MAX: usize = 512 * KIB;
/// Small sign-in requests without a key header.
pub const TINY_BODY_BYTES_MAX: usize = 8 * KIB;
/// Versions of one record in a history answer.
pub const HISTORY_ENTRIES_MAX: usize = 256;
/// Contents that ride inside a file record.
pub const INLINE_BYTES_MAX: usize = 16 * KIB;
/// Lifetime of a staged envelope or an unnamed object, in seconds.
pub const STAGED_TTL_SECONDS: u64 = 24 * 3600;
/// Lifetime of a sign-in challenge, in seconds.
pub const CHALLENGE_TTL_SECONDS: u64 = 60;
/// Lifetime of a provisional session, in seconds.
pub const PROVISIONAL_SESSION_TTL_SECONDS: u64 = 600;
/// Lifetime of a device session, in seconds.
pub const DEVICE_SESSION_TTL_SECONDS: u64 = 24 * 3600;

/// One item of an archive, but for an object.
pub const ARCHIVE_ITEM_BYTES_MAX: usize = 8 * MIB;
/// An item of an archive that holds an object: 1 TiB and 1 GiB.
pub const ARCHIVE_OBJECT_BYTES_MAX: u64 = (1 << 40) + (1 << 30);

/// Sessions of one kind that an account has at once; one more ends the oldest.
pub const SESSIONS_MAX: usize = 256;

/// The limits that `/v1/server` publishes: name and value.
pub const PUBLISHED: &[(&str, usize)] = &[
    ("envelope-bytes", ENVELOPE_BYTES_MAX),
    ("commit-body-bytes", COMMIT_BODY_BYTES_MAX),
    ("changes-a-commit", CHANGES_MAX),
    ("blobs-a-change", BLOBS_PER_CHANGE_MAX),
    ("page-entries", PAGE_ENTRIES_MAX),
    ("page-bytes", PAGE_BYTES_MAX),
    ("part-bytes", PART_BYTES),
    ("frames-body-bytes", FRAMES_BODY_BYTES_MAX),
    ("devices", DEVICES_MAX),
    ("vaults", VAULTS_MAX),
];

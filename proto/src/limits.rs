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
/// Objects in one answer of many.
pub const OBJECTS_GET_MAX: usize = 64;
/// Bytes of these objects together, without the headers of their frames.
pub const OBJECTS_GET_BYTES_MAX: usize = 32 * MIB;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of PROTOCOL.md section 1.5 without the names, and what they say in bytes, seconds or pieces.
    fn rows() -> Vec<(&'static str, Vec<(usize, usize)>)> {
        let small = |value: u64| usize::try_from(value).unwrap();
        vec![
            ("1 MiB; 512 bytes", vec![(ENVELOPE_BYTES_MAX, 1_048_576), (ENVELOPE_HEADER_BYTES_MAX, 512)]),
            ("1,024 bytes; 8 MiB", vec![(COMMIT_BYTES_MAX, 1024), (COMMIT_BODY_BYTES_MAX, 8_388_608)]),
            ("4,096; 2 MiB", vec![(CHANGES_MAX, 4096), (CHANGES_BYTES_MAX, 2_097_152)]),
            ("blob references a change (and a content) | 1,024", vec![(BLOBS_PER_CHANGE_MAX, 1024)]),
            (
                "4,096 entries, 4 MiB of envelopes",
                vec![(PAGE_ENTRIES_MAX, 4096), (PAGE_BYTES_MAX, 4_194_304)],
            ),
            (
                "1,024 commits, 4 MiB of change lists",
                vec![(PAGE_COMMITS_MAX, 1024), (PAGE_CHANGES_BYTES_MAX, 4_194_304)],
            ),
            (
                "a whole encoded page, as a client accepts it | 16 MiB",
                vec![(PAGE_BODY_BYTES_MAX, 16_777_216)],
            ),
            ("versions in an answer of history | 256", vec![(HISTORY_ENTRIES_MAX, 256)]),
            (
                "8,192 bytes; 4,112 (a source id and a path of 4,096)",
                vec![(RECORD_NAME_BYTES_MAX, 8192), (APP_NAME_BYTES_MAX, 4112)],
            ),
            ("1 to 128 bytes", vec![(RECORD_TYPE_BYTES_MAX, 128)]),
            ("contents inside a file record | 16 KiB", vec![(INLINE_BYTES_MAX, 16_384)]),
            ("2^24", vec![(small(RECORDS_MAX), 16_777_216)]),
            ("part of an object | 8 MiB", vec![(PART_BYTES, 8_388_608)]),
            ("131,072 (1 TiB)", vec![(small(PARTS_MAX), 131_072)]),
            ("16 MiB; 4,096", vec![(FRAMES_BODY_BYTES_MAX, 16_777_216), (FRAMES_MAX, 4096)]),
            (
                "objects; their bytes | 64; 32 MiB",
                vec![(OBJECTS_GET_MAX, 64), (OBJECTS_GET_BYTES_MAX, 33_554_432)],
            ),
            ("256 KiB; 1,024", vec![(KEY_HEADER_BYTES_MAX, 262_144), (KEYRING_LINKS_MAX, 1024)]),
            (
                "80 KiB; 4,096; 256",
                vec![
                    (DEVICE_LOG_ENTRY_BYTES_MAX, 81_920),
                    (small(DEVICE_LOG_ENTRIES_MAX), 4096),
                    (DEVICE_LOG_PAGE_MAX, 256),
                ],
            ),
            (
                "4 MiB; where the entry that comes is a revocation, 6 MiB",
                vec![(DEVICE_LOG_BYTES_MAX, 4_194_304), (DEVICE_LOG_WITH_REVOCATIONS_BYTES_MAX, 6_291_456)],
            ),
            ("live devices | 64", vec![(DEVICES_MAX, 64)]),
            ("vaults an account, the keyring included | 1,024", vec![(VAULTS_MAX, 1024)]),
            ("4 KiB; 4,096", vec![(VAULT_LOG_ENTRY_BYTES_MAX, 4096), (small(VAULT_LOG_ENTRIES_MAX), 4096)]),
            ("2^32", vec![(small(EPOCH_STEP_MAX), 4_294_967_296)]),
            ("1 to 64 bytes", vec![(ACCOUNT_NAME_BYTES_MAX, 64)]),
            ("512 KiB", vec![(SMALL_BODY_BYTES_MAX, 524_288)]),
            ("8 KiB", vec![(TINY_BODY_BYTES_MAX, 8192)]),
            ("object that no commit names | 24 h", vec![(small(STAGED_TTL_SECONDS), 86_400)]),
            ("sign-in challenge | 60 s", vec![(small(CHALLENGE_TTL_SECONDS), 60)]),
            ("10 min", vec![(small(PROVISIONAL_SESSION_TTL_SECONDS), 600)]),
            ("device session | 24 h", vec![(small(DEVICE_SESSION_TTL_SECONDS), 86_400)]),
            ("sessions of a kind an account | 256", vec![(SESSIONS_MAX, 256)]),
            (
                "8 MiB; 1 TiB + 1 GiB",
                vec![
                    (ARCHIVE_ITEM_BYTES_MAX, 8_388_608),
                    (small(ARCHIVE_OBJECT_BYTES_MAX), 1_100_585_369_600),
                ],
            ),
        ]
    }

    #[test]
    fn every_limit_has_the_value_of_the_specification() {
        let text = include_str!("../../docs/PROTOCOL.md");
        let (_, section) = text.split_once("### 1.5 Limits").unwrap();
        let (table, _) = section.split_once("\n## ").unwrap();
        for (place, (row, limits)) in rows().into_iter().enumerate() {
            assert!(table.contains(row), "section 1.5 does not say: {row}");
            for (actual, expected) in limits {
                assert_eq!(actual, expected, "row {place}: {row}");
            }
        }
        let constants = include_str!("limits.rs").matches("\npub const ").count();
        let known: usize = rows().iter().map(|(_, limits)| limits.len()).sum();
        assert_eq!(known + 3, constants, "all but KIB, MIB and PUBLISHED are listed here");
    }
}

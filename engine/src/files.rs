//! Documents of backups: sources, files, snapshots (PROTOCOL.md section 7).

use lockstep_proto::cbor::{Bytes, CodecError, Wire};
use lockstep_proto::id::{DeviceId, SourceId};
use lockstep_proto::{limits, wire_array};
use serde::{Deserialize, Serialize};

/// Record type of sources.
pub const SOURCE_TYPE: &str = "lockstep/source";
/// Record type of files.
pub const FILE_TYPE: &str = "lockstep/file";
/// Record type of snapshots.
pub const SNAPSHOT_TYPE: &str = "lockstep/snapshot";

/// Regular file.
pub const KIND_FILE: u8 = 1;
/// Folder.
pub const KIND_FOLDER: u8 = 2;
/// Symbolic link.
pub const KIND_LINK: u8 = 3;

/// Longest path that is kept, in bytes.
pub const PATH_BYTES_MAX: usize = limits::APP_NAME_BYTES_MAX - 16;
/// Most unreadable paths that a snapshot names; the rest is counted.
pub const UNREADABLE_NAMED_MAX: usize = 1000;

wire_array! {
    /// One root folder (or file) on one device.
    #[derive(Clone, PartialEq, Eq)]
    pub struct SourceDoc {
        /// The device.
        pub device: DeviceId,
        /// Absolute path of the root.
        pub root: Bytes,
        /// What it restores under.
        pub name: Bytes,
        /// First backup, seconds since 1970.
        pub utc: u64,
    }
}

impl Wire for SourceDoc {
    const NAME: &'static str = "source record";
    const BYTES_MAX: usize = 16 * 1024;
}

/// Modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileTime(pub i64, pub u32);

wire_array! {
    /// One file, folder or link of a source.
    #[derive(Clone, PartialEq, Eq)]
    pub struct FileDoc {
        /// Source.
        pub source: SourceId,
        /// Path below the root; the root itself is empty.
        pub path: Bytes,
        /// `KIND_FILE`, `KIND_FOLDER` or `KIND_LINK`.
        pub kind: u8,
        /// Size of the contents in bytes.
        pub size: u64,
        /// Modification time: seconds and nanoseconds.
        pub mtime: FileTime,
        /// Low 12 bits of the mode.
        pub mode: u32,
        /// Target of a link.
        pub target: Bytes,
        /// Small contents; larger ones are the record's one blob.
        pub inline: Bytes,
        /// Reserved.
        pub owner: (),
        /// Reserved.
        pub xattrs: (),
        /// Reserved.
        pub acl: (),
        /// Reserved.
        pub hard_link: (),
        /// Reserved.
        pub sparse: (),
        /// Reserved.
        pub codec: (),
        /// Reserved.
        pub chunker: (),
    }
}

impl Wire for FileDoc {
    const NAME: &'static str = "file record";
    const BYTES_MAX: usize = 64 * 1024;

    fn check(&self) -> Result<(), CodecError> {
        let rule = |rule| Err(CodecError::Rule { what: Self::NAME, rule });
        if !matches!(self.kind, KIND_FILE | KIND_FOLDER | KIND_LINK) {
            return rule("the kind is unknown; an update is needed");
        }
        if self.mtime.1 > 999_999_999 || self.mode > 0o7777 {
            return rule("time or mode is outside its range");
        }
        if !is_relative_path(&self.path.0) {
            return rule("the path is not a plain relative path");
        }
        if self.target.0.contains(&0) {
            return rule("the link's target holds a zero byte");
        }
        Ok(())
    }
}

/// Whether a path consists of plain components: none empty, `.` or `..`, no zero byte. The empty path is
/// the root itself.
pub fn is_relative_path(path: &[u8]) -> bool {
    if path.is_empty() {
        return true;
    }
    path.len() <= PATH_BYTES_MAX
        && path.split(|byte| *byte == b'/').all(|component| {
            !component.is_empty() && component != b"." && component != b".." && !component.contains(&0)
        })
}

/// Record name of a file.
pub fn file_name(source: SourceId, path: &[u8]) -> Vec<u8> {
    let mut name = source.as_bytes().to_vec();
    name.extend_from_slice(path);
    name
}

wire_array! {
    /// A finished run.
    #[derive(Clone, PartialEq, Eq)]
    pub struct SnapshotDoc {
        /// Source.
        pub source: SourceId,
        /// Begin, seconds since 1970.
        pub start_utc: u64,
        /// End, seconds since 1970.
        pub end_utc: u64,
        /// Roots as they were named.
        pub roots: Vec<Bytes>,
        /// Tags.
        pub tags: Vec<String>,
        /// Files, folders, links, bytes, unreadable.
        pub counts: (u64, u64, u64, u64, u64),
        /// What could not be read; the first thousand.
        pub unreadable: Vec<Bytes>,
    }
}

impl Wire for SnapshotDoc {
    const NAME: &'static str = "snapshot record";
    const BYTES_MAX: usize = limits::ENVELOPE_BYTES_MAX;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_pass() {
        for good in [&b""[..], b"a", b"a/b", b"..a/b..", b"\xff/x"] {
            assert!(is_relative_path(good), "{good:?}");
        }
        for bad in [&b"/a"[..], b"a/", b"a//b", b".", b"..", b"a/../b", b"a/./b", b"a\0b"] {
            assert!(!is_relative_path(bad), "{bad:?}");
        }
    }
}

//! Making trees of files and comparing them, down to the nanosecond.

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Bytes that do not repeat, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Writes a file and the folders above it.
pub(crate) fn write(path: &Path, contents: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, contents).unwrap();
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Sets the time of a file, folder or link, itself.
pub(crate) fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// What stands at a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: &'static str,
    /// Contents of a file, target of a link.
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) mtime: (i64, i64),
}

pub(crate) type Tree = BTreeMap<Vec<u8>, Node>;

/// Everything at and below a path.
pub(crate) fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(path) = waiting.pop() {
        let stat = path.symlink_metadata().unwrap();
        let (kind, bytes, mode) = if stat.is_symlink() {
            ("link", std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(), 0)
        } else if stat.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            ("folder", Vec::new(), stat.mode() & 0o7777)
        } else {
            ("file", std::fs::read(&path).unwrap(), stat.mode() & 0o7777)
        };
        let below = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let mtime = (stat.mtime(), stat.mtime_nsec());
        found.insert(below, Node { kind, bytes, mode, mtime });
    }
    found
}

/// The trees at two paths are equal: names, kinds, contents, modes, times.
#[track_caller]
pub(crate) fn assert_same(left: &Path, right: &Path) {
    assert_trees(&tree(left), &tree(right));
}

#[track_caller]
pub(crate) fn assert_trees(left: &Tree, right: &Tree) {
    let names = |tree: &Tree| -> Vec<String> {
        tree.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    };
    assert_eq!(names(left), names(right));
    for (name, node) in left {
        let other = &right[name];
        let text = String::from_utf8_lossy(name);
        assert!(node.bytes == other.bytes, "the contents of {text} differ");
        assert_eq!((node.kind, node.mode, node.mtime), (other.kind, other.mode, other.mtime), "{text}");
    }
}

/// Copies a folder of files and folders, times not kept.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Paths of all files below a folder that is there.
pub(crate) fn files(root: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        // A file may go away while it is looked for.
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => waiting.push(entry.path()),
                Ok(_) => found.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    found
}

/// Bytes of all files below a folder.
pub(crate) fn size(root: &Path) -> u64 {
    files(root).iter().filter_map(|path| path.metadata().ok()).map(|stat| stat.len()).sum()
}

/// No file that was not finished is left.
#[track_caller]
pub(crate) fn assert_no_parts(root: &Path) {
    let parts: Vec<_> =
        files(root).into_iter().filter(|path| path.to_string_lossy().ends_with(".part")).collect();
    assert!(parts.is_empty(), "{parts:?}");
}

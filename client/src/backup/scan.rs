//! Walking a folder. Names are bytes; nothing is followed; what can not be read is named.

use globset::GlobSet;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What a file looked like; equal values mean that it was not touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Size in bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: (i64, u32),
    /// Change time.
    pub ctime: (i64, u32),
    /// Inode.
    pub inode: u64,
    /// Mode with the file type.
    pub mode: u32,
}

/// Kind of an entry that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Folder.
    Folder,
    /// Symbolic link and its target.
    Link(Vec<u8>),
}

/// One entry below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the root; empty for the root itself.
    pub path: Vec<u8>,
    /// Kind.
    pub kind: Kind,
    /// What it looked like.
    pub stat: Stat,
}

/// Result of a walk.
#[derive(Debug, Default)]
pub struct Scan {
    /// Entries, folders before what is in them.
    pub entries: Vec<Entry>,
    /// Paths that could not be read, with the reason.
    pub unreadable: Vec<(Vec<u8>, String)>,
    /// FIFOs, sockets and devices: never opened.
    pub special: Vec<Vec<u8>>,
}

/// What a walk leaves out.
pub struct Leave<'a> {
    /// Patterns over the path below the root.
    pub exclude: &'a GlobSet,
    /// Device and inode of the device's own home.
    pub home: Option<(u64, u64)>,
}

/// Device and inode of what a path leads to, for leaving it out.
pub fn identity_of(path: &Path) -> Option<(u64, u64)> {
    let stat = statat(CWD, path, AtFlags::empty()).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// Walks a root. Errors on the root itself are the caller's; everything below is collected.
///
/// # Errors
/// The root can not be read.
pub fn scan(root: &Path, leave: &Leave<'_>) -> Result<Scan, std::io::Error> {
    let mut out = Scan::default();
    let stat = statat(CWD, root, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let folder = openat(CWD, root, folder_flags(), Mode::empty())?;
            out.entries.push(Entry { path: Vec::new(), kind: Kind::Folder, stat: stat_of(&stat) });
            walk(&folder, leave, &mut out);
        }
        FileType::RegularFile => {
            out.entries.push(Entry { path: Vec::new(), kind: Kind::File, stat: stat_of(&stat) });
        }
        FileType::Symlink => {
            let target = readlinkat(CWD, root, Vec::new())?.into_bytes();
            out.entries.push(Entry { path: Vec::new(), kind: Kind::Link(target), stat: stat_of(&stat) });
        }
        _ => {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "neither a file nor a folder"));
        }
    }
    Ok(out)
}

fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

#[expect(clippy::allow_attributes, reason = "the types of stat differ between platforms")]
#[allow(clippy::useless_conversion, reason = "the types of stat differ between platforms")]
fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    let nanos = |value: u64| u32::try_from(value).unwrap_or(0);
    Stat {
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: (stat.st_mtime, nanos(stat.st_mtime_nsec)),
        ctime: (stat.st_ctime, nanos(stat.st_ctime_nsec)),
        inode: stat.st_ino,
        mode: stat.st_mode,
    }
}

/// Folders that wait, as open descriptors' names would be too many: relative paths, walked depth first.
fn walk(root: &OwnedFd, leave: &Leave<'_>, out: &mut Scan) {
    let mut waiting: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let opened = if path.is_empty() {
            root.try_clone().map_err(|_| Errno::MFILE)
        } else {
            open_below(root, &path)
        };
        let names = opened.and_then(|folder| names_of(&folder).map(|names| (folder, names)));
        match names {
            Ok((folder, names)) => {
                let mut folders = Vec::new();
                for name in names {
                    take(&folder, &path, &name, leave, out, &mut folders);
                }
                waiting.extend(folders.into_iter().rev());
            }
            Err(error) => out.unreadable.push((path, reason(error))),
        }
    }
}

fn reason(error: Errno) -> String {
    std::io::Error::from(error).to_string()
}

/// Opens a folder below the root, component by component, following nothing.
fn open_below(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let mut folder = root.try_clone().map_err(|_| Errno::MFILE)?;
    for component in path.split(|byte| *byte == b'/') {
        folder = openat(&folder, std::ffi::OsStr::from_bytes(component), folder_flags(), Mode::empty())?;
    }
    Ok(folder)
}

fn names_of(folder: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn take(
    folder: &impl AsFd,
    above: &[u8],
    name: &CStr,
    leave: &Leave<'_>,
    out: &mut Scan,
    folders: &mut Vec<Vec<u8>>,
) {
    let mut path = above.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.to_bytes());
    let os_path = std::ffi::OsStr::from_bytes(&path);
    if leave.exclude.is_match(os_path) || leave.exclude.is_match(std::ffi::OsStr::from_bytes(name.to_bytes()))
    {
        return;
    }
    if path.len() > lockstep_engine::files::PATH_BYTES_MAX {
        out.unreadable.push((path, "the path is longer than 4,096 bytes".into()));
        return;
    }
    let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        // It went away between listing and looking: it is not there.
        Err(Errno::NOENT) => return,
        Err(error) => {
            out.unreadable.push((path, reason(error)));
            return;
        }
    };
    if leave.home == Some((stat.st_dev, stat.st_ino)) {
        return;
    }
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            folders.push(path.clone());
            Kind::Folder
        }
        FileType::RegularFile => Kind::File,
        FileType::Symlink => match readlinkat(folder, name, Vec::new()) {
            Ok(target) => Kind::Link(target.into_bytes()),
            Err(error) => {
                out.unreadable.push((path, reason(error)));
                return;
            }
        },
        _ => {
            out.special.push(path);
            return;
        }
    };
    out.entries.push(Entry { path, kind, stat: stat_of(&stat) });
}

/// Opens a regular file below a root for reading, following nothing and never blocking on a FIFO.
///
/// # Errors
/// The operating system's.
pub fn open_file(root: &Path, path: &[u8]) -> std::io::Result<(std::fs::File, Stat)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let descriptor = if path.is_empty() {
        openat(CWD, root, flags, Mode::empty())?
    } else {
        let top = openat(CWD, root, folder_flags(), Mode::empty())?;
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => {
                let (above, name) = path.split_at(slash);
                (open_below(&top, above)?, name.get(1..).unwrap_or_default())
            }
            None => (top, path),
        };
        openat(&above, std::ffi::OsStr::from_bytes(name), flags, Mode::empty())?
    };
    let stat = rustix::fs::fstat(&descriptor)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file any more"));
    }
    Ok((std::fs::File::from(descriptor), stat_of(&stat)))
}

/// What an open file looks like now.
///
/// # Errors
/// The operating system's.
pub fn stat_file(file: &std::fs::File) -> std::io::Result<Stat> {
    Ok(stat_of(&rustix::fs::fstat(file)?))
}

//! Walking a folder. Names are bytes; nothing is followed; what can not be read is named.

use super::rules::{IGNORE_FILE, Near, Rules, enter, is_cache, is_cache_mark};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::rc::Rc;

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
    /// Files of rules in the tree that can not be followed, with the reason.
    pub rules_unread: Vec<(Vec<u8>, String)>,
    /// Entries that rules left out; what is below them is not counted.
    pub left_out: u64,
}

/// What a walk leaves out.
pub struct Leave<'a> {
    /// What is left out by rule.
    pub rules: &'a Rules,
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
            Walk { root: &folder, device: device_of(&fstat(&folder)?), leave, out: &mut out }.run();
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

/// A folder that waits, by its path: open descriptors would be too many.
struct Waiting {
    path: Vec<u8>,
    /// Patterns that hold where it stands.
    near: Option<Rc<Near>>,
}

/// A walk of what is below a root, depth first.
struct Walk<'a> {
    root: &'a OwnedFd,
    /// Device of the root.
    device: u64,
    leave: &'a Leave<'a>,
    out: &'a mut Scan,
}

impl Walk<'_> {
    fn run(&mut self) {
        let mut waiting = vec![Waiting { path: Vec::new(), near: None }];
        while let Some(next) = waiting.pop() {
            match self.open(&next.path) {
                Ok(None) => self.out.left_out += 1,
                Ok(Some((folder, names))) => {
                    let folders = self.look(&folder, &next, &names);
                    waiting.extend(folders.into_iter().rev());
                }
                Err(error) => self.out.unreadable.push((next.path, reason(error))),
            }
        }
    }

    /// Opens a folder and lists it; none if it is on another file system and that counts.
    fn open(&self, path: &[u8]) -> Result<Option<(OwnedFd, Vec<CString>)>, Errno> {
        if path.is_empty() {
            let folder = self.root.try_clone().map_err(|_| Errno::MFILE)?;
            let names = names_of(&folder)?;
            return Ok(Some((folder, names)));
        }
        let folder = open_below(self.root, path)?;
        // The open folder is asked: something may have been mounted since it was listed.
        if self.leave.rules.one_file_system && device_of(&fstat(&folder)?) != self.device {
            return Ok(None);
        }
        let names = names_of(&folder)?;
        Ok(Some((folder, names)))
    }

    /// Takes what is in a folder; gives the folders in it.
    fn look(&mut self, folder: &OwnedFd, at: &Waiting, names: &[CString]) -> Vec<Waiting> {
        let mut folders = Vec::new();
        // Who names a folder as a root wants what is in it, whatever it is marked as.
        let only_mark = self.leave.rules.exclude_caches && !at.path.is_empty() && is_cache(folder);
        let (near, faults) = enter(folder, &at.path, at.near.as_ref());
        let file = joined(&at.path, IGNORE_FILE.as_bytes());
        self.out.rules_unread.extend(faults.into_iter().map(|fault| (file.clone(), fault)));
        for name in names {
            if only_mark && !is_cache_mark(name.to_bytes()) {
                self.out.left_out += 1;
                continue;
            }
            let path = joined(&at.path, name.to_bytes());
            if self.take(folder, path.clone(), name, near.as_ref()) {
                folders.push(Waiting { path, near: near.clone() });
            }
        }
        folders
    }

    /// Takes one entry; true if it is a folder to be walked.
    fn take(&mut self, folder: &OwnedFd, path: Vec<u8>, name: &CStr, near: Option<&Rc<Near>>) -> bool {
        let rules = self.leave.rules;
        if rules.matches_glob(&path, name.to_bytes()) {
            self.out.left_out += 1;
            return false;
        }
        if path.len() > lockstep_engine::files::PATH_BYTES_MAX {
            self.out.unreadable.push((path, "the path is longer than 4,096 bytes".into()));
            return false;
        }
        let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It went away between listing and looking: it is not there.
            Err(Errno::NOENT) => return false,
            Err(error) => {
                self.out.unreadable.push((path, reason(error)));
                return false;
            }
        };
        if self.leave.home == Some((stat.st_dev, stat.st_ino)) {
            return false;
        }
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let is_folder = file_type == FileType::Directory;
        let is_elsewhere = rules.one_file_system && device_of(&stat) != self.device;
        // A mounted folder stays as the place where it is mounted.
        if rules.leaves_out(&path, is_folder, near) || (is_elsewhere && !is_folder) {
            self.out.left_out += 1;
            return false;
        }
        let kind = match file_type {
            FileType::Directory => Kind::Folder,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => match readlinkat(folder, name, Vec::new()) {
                Ok(target) => Kind::Link(target.into_bytes()),
                Err(error) => {
                    self.out.unreadable.push((path, reason(error)));
                    return false;
                }
            },
            _ => {
                self.out.special.push(path);
                return false;
            }
        };
        self.out.entries.push(Entry { path, kind, stat: stat_of(&stat) });
        is_folder
    }
}

/// A path below a folder's.
fn joined(above: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = above.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

#[expect(clippy::allow_attributes, reason = "the types of stat differ between platforms")]
#[allow(clippy::useless_conversion, reason = "the types of stat differ between platforms")]
fn device_of(stat: &rustix::fs::Stat) -> u64 {
    stat.st_dev.into()
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

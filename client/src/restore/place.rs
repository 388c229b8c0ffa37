//! Writing below a folder without ever following a symbolic link: every component is opened relative to
//! the one above with `O_NOFOLLOW`.

use lockstep_client_crypto::vault::ContentHasher;
use lockstep_engine::files::FileDoc;
use lockstep_proto::Digest;
use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, flock,
    futimens, mkdirat, openat, readlinkat, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What stands at a name.
pub(super) enum Existing {
    /// Nothing.
    Nothing,
    /// The same.
    Equal,
    /// Something else.
    Different,
}

/// An open folder below the destination.
pub(super) struct Folder(OwnedFd);

fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// A name is one plain component; anything else never reaches the file system.
fn plain(name: &[u8]) -> io::Result<&OsStr> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name is not a plain file name"));
    }
    Ok(OsStr::from_bytes(name))
}

fn times(doc: &FileDoc) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: doc.mtime.0, tv_nsec: doc.mtime.1.into() },
    }
}

/// Set-uid, set-gid and sticky bits are dropped.
fn mode(doc: &FileDoc) -> Mode {
    Mode::from_raw_mode(doc.mode & 0o777)
}

fn in_the_way(error: Errno) -> io::Error {
    match error {
        Errno::LOOP | Errno::NOTDIR => io::Error::new(
            io::ErrorKind::NotADirectory,
            "a symbolic link or a file is in the way of a folder",
        ),
        other => other.into(),
    }
}

impl Folder {
    /// Opens the destination itself, which the user named and which may be reached through links.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Opens a folder below, component by component; with `make`, makes those that are missing.
    pub(super) fn below(&self, components: &[Vec<u8>], make: bool) -> io::Result<Self> {
        let mut folder = self.0.try_clone()?;
        for component in components {
            let name = plain(component)?;
            if make {
                match mkdirat(&folder, name, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            folder = openat(&folder, name, flags(), Mode::empty()).map_err(in_the_way)?;
        }
        Ok(Self(folder))
    }

    /// Makes a folder, if it is not there.
    pub(super) fn make_folder(&self, name: &[u8]) -> io::Result<()> {
        self.below(&[name.to_vec()], true).map(|_| ())
    }

    /// What stands at the place of a link.
    pub(super) fn existing_link(&self, name: &[u8], target: &[u8]) -> io::Result<Existing> {
        match readlinkat(&self.0, plain(name)?, Vec::new()) {
            Ok(found) if found.as_bytes() == target => Ok(Existing::Equal),
            Err(Errno::NOENT) => Ok(Existing::Nothing),
            Ok(_) | Err(Errno::INVAL) => Ok(Existing::Different),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a link under a temporary name and renames it into place.
    pub(super) fn make_link(&self, name: &[u8], doc: &FileDoc) -> io::Result<()> {
        let temporary = temporary_name();
        symlinkat(OsStr::from_bytes(&doc.target.0), &self.0, temporary.as_str())?;
        let done = utimensat(&self.0, temporary.as_str(), &times(doc), AtFlags::SYMLINK_NOFOLLOW)
            .and_then(|()| renameat(&self.0, temporary.as_str(), &self.0, OsStr::from_bytes(name)));
        done.map_err(|error| {
            // The link under its temporary name must not stay; if it can not go, the first error tells.
            let _ = unlinkat(&self.0, temporary.as_str(), AtFlags::empty());
            error.into()
        })
    }

    /// What stands at the place of a file.
    pub(super) fn existing_file(
        &self,
        name: &[u8],
        size: u64,
        equal: impl FnOnce(&mut File) -> io::Result<bool>,
    ) -> io::Result<Existing> {
        let name = plain(name)?;
        let stat = match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Existing::Nothing),
            Err(error) => return Err(error.into()),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "a folder is in the way of a file"));
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
            || u64::try_from(stat.st_size) != Ok(size)
        {
            return Ok(Existing::Different);
        }
        let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mut file = File::from(openat(&self.0, name, open, Mode::empty())?);
        Ok(if equal(&mut file)? { Existing::Equal } else { Existing::Different })
    }

    /// Sets mode and time of a file or folder that is there.
    pub(super) fn set_metadata(&self, name: &[u8], doc: &FileDoc) -> io::Result<()> {
        let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat(&self.0, plain(name)?, open, Mode::empty())?;
        fchmod(&file, mode(doc))?;
        futimens(&file, &times(doc))?;
        Ok(())
    }

    /// Begins a file under a temporary name; with `replaces`, it takes the place of what stands at its name.
    pub(super) fn begin_file(
        self: &Arc<Self>,
        name: &[u8],
        doc: &FileDoc,
        replaces: bool,
    ) -> io::Result<Temporary> {
        let name = plain(name)?.as_bytes().to_vec();
        let partial = temporary_name();
        let open = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.0, partial.as_str(), open, Mode::from_raw_mode(0o600))?;
        Ok(Temporary {
            folder: Arc::clone(self),
            file: Some(File::from(file)),
            partial: Some(partial),
            name,
            mode: mode(doc),
            times: times(doc),
            bytes: 0,
            replaces,
        })
    }

    /// Marks the folder as one in which temporary names are in use, for as long as it is open here.
    pub(super) fn claim(&self) {
        // Another restore may be removing what was left, which does not take long; where folders can not be locked, nobody
        // removes anything.
        for _ in 0..100 {
            match flock(&self.0, FlockOperation::NonBlockingLockShared) {
                Err(Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(20)),
                _ => break,
            }
        }
    }

    /// Removes what a restore that was killed left under temporary names, unless another one is at work here.
    pub(super) fn clean(&self) -> io::Result<()> {
        if flock(&self.0, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(());
        }
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let name = entry?.file_name().to_owned();
            if !is_temporary(name.to_bytes()) {
                continue;
            }
            let stat = statat(&self.0, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Symlink) {
                unlinkat(&self.0, &name, AtFlags::empty())?;
            }
        }
        Ok(())
    }
}

fn temporary_name() -> String {
    let random: [u8; 8] = crate::rng::bytes();
    format!(".lockstep-{:016x}.part", u64::from_le_bytes(random))
}

/// Whether a name is one that [`temporary_name`] gives.
fn is_temporary(name: &[u8]) -> bool {
    let digits = name.strip_prefix(b".lockstep-").and_then(|rest| rest.strip_suffix(b".part"));
    digits.is_some_and(|digits| {
        digits.len() == 16 && digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// A file under a temporary name; it disappears unless it gets its own.
pub(super) struct Temporary {
    folder: Arc<Folder>,
    file: Option<File>,
    /// None once it has its name.
    partial: Option<String>,
    name: Vec<u8>,
    mode: Mode,
    times: Timestamps,
    bytes: u64,
    replaces: bool,
}

impl Temporary {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().ok_or_else(finished)?;
        file.write_all(bytes)?;
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Bytes written.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it lies in the same open folder as another one.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.folder, &other.folder)
    }

    /// All is written: sets mode and time.
    pub(super) fn seal(&mut self) -> io::Result<()> {
        let file = self.file.take().ok_or_else(finished)?;
        // Where files can not be made durable together, each is made so here.
        #[cfg(not(target_os = "linux"))]
        rustix::fs::fdatasync(&file)?;
        fchmod(&file, self.mode)?;
        futimens(&file, &self.times)?;
        Ok(())
    }

    /// Gives the file its name. It has to be durable: a power cut leaves what was there before or the whole file.
    fn give_name(&mut self) -> io::Result<()> {
        let Some(partial) = self.partial.as_deref() else { return Ok(()) };
        let name = OsStr::from_bytes(&self.name);
        if self.replaces {
            renameat(&self.folder.0, partial, &self.folder.0, name)?;
        } else {
            rename_to_nothing(&self.folder.0, partial, name)?;
        }
        self.partial = None;
        Ok(())
    }
}

fn finished() -> io::Error {
    io::Error::other("the file is finished")
}

/// Renames to a name at which nothing stands.
fn rename_to_nothing(folder: &OwnedFd, from: &str, to: &OsStr) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    match rustix::fs::renameat_with(folder, from, folder, to, rustix::fs::RenameFlags::NOREPLACE) {
        // Not every file system knows how.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
        other => return Ok(other?),
    }
    match statat(folder, to, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(renameat(folder, from, folder, to)?),
        Ok(_) => Err(Errno::EXIST.into()),
        Err(error) => Err(error.into()),
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            // Best effort: a name that ends in .part is left if even this fails.
            let _ = unlinkat(&self.folder.0, partial.as_str(), AtFlags::empty());
        }
    }
}

/// So few files are synced one by one, rather than everything that lies on their disk.
#[cfg(target_os = "linux")]
const SYNCED_ALONE_MAX: usize = 8;

/// Makes files durable together, then gives each its name.
pub(super) fn finish(files: &mut [Temporary]) -> io::Result<Vec<io::Result<()>>> {
    sync(files)?;
    Ok(files.iter_mut().map(Temporary::give_name).collect())
}

#[cfg(target_os = "linux")]
fn sync(files: &[Temporary]) -> io::Result<()> {
    let mut done = std::collections::BTreeSet::new();
    for file in files {
        if files.len() <= SYNCED_ALONE_MAX && sync_alone(file)? {
            continue;
        }
        // The folder was opened before the file was written: from Linux 5.8 on it tells of what could not be written since.
        if done.insert(rustix::fs::fstat(&file.folder.0)?.st_dev) {
            rustix::fs::syncfs(&file.folder.0)?;
        }
    }
    Ok(())
}

/// False if the file can not be opened again: its mode may say that nobody reads it.
#[cfg(target_os = "linux")]
fn sync_alone(file: &Temporary) -> io::Result<bool> {
    let Some(partial) = file.partial.as_deref() else { return Ok(true) };
    let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match openat(&file.folder.0, partial, open, Mode::empty()) {
        Ok(opened) => rustix::fs::fdatasync(&opened)?,
        Err(Errno::ACCESS) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    Ok(true)
}

#[cfg(not(target_os = "linux"))]
fn sync(_files: &[Temporary]) -> io::Result<()> {
    Ok(())
}

const READ_BYTES: usize = 256 * 1024;

/// Whether a file has exactly these contents.
pub(super) fn has_contents(file: &mut File, contents: &[u8]) -> io::Result<bool> {
    let mut found = Vec::with_capacity(contents.len());
    let limit = u64::try_from(contents.len()).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut found)?;
    Ok(found == contents)
}

/// Whether a file has the contents of a hash.
pub(super) fn has_hash(file: &mut File, mut hasher: ContentHasher, expected: Digest) -> io::Result<bool> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let got = file.read(&mut buffer)?;
        if got == 0 {
            return Ok(hasher.finish() == expected);
        }
        let (contents, _) = buffer.split_at(got);
        hasher.update(contents);
    }
}

#[cfg(test)]
mod tests;

//! Writing below a folder without ever following a symbolic link: every component is opened relative to
//! the one above with `O_NOFOLLOW`.

use lockstep_client_crypto::vault::ContentHasher;
use lockstep_engine::files::FileDoc;
use lockstep_proto::Digest;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens, mkdirat,
    openat, readlinkat, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

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

    /// Begins a file under a temporary name.
    pub(super) fn begin_file(&self, name: &[u8], doc: &FileDoc) -> io::Result<Temporary> {
        let name = plain(name)?.as_bytes().to_vec();
        let temporary = temporary_name();
        let open = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.0, temporary.as_str(), open, Mode::from_raw_mode(0o600))?;
        Ok(Temporary {
            folder: self.0.try_clone()?,
            file: Some(File::from(file)),
            partial: temporary,
            name,
            doc: doc.clone(),
        })
    }
}

fn temporary_name() -> String {
    let random: [u8; 8] = crate::rng::bytes();
    format!(".lockstep-{:016x}.part", u64::from_le_bytes(random))
}

/// A file that is being written; it disappears unless it is finished.
pub(super) struct Temporary {
    folder: OwnedFd,
    file: Option<File>,
    partial: String,
    name: Vec<u8>,
    doc: FileDoc,
}

impl Temporary {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Err(io::Error::other("the file is finished")),
        }
    }

    /// Sets mode and time and gives the file its name.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Err(io::Error::other("the file is finished")) };
        // Durable before it has its name: a power cut leaves the old file or the new one, whole.
        let done = rustix::fs::fdatasync(&file)
            .and_then(|()| fchmod(&file, mode(&self.doc)))
            .and_then(|()| futimens(&file, &times(&self.doc)))
            .and_then(|()| {
                renameat(&self.folder, self.partial.as_str(), &self.folder, OsStr::from_bytes(&self.name))
            });
        if done.is_err() {
            self.file = Some(file);
        }
        Ok(done?)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.file.is_some() {
            // Best effort: a name that ends in .part is left if even this fails.
            let _ = unlinkat(&self.folder, self.partial.as_str(), AtFlags::empty());
        }
    }
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

//! The home: the folder of one device. `device` holds its private keys (0600), `account` says whose it
//! is, `session` the current token, `replica.sqlite` everything else. One process writes.

use crate::error::{ClientError, Result};
use lockstep_client_crypto::device::DeviceKeys;
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What a home remembers of its account in the clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountFile {
    /// Server origin.
    pub server: String,
    /// Account name.
    pub name: String,
    /// Account id.
    pub account: String,
    /// Device id.
    pub device: String,
    /// Whether the device is known to be enrolled.
    pub enrolled: bool,
}

/// Contents of a stream while they are backed up.
const INPUT_FILE: &str = "input";

/// A home, open.
pub struct Home {
    path: PathBuf,
    lock: Option<File>,
}

impl Home {
    /// Opens a home for writing, creating it if needed. One process at a time.
    ///
    /// # Errors
    /// [`ClientError::Locked`], [`ClientError::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let io = |error| ClientError::io(path, error);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        let lock_path = path.join("lock");
        let lock = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|error| ClientError::io(&lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {
                let home = Self { path: path.to_path_buf(), lock: Some(lock) };
                // Left by a process that was killed while it backed up a stream.
                home.remove(INPUT_FILE)?;
                Ok(home)
            }
            Err(TryLockError::WouldBlock) => Err(ClientError::Locked(path.to_path_buf())),
            Err(TryLockError::Error(error)) => Err(ClientError::io(&lock_path, error)),
        }
    }

    /// Opens a home for reading beside a process that writes.
    pub fn open_read_only(path: &Path) -> Self {
        Self { path: path.to_path_buf(), lock: None }
    }

    /// The same home once more; it is free when both are gone.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn share(&self) -> Result<Self> {
        let lock = self.lock.as_ref().map(File::try_clone).transpose();
        let lock = lock.map_err(|error| ClientError::io(self.path.join("lock"), error))?;
        Ok(Self { path: self.path.clone(), lock })
    }

    /// Whether this process may write.
    pub fn writes(&self) -> bool {
        self.lock.is_some()
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the contents of a stream wait until they are backed up.
    pub(crate) fn input_path(&self) -> PathBuf {
        self.path.join(INPUT_FILE)
    }

    /// The database.
    pub fn replica_path(&self) -> PathBuf {
        self.path.join("replica.sqlite")
    }

    /// Writes a file of the home: whole or not at all, readable by its owner only.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_private(&self.path.join(name), bytes, true)
    }

    fn read_file(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let path = self.path.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ClientError::io(path, error)),
        }
    }

    /// The account file.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn account(&self) -> Result<Option<AccountFile>> {
        let Some(bytes) = self.read_file("account")? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|_| damaged(&self.path.join("account")))
    }

    /// Writes the account file.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn set_account(&self, file: &AccountFile) -> Result<()> {
        let text = serde_json::to_vec_pretty(file).map_err(|_| damaged(&self.path.join("account")))?;
        self.write_file("account", &text)
    }

    /// The device's keys.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn device(&self) -> Result<Option<DeviceKeys>> {
        let Some(bytes) = self.read_file("device")? else { return Ok(None) };
        DeviceKeys::from_bytes(&bytes).map(Some).map_err(|_| damaged(&self.path.join("device")))
    }

    /// Writes the device's keys.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn set_device(&self, keys: &DeviceKeys) -> Result<()> {
        self.write_file("device", &keys.to_bytes())
    }

    /// Keys and account of a device that is about to be enrolled; the ones in use stay until it is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn set_next(&self, file: &AccountFile, keys: &DeviceKeys) -> Result<()> {
        let text = serde_json::to_vec_pretty(file).map_err(|_| damaged(&self.path.join("account.next")))?;
        self.write_file("device.next", &keys.to_bytes())?;
        self.write_file("account.next", &text)
    }

    /// What [`Self::set_next`] wrote, if it was not taken up.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn next(&self) -> Result<Option<(AccountFile, DeviceKeys)>> {
        let (Some(file), Some(keys)) = (self.read_file("account.next")?, self.read_file("device.next")?)
        else {
            return Ok(None);
        };
        let file = serde_json::from_slice(&file).map_err(|_| damaged(&self.path.join("account.next")))?;
        let keys = DeviceKeys::from_bytes(&keys).map_err(|_| damaged(&self.path.join("device.next")))?;
        Ok(Some((file, keys)))
    }

    /// The device is enrolled: its keys and account are the ones in use from here on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn take_next(&self, file: &AccountFile, keys: &DeviceKeys) -> Result<()> {
        self.set_device(keys)?;
        self.set_account(file)?;
        self.remove("account.next")?;
        self.remove("device.next")
    }

    /// Gives up what [`Self::set_next`] wrote.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn drop_next(&self) -> Result<()> {
        self.remove("account.next")?;
        self.remove("device.next")
    }

    /// The session token.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn session(&self) -> Result<Option<String>> {
        Ok(self.read_file("session")?.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()))
    }

    /// Writes or removes the session token.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn set_session(&self, token: Option<&str>) -> Result<()> {
        match token {
            Some(token) => self.write_file("session", token.as_bytes()),
            None => self.remove("session"),
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ClientError::io(path, error)),
            _ => Ok(()),
        }
    }

    /// Removes everything of the device from the home.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn wipe(&self) -> Result<()> {
        // The account goes first: without it the home counts as empty, wherever this is cut off.
        for name in [
            "account",
            "account.next",
            "session",
            INPUT_FILE,
            "replica.sqlite",
            "replica.sqlite-wal",
            "replica.sqlite-shm",
            "device.next",
            "device",
        ] {
            self.remove(name)?;
        }
        let objects = self.path.join("objects");
        match std::fs::remove_dir_all(&objects) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ClientError::io(objects, error))
            }
            _ => Ok(()),
        }
    }
}

fn damaged(path: &Path) -> ClientError {
    ClientError::Damaged(format!(
        "{} is damaged; restore it, or sign in again with another --home",
        path.display()
    ))
}

/// Writes a file with mode 0600: whole (through a temporary name, synced) or not at all.
///
/// # Errors
/// [`ClientError::Io`]; also if it exists and `replace` is false.
pub fn write_private(path: &Path, bytes: &[u8], replace: bool) -> Result<()> {
    let io = |error| ClientError::io(path, error);
    if !replace && path.symlink_metadata().is_ok() {
        return Err(io(std::io::Error::new(std::io::ErrorKind::AlreadyExists, "the file exists")));
    }
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    let suffix: [u8; 8] = crate::rng::bytes();
    name.push(format!(".{:016x}.new", u64::from_le_bytes(suffix)));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| {
        // What could not be finished is not left lying about.
        let _ = std::fs::remove_file(&temporary);
        io(error)
    })
}

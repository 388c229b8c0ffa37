//! A folder for what is needed while an archive is read: what lies in it is as public as the archive, and it is
//! removed at the end.

use crate::error::{ClientError, Result};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// A folder that is removed when it is dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a folder below another.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        let name: [u8; 8] = crate::rng::bytes();
        let path = parent.join(format!(".lockstep-archive-{}", crate::rng::hex(&name)));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| ClientError::io(&path, error))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: nothing secret lies in it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

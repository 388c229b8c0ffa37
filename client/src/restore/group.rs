//! Files that are whole and verified get durable together, and then their names.

use super::place::{Temporary, finish};
use std::io;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Files that are made durable together.
const FILES_MAX: usize = 256;
/// Bytes of them.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Folders that are open for them.
const FOLDERS_MAX: usize = 64;
/// No file waits longer for others.
const AGE_MAX: Duration = Duration::from_secs(1);

/// What became of a group: which files, and whether each has its name now.
pub(super) type Named = io::Result<Vec<(usize, io::Result<()>)>>;

type Finishing = JoinHandle<io::Result<Vec<io::Result<()>>>>;

/// Files that wait for their names, and the group before them that is getting them.
#[derive(Default)]
pub(super) struct Groups {
    places: Vec<usize>,
    files: Vec<Temporary>,
    bytes: u64,
    folders: usize,
    begun: Option<Instant>,
    finishing: Option<(Vec<usize>, Finishing)>,
}

impl Groups {
    pub(super) fn push(&mut self, place: usize, file: Temporary) {
        self.begun.get_or_insert_with(Instant::now);
        self.bytes = self.bytes.saturating_add(file.bytes());
        if self.files.last().is_none_or(|last| !last.is_beside(&file)) {
            self.folders += 1;
        }
        self.places.push(place);
        self.files.push(file);
    }

    /// Whether nothing more should come before the group before is done.
    pub(super) fn is_full(&self) -> bool {
        self.files.len() >= FILES_MAX || self.bytes >= BYTES_MAX || self.folders >= FOLDERS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.finishing.is_none()
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.finishing.is_some()
    }

    /// Begins to finish what waits, if it is enough or waited long enough; whatever it is, if `all`.
    pub(super) fn finish(&mut self, all: bool) {
        let is_due = all || self.is_full() || self.begun.is_some_and(|begun| begun.elapsed() >= AGE_MAX);
        if self.finishing.is_some() || self.files.is_empty() || !is_due {
            return;
        }
        let (places, mut files) = (std::mem::take(&mut self.places), std::mem::take(&mut self.files));
        (self.bytes, self.folders, self.begun) = (0, 0, None);
        self.finishing = Some((places, tokio::task::spawn_blocking(move || finish(&mut files))));
    }

    /// The group that is being finished, when it is; its files, and what became of them. May be dropped and called again.
    pub(super) async fn finished(&mut self) -> (Vec<usize>, Named) {
        let Some((_, task)) = &mut self.finishing else { return (Vec::new(), Ok(Vec::new())) };
        let done = task.await.unwrap_or_else(|_| Err(io::Error::other("naming files failed")));
        let places = self.finishing.take().map(|(places, _)| places).unwrap_or_default();
        let named = done.map(|each| places.iter().copied().zip(each).collect());
        (places, named)
    }
}

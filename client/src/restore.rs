//! Restoring snapshots. Nothing leaves the destination through `..`, absolute names or symbolic links; a
//! file gets its real name only when it is whole, verified and durable.

mod group;
mod place;
mod step;

use crate::error::{ClientError, Result};
use crate::fetch::{Fetched, Fetcher};
use crate::snapshot::Snapshot;
use crate::vault::Vault;
use group::{Groups, Named};
use place::Folder;
use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use step::{Contents, Failure, Site, Step};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// Entries that one thread does at once.
const STEPS: usize = 32;
/// How many threads do.
const STEPPERS: usize = 2;
/// How often it is looked whether the run is to stop, or files waited long enough for others.
const TICK: Duration = Duration::from_millis(200);

/// Options of a restore.
pub struct Options {
    /// Only these paths below a source's name (`docs/letters`), and what lies below them.
    pub paths: Vec<PathBuf>,
    /// Replace what differs.
    pub overwrite: bool,
    /// Set to stop cleanly.
    pub stop: Arc<AtomicBool>,
}

/// What a restore came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Files, folders and links that were written.
    pub written: u64,
    /// Files that were there already, equal.
    pub unchanged: u64,
    /// Bytes written.
    pub bytes: u64,
    /// What could not be restored, with the reason.
    pub failed: Vec<(PathBuf, String)>,
}

/// What a restore tells while it works.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Entries done and in all.
    pub entries: (u64, u64),
    /// Bytes done and in all.
    pub bytes: (u64, u64),
}

/// Whether a path was asked for: it, something above it, or (for folders on the way) something below it.
fn is_wanted(name: &[u8], path: &[u8], wanted: &[PathBuf]) -> bool {
    if wanted.is_empty() {
        return true;
    }
    let mut full = PathBuf::from(std::ffi::OsStr::from_bytes(name));
    if !path.is_empty() {
        full.push(std::ffi::OsStr::from_bytes(path));
    }
    wanted.iter().any(|wanted| full.starts_with(wanted))
}

/// Restores snapshots to `destination/<source name>/...`.
///
/// # Errors
/// [`ClientError`] if nothing can be done; what fails for single files is in the outcome.
pub async fn restore(
    vault: &Vault,
    snapshots: &[Snapshot],
    destination: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome> {
    std::fs::create_dir_all(destination).map_err(|error| ClientError::io(destination, error))?;
    let top = Arc::new(Folder::open(destination).map_err(|error| ClientError::io(destination, error))?);
    let mut outcome = Outcome::default();
    let mut wanted_any = false;
    for snapshot in snapshots {
        let name = &snapshot.source.doc.name.0;
        let found = vault.files_of(snapshot).await?;
        let shown = PathBuf::from(std::ffi::OsStr::from_bytes(name));
        outcome.failed.extend(found.failed.into_iter().map(|(path, reason)| (shown.join(path), reason)));
        let mut files = found.files;
        files.retain(|file| is_wanted(name, &file.doc.path.0, &options.paths));
        if files.is_empty() {
            continue;
        }
        wanted_any = true;
        let entries = u64::try_from(files.len()).unwrap_or(0);
        let bytes = files.iter().map(|file| file.doc.size).fold(0, u64::saturating_add);
        let site = Arc::new(Site {
            top: Arc::clone(&top),
            name: name.clone(),
            destination: destination.join(std::ffi::OsStr::from_bytes(name)),
            files,
            overwrite: options.overwrite,
            keys: Arc::clone(&vault.setup().keys),
            folders: std::sync::Mutex::default(),
        });
        let run = Run {
            fetcher: Fetcher::new(Arc::clone(vault.api()), Arc::clone(&vault.setup().keys)),
            groups: Groups::default(),
            site,
            next: 0,
            stepping: VecDeque::new(),
            stop: &options.stop,
            outcome: &mut outcome,
            done: Progress { entries: (0, entries), bytes: (0, bytes) },
        };
        run.go(progress).await?;
    }
    if !wanted_any && !options.paths.is_empty() {
        return Err(ClientError::NotFound("no snapshot has these paths; see: lockstep ls".into()));
    }
    Ok(outcome)
}

type Steps = Vec<(usize, std::result::Result<Step, Failure>)>;

/// One snapshot on its way.
struct Run<'a> {
    site: Arc<Site>,
    stop: &'a AtomicBool,
    /// The first entry that no thread has yet.
    next: usize,
    stepping: VecDeque<JoinHandle<Steps>>,
    fetcher: Fetcher<Contents>,
    groups: Groups,
    outcome: &'a mut Outcome,
    done: Progress,
}

impl Run<'_> {
    async fn go(mut self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let done = self.drive(progress).await;
        if done.is_err() {
            // What is whole keeps its place; of the rest nothing is left when this ends.
            self.fetcher.stop().await;
            for steps in std::mem::take(&mut self.stepping) {
                drop(steps.await);
            }
            while !self.groups.is_empty() {
                self.groups.finish(true);
                // The error that ended the restore is the one that is told.
                let _ = self.groups.finished().await;
            }
            return done;
        }
        self.outcome.failed.extend(self.site.finish_folders());
        Ok(())
    }

    async fn drive(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(ClientError::Interrupted);
            }
            self.step();
            let is_stepped = self.stepping.is_empty();
            if is_stepped {
                self.fetcher.flush();
            }
            let is_last = is_stepped && !self.fetcher.is_busy();
            self.groups.finish(is_last);
            if is_last && self.groups.is_empty() {
                return Ok(());
            }
            let takes = self.fetcher.has_room() && !self.groups.is_full();
            tokio::select! {
                biased;
                (places, named) = self.groups.finished(), if self.groups.is_finishing() => {
                    self.named(&places, named, progress)?;
                }
                fetched = self.fetcher.next(), if self.fetcher.is_asking() => {
                    if let Some(fetched) = fetched? {
                        self.fetched(fetched, progress)?;
                    }
                }
                steps = stepped(&mut self.stepping), if takes && !is_stepped => {
                    self.take(steps?, progress)?;
                }
                _ = tick.tick() => {}
            }
        }
    }

    /// Keeps threads at the entries.
    fn step(&mut self) {
        while self.stepping.len() < STEPPERS && self.next < self.site.files.len() {
            let range = self.next..self.next.saturating_add(STEPS).min(self.site.files.len());
            self.next = range.end;
            let site = Arc::clone(&self.site);
            self.stepping.push_back(tokio::task::spawn_blocking(move || site.steps(range)));
        }
    }

    fn take(&mut self, steps: Steps, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        for (place, step) in steps {
            match step {
                Ok(Step::Made) => {
                    self.outcome.written += 1;
                    self.count(place, progress);
                }
                Ok(Step::Unchanged) => {
                    self.outcome.unchanged += 1;
                    self.count(place, progress);
                }
                Ok(Step::Written(file)) => self.groups.push(place, file),
                Ok(Step::Wanted(blob, contents)) => self.fetcher.push(blob, contents),
                Err(failure) => self.failed(place, failure, progress)?,
            }
        }
        Ok(())
    }

    fn fetched(&mut self, fetched: Fetched<Contents>, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let Contents { place, written, .. } = fetched.sink;
        match (fetched.result, written) {
            (Ok(()), Some(file)) => self.groups.push(place, file),
            (Ok(()), None) => self.failed(place, Failure::This("it was not written".into()), progress)?,
            (Err(error), _) => self.failed(place, Failure::told(error), progress)?,
        }
        Ok(())
    }

    /// A group is done: its files have their names, or each failed by itself, or all together.
    fn named(&mut self, places: &[usize], named: Named, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let each = match named {
            Ok(each) => each,
            Err(error) => {
                let Failure::This(reason) = Failure::of(&self.site.destination, error) else {
                    return Err(ClientError::DiskFull(self.site.destination.clone()));
                };
                for place in places {
                    self.failed(*place, Failure::This(reason.clone()), progress)?;
                }
                return Ok(());
            }
        };
        for (place, named) in each {
            match named {
                Ok(()) => {
                    let size = self.site.files.get(place).map_or(0, |file| file.doc.size);
                    self.outcome.written += 1;
                    self.outcome.bytes = self.outcome.bytes.saturating_add(size);
                    self.count(place, progress);
                }
                Err(error) => self.failed(place, Failure::of(&self.site.destination, error), progress)?,
            }
        }
        Ok(())
    }

    fn failed(&mut self, place: usize, failure: Failure, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        match failure {
            Failure::This(reason) => {
                let path = self.site.files.get(place).map_or(&[][..], |file| &file.doc.path.0);
                self.outcome.failed.push((self.site.shown(path), reason));
                self.count(place, progress);
                Ok(())
            }
            Failure::Stop(error) => Err(error),
        }
    }

    /// An entry is done with, whatever came of it.
    fn count(&mut self, place: usize, progress: &mut dyn FnMut(Progress)) {
        let size = self.site.files.get(place).map_or(0, |file| file.doc.size);
        self.done.entries.0 += 1;
        self.done.bytes.0 = self.done.bytes.0.saturating_add(size);
        progress(self.done);
    }
}

/// The next entries that a thread is done with. May be dropped and called again.
async fn stepped(stepping: &mut VecDeque<JoinHandle<Steps>>) -> Result<Steps> {
    let Some(first) = stepping.front_mut() else { return Ok(Vec::new()) };
    let steps = first.await;
    stepping.pop_front();
    steps.map_err(|_| ClientError::Damaged("restoring some entries failed".into()))
}

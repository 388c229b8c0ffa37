//! What a run leaves out by rule: globs, patterns from files that the user names, `.lockstepignore` files in the
//! tree, folders that are marked as caches, other file systems.

use crate::error::{ClientError, Result};
use globset::GlobSet;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Name of the files in a tree that say what is left out below their folder.
pub const IGNORE_FILE: &str = ".lockstepignore";
/// Marks a folder as a cache (<https://bford.info/cachedir/>); it begins with [`CACHE_SIGNATURE`].
const CACHE_FILE: &[u8] = b"CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
/// A file of patterns is not larger.
const PATTERNS_BYTES_MAX: usize = 1024 * 1024;
/// So many faults of one file are named.
const FAULTS_MAX: usize = 20;

/// What a run leaves out. What was in an earlier snapshot and is left out now is not in the new one.
#[derive(Debug)]
pub struct Rules {
    globs: GlobSet,
    patterns: Gitignore,
    /// Whether to stay on the file system of the root. A folder where another one is mounted is kept, empty.
    pub one_file_system: bool,
    /// Whether folders that are marked as caches are kept with nothing but their mark.
    pub exclude_caches: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            globs: GlobSet::empty(),
            patterns: Gitignore::empty(),
            one_file_system: false,
            exclude_caches: false,
        }
    }
}

impl Rules {
    /// Globs, over the name or the path below the root, and files of patterns in the syntax of gitignore, which
    /// are read as one: the last pattern that matches counts.
    ///
    /// # Errors
    /// [`ClientError::Usage`] names file and line of what is no pattern; [`ClientError::Io`].
    pub fn new(globs: GlobSet, files: &[PathBuf]) -> Result<Self> {
        let mut parsed = Parsed::new();
        for path in files {
            let text = std::fs::File::open(path).and_then(read_bounded);
            let text = text.map_err(|error| ClientError::io(path, error))?;
            parsed.add(&text);
            if let Some(fault) = parsed.faults.first() {
                return Err(ClientError::Usage(format!("{}: {fault}", path.display())));
            }
        }
        let patterns = parsed.build().map_err(ClientError::Usage)?;
        Ok(Self { globs, patterns, ..Self::default() })
    }

    /// Whether a name, or its path below the root, matches a glob.
    pub(super) fn matches_glob(&self, path: &[u8], name: &[u8]) -> bool {
        self.globs.is_match(OsStr::from_bytes(path)) || self.globs.is_match(OsStr::from_bytes(name))
    }

    /// Whether patterns leave a path out. Those that the user named come first, either way; then those of the
    /// nearest folder.
    pub(super) fn leaves_out(&self, path: &[u8], is_folder: bool, near: Option<&Rc<Near>>) -> bool {
        match self.patterns.matched(OsStr::from_bytes(path), is_folder) {
            Match::Ignore(_) => return true,
            Match::Whitelist(_) => return false,
            Match::None => {}
        }
        let mut near = near;
        while let Some(folder) = near {
            let below = path.get(folder.prefix_bytes..).unwrap_or_default();
            match folder.patterns.matched(OsStr::from_bytes(below), is_folder) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => near = folder.above.as_ref(),
            }
        }
        false
    }
}

/// Patterns of a folder in the tree, and of those above it.
pub(super) struct Near {
    /// Bytes of the folder's path and the slash behind it.
    prefix_bytes: usize,
    patterns: Gitignore,
    above: Option<Rc<Near>>,
}

/// The patterns that hold in a folder: its own, if it has any, over those above it. What is wrong with its file comes
/// along: then the other lines hold.
pub(super) fn enter(
    folder: &OwnedFd,
    path: &[u8],
    above: Option<&Rc<Near>>,
) -> (Option<Rc<Near>>, Vec<String>) {
    let text = match open_regular(folder, OsStr::new(IGNORE_FILE)).and_then(read_bounded) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return (above.cloned(), Vec::new()),
        Err(error) => return (above.cloned(), vec![format!("{error}; nothing is left out by it")]),
    };
    let mut parsed = Parsed::new();
    parsed.add(&text);
    let mut faults = std::mem::take(&mut parsed.faults);
    match parsed.build() {
        Ok(patterns) => {
            let prefix_bytes = if path.is_empty() { 0 } else { path.len().saturating_add(1) };
            (Some(Rc::new(Near { prefix_bytes, patterns, above: above.cloned() })), faults)
        }
        Err(fault) => {
            faults.push(fault);
            (above.cloned(), faults)
        }
    }
}

/// Whether a folder carries the mark of a cache.
pub(super) fn is_cache(folder: &OwnedFd) -> bool {
    let mut begin = Vec::new();
    let length = u64::try_from(CACHE_SIGNATURE.len()).unwrap_or(0);
    open_regular(folder, OsStr::from_bytes(CACHE_FILE))
        .and_then(|file| file.take(length).read_to_end(&mut begin))
        .is_ok_and(|_| begin == CACHE_SIGNATURE)
}

/// Whether a name is that of the mark, which is kept.
pub(super) fn is_cache_mark(name: &[u8]) -> bool {
    name == CACHE_FILE
}

/// Opens a regular file in a folder, following nothing and never waiting for a FIFO.
fn open_regular(folder: &impl AsFd, name: &OsStr) -> std::io::Result<std::fs::File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = openat(folder, name, flags, Mode::empty()).map_err(|error| match error {
        Errno::LOOP => std::io::Error::other("it is a symbolic link"),
        other => other.into(),
    })?;
    if FileType::from_raw_mode(fstat(&opened)?.st_mode) != FileType::RegularFile {
        return Err(std::io::Error::other("it is no regular file"));
    }
    Ok(opened.into())
}

fn read_bounded(file: std::fs::File) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let bound = u64::try_from(PATTERNS_BYTES_MAX).unwrap_or(u64::MAX);
    file.take(bound.saturating_add(1)).read_to_end(&mut text)?;
    if text.len() > PATTERNS_BYTES_MAX {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// Lines of patterns, and those that are none.
struct Parsed {
    builder: GitignoreBuilder,
    faults: Vec<String>,
}

impl Parsed {
    fn new() -> Self {
        // Paths are given as they are below the folder: nothing is stripped from them.
        Self { builder: GitignoreBuilder::new(Path::new(".")), faults: Vec::new() }
    }

    fn add(&mut self, text: &[u8]) {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        for (number, line) in (1_u64..).zip(text.split(|byte| *byte == b'\n')) {
            let added = match std::str::from_utf8(line) {
                Ok(line) => self.builder.add_line(None, line).err().map(|error| error.to_string()),
                Err(_) => Some("it is not UTF-8".into()),
            };
            if let Some(fault) = added
                && self.faults.len() < FAULTS_MAX
            {
                self.faults.push(format!("line {number} is no pattern: {fault}"));
            }
        }
    }

    fn build(&self) -> std::result::Result<Gitignore, String> {
        self.builder.build().map_err(|error| format!("its patterns can not be used together: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(text: &str, prefix_bytes: usize, above: Option<Rc<Near>>) -> Rc<Near> {
        let mut parsed = Parsed::new();
        parsed.add(text.as_bytes());
        assert!(parsed.faults.is_empty(), "{:?}", parsed.faults);
        Rc::new(Near { prefix_bytes, patterns: parsed.build().unwrap(), above })
    }

    #[test]
    fn the_nearest_folder_counts_and_its_last_line() {
        let top = near("*.log\n/build/\n# a comment\n\\#real\n", 0, None);
        let below = near("!keep.log\n*.tmp\n!last.tmp\n/own\n", 2, Some(Rc::clone(&top)));
        let rules = Rules::default();
        let out = |path: &str, is_folder, near| rules.leaves_out(path.as_bytes(), is_folder, Some(near));
        assert!(out("x.log", false, &top) && out("#real", false, &top));
        assert!(out("build", true, &top) && !out("build", false, &top));
        assert!(!out("a comment", false, &top));
        assert!(out("a/x.log", false, &below) && !out("a/keep.log", false, &below));
        assert!(out("a/x.tmp", false, &below) && !out("a/last.tmp", false, &below));
        assert!(out("a/own", false, &below) && !out("a/b/own", false, &below) && !out("own", false, &below));
        assert!(!out("a/build", true, &below), "it stands at the top only");
    }

    #[test]
    fn what_the_user_named_counts_before_the_tree() {
        let mut parsed = Parsed::new();
        parsed.add(b"secret\n!wanted\n");
        let rules = Rules { patterns: parsed.build().unwrap(), ..Rules::default() };
        let tree = near("!secret\nwanted\n", 0, None);
        assert!(rules.leaves_out(b"secret", false, Some(&tree)));
        assert!(!rules.leaves_out(b"wanted", false, Some(&tree)));
    }

    #[test]
    fn lines_that_are_no_patterns_are_named_and_the_others_hold() {
        let mut parsed = Parsed::new();
        parsed.add(b"\xef\xbb\xbfgood\r\n[z-a]\n\xff\nalso good\n");
        assert_eq!(parsed.faults.len(), 2, "{:?}", parsed.faults);
        assert!(parsed.faults[0].starts_with("line 2 ") && parsed.faults[1].starts_with("line 3 "));
        let rules = Rules { patterns: parsed.build().unwrap(), ..Rules::default() };
        assert!(rules.leaves_out(b"x/good", false, None) && rules.leaves_out(b"also good", false, None));
    }

    #[test]
    fn names_that_are_not_utf_8_match() {
        let tree = near("*.log\n", 0, None);
        assert!(Rules::default().leaves_out(b"\xff\xfe.log", false, Some(&tree)));
    }
}

//! Contents that come as a stream: they are kept in the home until they are backed up, as one file that is a source
//! of its own. A stream that ends with an error is not backed up.

use crate::error::{ClientError, Result};
use crate::home::Home;
use lockstep_proto::blob::Layout;
use std::io::{Error, ErrorKind, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// What the root of such a source begins with; every other root is an absolute path.
pub(super) const PREFIX: &str = "stdin:";
const NAME_BYTES_MAX: usize = 255;
const READ_BYTES: usize = 1024 * 1024;
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Contents of a stream in a file of the home, which is removed when this is dropped.
pub struct Input {
    file: PathBuf,
    root: PathBuf,
}

impl Input {
    /// Reads a stream to its end. `name`: what it restores under; `called`: what errors call the stream; `progress` gets
    /// the bytes that were read so far.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if the name is no plain file name, [`ClientError::Io`] if the stream can not be read, is
    /// empty or larger than a file can be, [`ClientError::DiskFull`], [`ClientError::Interrupted`].
    pub async fn read(
        home: &Home,
        name: &str,
        (called, stream): (&str, impl Read + Send + 'static),
        stop: &Arc<AtomicBool>,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Self> {
        check_name(name)?;
        let input = Self { file: home.input_path(), root: PathBuf::from(format!("{PREFIX}{name}")) };
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&input.file);
        let file = file.map_err(|error| ClientError::io(&input.file, error))?;
        let (count, stopped) = (Arc::new(AtomicU64::new(0)), Arc::clone(stop));
        let (done, mut result) = oneshot::channel();
        let (counted, place, called) = (Arc::clone(&count), input.file.clone(), called.to_owned());
        // A thread of its own, which nobody waits for: a read of a stream that says nothing can not be ended.
        let reader = std::thread::Builder::new().name("input".into()).spawn(move || {
            let _ = done.send(copy((&called, stream), (&place, file), size_bytes_max(), &counted, &stopped));
        });
        reader.map_err(|error| ClientError::io(home.path(), error))?;
        loop {
            match tokio::time::timeout(LOOK_INTERVAL, &mut result).await {
                Ok(Ok(copied)) => return copied.map(|()| input),
                Ok(Err(_)) => {
                    return Err(ClientError::Damaged("the thread that reads the input failed".into()));
                }
                Err(_) if stop.load(Ordering::Relaxed) => return Err(ClientError::Interrupted),
                Err(_) => progress(count.load(Ordering::Relaxed)),
            }
        }
    }

    /// The file that has the contents.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The root of the source: not the file's path, and the same every time.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        // What can not be removed now is removed when the home is opened next.
        let _ = std::fs::remove_file(&self.file);
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty()
        || name == "."
        || name == ".."
        || name.contains(['/', '\0'])
        || name.len() > NAME_BYTES_MAX
    {
        return Err(ClientError::Usage(format!(
            "\"{name}\" can not be the name of what is read: a plain file name of at most {NAME_BYTES_MAX} bytes is \
             wanted, such as database.sql"
        )));
    }
    Ok(())
}

/// Bytes of the largest file that fits into an object; a little less than 1 TiB.
fn size_bytes_max() -> u64 {
    let (mut fits, mut does_not) = (0_u64, 1 << 41);
    while does_not - fits > 1 {
        let middle = u64::midpoint(fits, does_not);
        if Layout::new(middle, 16).is_some() { fits = middle } else { does_not = middle }
    }
    fits
}

/// Copies a stream into a file, and makes sure that it is all of it.
fn copy(
    (called, mut stream): (&str, impl Read),
    (place, mut file): (&Path, std::fs::File),
    size_bytes_max: u64,
    count: &AtomicU64,
    stop: &AtomicBool,
) -> Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut size = 0_u64;
    let refuse = |kind: ErrorKind, reason: String| {
        ClientError::io(called, Error::new(kind, format!("{reason}; nothing was backed up")))
    };
    loop {
        let got = match stream.read(&mut buffer) {
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(refuse(
                    ErrorKind::Other,
                    format!("it ended after {size} bytes with an error: {error}"),
                ));
            }
        };
        if stop.load(Ordering::Relaxed) {
            return Err(ClientError::Interrupted);
        }
        if got == 0 {
            break;
        }
        size = size.saturating_add(u64::try_from(got).unwrap_or(u64::MAX));
        if size > size_bytes_max {
            return Err(refuse(ErrorKind::FileTooLarge, format!("it is longer than {size_bytes_max} bytes")));
        }
        let (contents, _) = buffer.split_at(got);
        file.write_all(contents).map_err(|error| ClientError::io(place, error))?;
        count.store(size, Ordering::Relaxed);
    }
    if size == 0 {
        let reason = "it was empty: what was to write it has probably failed";
        return Err(refuse(ErrorKind::UnexpectedEof, reason.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives some bytes, and then an error.
    struct Broken(usize);

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let some = std::mem::take(&mut self.0).min(buffer.len());
            if some == 0 { Err(ErrorKind::ConnectionReset.into()) } else { Ok(some) }
        }
    }

    fn try_copy(stream: impl Read, bound: u64) -> Result<()> {
        let file = std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
        copy(("x", stream), (Path::new("y"), file), bound, &AtomicU64::new(0), &AtomicBool::new(false))
    }

    #[test]
    fn the_largest_file_is_the_largest_that_an_object_takes() {
        let max = size_bytes_max();
        assert!(Layout::new(max, 16).is_some() && Layout::new(max + 1, 16).is_none(), "{max}");
    }

    #[test]
    fn a_stream_is_taken_to_the_bound_and_no_further() {
        try_copy(&[7_u8; 1000][..], 1000).unwrap();
        let error = try_copy(&[7_u8; 1001][..], 1000).unwrap_err().to_string();
        assert!(
            error.contains("longer than 1000 bytes") && error.contains("nothing was backed up"),
            "{error}"
        );
    }

    #[test]
    fn a_stream_that_ends_with_an_error_is_refused() {
        let error = try_copy(Broken(500), 1000).unwrap_err().to_string();
        assert!(error.contains("after 500 bytes") && error.contains("nothing was backed up"), "{error}");
        let error = try_copy(&[][..], 1000).unwrap_err().to_string();
        assert!(error.contains("empty"), "{error}");
    }

    #[test]
    fn only_plain_names_are_taken() {
        for wrong in ["", ".", "..", "a/b", "/a", "a\0", &"x".repeat(256)] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
        assert!(check_name("database.sql").is_ok() && check_name("..x").is_ok());
    }
}

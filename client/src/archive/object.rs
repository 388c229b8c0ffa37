//! Contents of an object in an archive: verified chunk by chunk as they are read, and whole only at the end.

use super::index::{Held, Index, Span};
use crate::error::{ClientError, Result};
use lockstep_client_crypto::blob::ObjectOpener;
use lockstep_client_crypto::content::BlobRef;
use lockstep_client_crypto::vault::VaultKeys;
use std::io::{Error, ErrorKind, Read, Seek, SeekFrom};
use std::sync::Arc;
use zeroize::Zeroizing;

const READ_BYTES: u64 = 256 * 1024;

/// Reads an object's contents. The end of the file is given only for contents that are whole.
pub(crate) struct Contents {
    index: Arc<Index>,
    keys: Arc<VaultKeys>,
    reference: BlobRef,
    span: Span,
    next: u64,
    opener: Option<ObjectOpener>,
    out: Zeroizing<Vec<u8>>,
    given: usize,
}

fn damaged() -> Error {
    Error::new(ErrorKind::InvalidData, "the object in the archive is damaged or not the right one")
}

impl Contents {
    /// Opens an object; none if the archive does not have it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn open(
        index: &Arc<Index>,
        keys: &Arc<VaultKeys>,
        reference: &BlobRef,
    ) -> Result<Option<Self>> {
        let Held::Here(span) = index.object(keys.vault(), reference.blob)? else { return Ok(None) };
        let mut contents = Self {
            index: Arc::clone(index),
            keys: Arc::clone(keys),
            reference: reference.clone(),
            span,
            next: 0,
            opener: None,
            out: Zeroizing::new(Vec::new()),
            given: 0,
        };
        contents.rewind().map_err(|error| ClientError::Damaged(error.to_string()))?;
        Ok(Some(contents))
    }

    fn fill(&mut self) -> std::io::Result<()> {
        self.out.clear();
        self.given = 0;
        while self.out.is_empty() {
            let Some(mut opener) = self.opener.take() else { return Ok(()) };
            let left = self.span.bytes.saturating_sub(self.next);
            if left == 0 {
                return opener.finish().map_err(|_| damaged());
            }
            let place = self.span.place.saturating_add(self.next);
            let now = Span { place, bytes: left.min(READ_BYTES) };
            let bytes = self.index.read(now).map_err(Error::other)?;
            self.next = self.next.saturating_add(now.bytes);
            opener.push(&bytes, &mut self.out).map_err(|_| damaged())?;
            self.opener = Some(opener);
        }
        Ok(())
    }

    /// Reads to the end; whether the object is whole.
    pub(crate) fn into_whole(mut self) -> bool {
        std::io::copy(&mut self, &mut std::io::sink()).is_ok()
    }
}

impl Read for Contents {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.given >= self.out.len() {
            self.fill()?;
        }
        let here = self.out.get(self.given..).unwrap_or_default();
        let now = here.len().min(buffer.len());
        for (place, byte) in buffer.iter_mut().zip(here) {
            *place = *byte;
        }
        self.given = self.given.saturating_add(now);
        Ok(now)
    }
}

impl Seek for Contents {
    /// Back to the beginning only.
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        if to != SeekFrom::Start(0) {
            return Err(Error::new(ErrorKind::Unsupported, "only the beginning can be sought"));
        }
        let opener = ObjectOpener::new(&self.keys, &self.reference).map_err(|_| damaged())?;
        if opener.object_bytes() != self.span.bytes {
            return Err(damaged());
        }
        self.opener = Some(opener);
        (self.next, self.given) = (0, 0);
        self.out.clear();
        Ok(0)
    }
}

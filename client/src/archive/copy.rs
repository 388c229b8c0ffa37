//! Copying an object from the server into an archive: verified on the way where a record says what it should be.

use super::file::Archive;
use crate::api::next_chunk;
use crate::error::{ClientError, Result};
use crate::vault::Vault;
use lockstep_client_crypto::blob::ObjectOpener;
use lockstep_client_crypto::content::BlobRef;
use lockstep_proto::api::problem::Code;
use lockstep_proto::id::BlobId;
use lockstep_proto::limits::ARCHIVE_OBJECT_BYTES_MAX;
use std::sync::atomic::Ordering;
use zeroize::Zeroizing;

/// A connection may break so often without any progress.
const TRIES_MAX: u32 = 3;

/// Copies an object; false, and nothing is written, if the server does not have it whole.
pub(super) async fn copy_object(
    archive: &mut Archive,
    vault: &Vault,
    blob: BlobId,
    reference: Option<&BlobRef>,
    progress: &mut dyn FnMut(u64),
) -> Result<bool> {
    let path = format!("/v1/vaults/{}/objects/{blob}", vault.setup.vault());
    let mut response = match vault.api().get_object(&path, 0).await {
        Ok(response) => response,
        Err(error) if matches!(error.code(), Some(Code::NotFound | Code::Range)) => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut opener = match reference {
        Some(reference) => Some(ObjectOpener::new(&vault.setup.keys, reference)?),
        None => None,
    };
    let whole = match &opener {
        Some(opener) => opener.object_bytes(),
        None => response.content_length().unwrap_or(u64::MAX),
    };
    if whole >= ARCHIVE_OBJECT_BYTES_MAX {
        return Ok(false);
    }
    let mark = archive.begin_object(blob, whole)?;
    let (mut received, mut tries) = (0_u64, 0);
    let mut out = Zeroizing::new(Vec::new());
    loop {
        let begun = received;
        while let Ok(Some(chunk)) = next_chunk(&mut response).await {
            if archive.stop.load(Ordering::Relaxed) {
                return Err(ClientError::Interrupted);
            }
            received = received.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            let fits = opener.as_mut().is_none_or(|opener| opener.push(&chunk, &mut out).is_ok());
            if received > whole || !fits {
                archive.go_back(mark)?;
                return Ok(false);
            }
            out.clear();
            archive.object_bytes(&chunk)?;
            progress(received);
        }
        if received == whole {
            break;
        }
        tries = if received > begun { 0 } else { tries + 1 };
        if tries > TRIES_MAX {
            archive.go_back(mark)?;
            return Ok(false);
        }
        response = vault.api().get_object(&path, received).await?;
    }
    if opener.is_some_and(|opener| opener.finish().is_err()) {
        archive.go_back(mark)?;
        return Ok(false);
    }
    Ok(true)
}

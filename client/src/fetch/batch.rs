//! One request of many objects.

use super::frames::{Answer, Ended, Frame};
use super::open::{alone, open};
use super::{Shared, Sink, UNIT_BYTES, Wanted};
use crate::blob::{damaged, missing};
use crate::error::ClientError;
use lockstep_proto::api::object::{FRAME_HEADER_BYTES, ObjectList};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinSet};

/// Opens what came while the next comes.
pub(super) type Jobs = JoinSet<()>;

/// What became of a request.
enum Asked {
    /// Nothing of it is left, or what is left is to be asked for anew.
    GoOn,
    /// The first that is left is fetched by itself.
    Alone,
    /// The first that is left gets this, as whatever else is asked for would.
    Failed(ClientError),
}

/// Fetches objects that travel together. Each round gives at least one: the first of what is left, which is fetched by
/// itself where an answer was of no use.
pub(super) async fn batch<S: Sink>(
    shared: &Arc<Shared<S>>,
    mut wanted: VecDeque<Wanted<S>>,
) -> Result<(), JoinError> {
    let mut jobs = Jobs::new();
    while !wanted.is_empty() {
        let asked = if wanted.len() > 1 { ask(shared, &mut wanted, &mut jobs).await } else { Asked::Alone };
        match asked {
            Asked::GoOn => {}
            Asked::Alone => {
                if let Some(first) = wanted.pop_front() {
                    alone(shared, first).await?;
                }
            }
            Asked::Failed(error) => {
                if let Some(first) = wanted.pop_front() {
                    shared.give(first.sink, Err(error));
                }
            }
        }
    }
    while let Some(job) = jobs.join_next().await {
        job?;
    }
    Ok(())
}

/// One request. What of it comes whole is handed on, and gone from what is wanted.
async fn ask<S: Sink>(shared: &Arc<Shared<S>>, wanted: &mut VecDeque<Wanted<S>>, jobs: &mut Jobs) -> Asked {
    let path = format!("/v1/vaults/{}/objects/get", shared.keys.vault());
    let list = ObjectList(wanted.iter().map(|wanted| wanted.reference.blob).collect());
    let response = match shared.api.post_for_bytes(&path, &list).await {
        Ok(response) => response,
        Err(ClientError::Refused { .. }) => return Asked::Alone,
        Err(error) => return Asked::Failed(error),
    };
    let header = u64::try_from(FRAME_HEADER_BYTES).unwrap_or(u64::MAX);
    let most = wanted.iter().fold(0_u64, |sum, one| sum.saturating_add(one.bytes).saturating_add(header));
    let mut answer = Answer::new(response, most);
    while let Some((blob, bytes)) = wanted.front().map(|first| (first.reference.blob, first.bytes)) {
        let Some(held) = hold(shared, bytes).await else { return Asked::Alone };
        let frame = answer.frame(blob, bytes).await;
        // What follows the last object says that the answer was not the one that was asked for.
        let frame = match frame {
            Ok(frame) if wanted.len() == 1 => answer.end().await.map(|()| frame),
            other => other,
        };
        if frame == Err(Ended::Broken) {
            return Asked::Alone;
        }
        let Some(Wanted { reference, sink, .. }) = wanted.pop_front() else { break };
        match frame {
            Ok(Frame::Object(object)) => open(shared, jobs, reference, object, sink, held).await,
            Ok(Frame::Missing) => shared.give(sink, Err(missing(reference.blob))),
            Err(_) => {
                shared.give(sink, Err(damaged(reference.blob)));
                return Asked::GoOn;
            }
        }
    }
    Asked::GoOn
}

/// Sets memory aside for an object.
async fn hold<S>(shared: &Shared<S>, bytes: u64) -> Option<OwnedSemaphorePermit> {
    let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()?;
    Arc::clone(&shared.held).acquire_many_owned(units).await.ok()
}

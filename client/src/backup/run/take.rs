//! Taking what was read: records are made of it, in the order in which it was found.

use super::super::group::{Group, Item, Large, Stored};
use super::super::scan::{Kind, Stat};
use super::send::Work;
use super::{BATCH_BYTES, Ready, Run};
use crate::error::{ClientError, Result};
use lockstep_client_crypto::content::BlobRef;
use lockstep_engine::files::FileDoc;

impl Run<'_> {
    /// Waits for what is under way, and records it.
    pub(super) async fn done(&mut self, work: Work) -> Result<()> {
        let failed = |_| ClientError::Damaged("a reading thread failed".into());
        match work {
            Work::Group(group, _) => {
                let group = group.await.map_err(failed)??;
                self.remember_sent(&group)?;
                for (item, stored) in group.items {
                    self.take(item, stored)?;
                }
                Ok(())
            }
            Work::Large(item, hashing) => {
                let large = hashing.await.map_err(failed)?;
                self.take_large(*item, large).await
            }
        }
    }

    /// The server has what was sealed: contents that come again are not sent again, whatever becomes of this run.
    pub(super) fn remember_sent(&mut self, group: &Group) -> Result<()> {
        let mut sent = Vec::new();
        for (_, stored) in &group.items {
            if let Ok(Stored::Sealed(_, blob, _)) = stored {
                self.progress.sent_bytes = self.progress.sent_bytes.saturating_add(blob.size);
                sent.push(blob.clone());
            }
        }
        if sent.is_empty() { Ok(()) } else { self.vault.replica.add_contents(&sent) }
    }

    fn take(&mut self, item: Item, stored: std::result::Result<Stored, String>) -> Result<()> {
        match stored {
            Err(reason) => {
                let path = self.full(&item.entry.path);
                self.outcome.unreadable.push((path, reason));
                self.count(&Kind::File, item.entry.stat.size);
            }
            Ok(Stored::Record(doc, blob, stat)) => self.take_read(&item, doc, blob, stat),
            Ok(Stored::Sealed(doc, blob, stat)) => self.take_read(&item, doc, Some(blob), stat),
            Ok(Stored::Seen(doc, hash, stat)) => match self.vault.replica.content(hash, stat.size)? {
                Some(blob) => self.take_read(&item, doc, Some(blob), stat),
                // Sealed by a group behind this one, or by none: it is read again, after those.
                None => self.again.push(Item { anew: true, ..item }),
            },
            Ok(Stored::Again(stat)) => {
                let tries = item.tries.saturating_add(1);
                let entry = super::Entry { stat, ..item.entry };
                self.again.push(Item { entry, tries, ..item });
            }
        }
        Ok(())
    }

    fn take_read(&mut self, item: &Item, doc: FileDoc, blob: Option<BlobRef>, stat: Stat) {
        self.count(&Kind::File, item.entry.stat.size);
        let is_same = item.known.as_ref().is_some_and(|known| known.doc == doc && known.blob == blob);
        let ready = Ready { doc, blob, stat, kind: Kind::File, record: item.record };
        if is_same {
            self.remember(&ready);
        } else {
            self.record(ready);
        }
    }

    async fn take_large(&mut self, item: Item, large: std::result::Result<Large, String>) -> Result<()> {
        let Large { doc, hash, known, mut file, stat } = match large {
            Ok(large) => large,
            Err(reason) => return self.take(item, Err(reason)),
        };
        let sent_before = match known {
            Some(blob) => Some(blob),
            None if item.anew => None,
            None => self.vault.replica.content(hash, stat.size)?,
        };
        if let Some(blob) = sent_before {
            self.take_read(&item, doc, Some(blob), stat);
            return Ok(());
        }
        // What waits is named before a long upload begins: the server keeps nothing for ever that no commit names.
        self.flush(true).await?;
        match self.upload(hash, &mut file, &stat, item.anew).await {
            Ok(blob) => {
                self.vault.replica.add_contents(std::slice::from_ref(&blob))?;
                self.upload_is_done(&blob)?;
                self.take_read(&item, doc, Some(blob), stat);
                // Named soon, so that it is not collected while other large files are on their way.
                self.batch_bytes = BATCH_BYTES;
                Ok(())
            }
            Err(ClientError::Io { .. } | ClientError::Usage(_)) => {
                self.take(item, Err("it changed while it was sent".into()))
            }
            Err(error) => Err(error),
        }
    }
}

//! A newer checkpoint for a kit that is there already: whoever recovers with it notices a server that went back
//! to anything older.

use super::{Kit, page, parse, text};
use crate::account::{Account, refresh_log};
use crate::error::{ClientError, Result};
use lockstep_engine::replica::Replica as _;
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::key_header::VerifiedKeyHeader;
use lockstep_proto::recovery::Checkpoint;
use zeroize::Zeroizing;

impl Account {
    /// The device log and key header as the server has them now, and where the account stands.
    async fn look_again(&self) -> Result<(Checkpoint, VerifiedKeyHeader, DeviceLog)> {
        let (log, signed) = refresh_log(self.api(), self.db(), self.keyring().device_log()).await?;
        let header = VerifiedKeyHeader::verify(self.id(), &signed)
            .map_err(|error| ClientError::Server(error.to_string()))?;
        let checkpoint = Checkpoint {
            device_log_index: log.next_index().saturating_sub(1),
            device_log_head: log.head(),
            ..self.checkpoint()?
        };
        Ok((checkpoint, header, log))
    }

    /// A kit of this account with a new checkpoint, lines or page as it was. The keyring was just synced.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if it is no kit, the kit of another account, or one whose recovery key is not in
    /// force any more; [`ClientError::Rollback`] and [`ClientError::Fork`] if its checkpoint is newer than what is
    /// seen, or of another history.
    pub async fn refreshed_kit(&self, kit: &str) -> Result<Zeroizing<String>> {
        let known = parse(kit)?;
        let (Some(account), Some(old)) = (known.account, &known.checkpoint) else {
            return Err(ClientError::Usage(
                "this is a bare recovery key and no kit: there is no checkpoint to refresh".into(),
            ));
        };
        if account != self.id() || old.account != self.id() {
            return Err(ClientError::Usage("this is the kit of another account; it is left as it is".into()));
        }
        let (checkpoint, header, log) = self.look_again().await?;
        if known.recovery.login_public() != header.header().recovery {
            return Err(ClientError::Usage(
                "the recovery key of this kit is not in force any more; a newer kit was made when the account was \
                 recovered. Destroy this one"
                    .into(),
            ));
        }
        self.check_descent(old, &log)?;
        self.write_again(&known, &checkpoint, page::is_page(kit))
    }

    /// A checkpoint is never replaced by one that does not descend from it.
    fn check_descent(&self, old: &Checkpoint, log: &DeviceLog) -> Result<()> {
        let replica = self.keyring().replica();
        let keyring = if replica.is_abandoned(old.keyring_seq, old.keyring_head)? {
            Some(old.keyring_head)
        } else {
            replica.commit_hash(old.keyring_seq)?
        };
        for (found, expected) in
            [(log.hash_at(old.device_log_index), old.device_log_head), (keyring, old.keyring_head)]
        {
            match found {
                Some(hash) if hash == expected => {}
                Some(_) => return Err(ClientError::Fork("the kit's checkpoint is of another one".into())),
                None => {
                    return Err(ClientError::Rollback(
                        "the server went back in time: it is older than the kit's checkpoint".into(),
                    ));
                }
            }
        }
        Ok(())
    }

    fn write_again(&self, known: &Kit, checkpoint: &Checkpoint, as_page: bool) -> Result<Zeroizing<String>> {
        let file = self.file();
        let identity = self.identity().to_bytes();
        let lines = text(&file.server, &file.name, &identity, &known.recovery, checkpoint);
        if as_page { page::page(&lines) } else { Ok(lines) }
    }
}

//! Contents that this device sent, by their keyed hash: the same contents are not sent again. Only what this device sent
//! itself is here: that another device's reference leads to the contents that it claims, nobody has seen (ADR 0016).

use super::VaultReplica;
use crate::error::Result;
use lockstep_client_crypto::content::BlobRef;
use lockstep_client_crypto::local::LocalKeys;
use lockstep_proto::Digest;
use lockstep_proto::cbor::{decode_local, encode};
use lockstep_proto::id::{BlobId, RecordId, SourceId, VaultId};
use rusqlite::{OptionalExtension as _, params};
use std::collections::BTreeSet;

/// By which contents are found again.
pub(crate) fn content_tag(keys: &LocalKeys, vault: VaultId, hash: Digest, size: u64) -> [u8; 16] {
    let mut value = vault.as_bytes().to_vec();
    value.extend_from_slice(hash.as_bytes());
    value.extend_from_slice(&size.to_be_bytes());
    keys.tag("content", &value)
}

/// The beginning of a tag: enough to say that contents are not there.
pub(crate) fn mark_of(tag: &[u8; 16]) -> u64 {
    let (first, _) = tag.split_at(8);
    first.try_into().map_or(0, u64::from_be_bytes)
}

fn place(vault: VaultId, tag: &[u8; 16]) -> Vec<u8> {
    let mut place = b"content".to_vec();
    place.extend_from_slice(vault.as_bytes());
    place.extend_from_slice(tag);
    place
}

impl VaultReplica {
    /// Marks of all contents that were sent.
    ///
    /// # Errors
    /// [`crate::ClientError::Database`].
    pub(crate) fn content_marks(&self) -> Result<Vec<u64>> {
        let text = "SELECT tag FROM content WHERE vault = ?1";
        let mut statement = self.db.connection().prepare_cached(text)?;
        let rows = statement.query_map([self.key], |row| Ok(mark_of(&row.get(0)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The object that holds contents, if they were sent.
    ///
    /// # Errors
    /// [`crate::ClientError::Database`].
    pub(crate) fn content(&self, hash: Digest, size: u64) -> Result<Option<BlobRef>> {
        let tag = content_tag(self.db.keys(), self.vault, hash, size);
        let text = "SELECT sealed FROM content WHERE vault = ?1 AND tag = ?2";
        let mut statement = self.db.connection().prepare_cached(text)?;
        let sealed: Option<Vec<u8>> =
            statement.query_row(params![self.key, &tag[..]], |row| row.get(0)).optional()?;
        let row = sealed.and_then(|sealed| self.db.keys().open_row(&place(self.vault, &tag), &sealed).ok());
        let reference: Option<BlobRef> = row.and_then(|row| decode_local(&row));
        Ok(reference.filter(|known| known.size == size && known.content_hash == hash))
    }

    /// Remembers objects that the server has taken.
    ///
    /// # Errors
    /// [`crate::ClientError::Database`].
    pub(crate) fn add_contents(&self, references: &[BlobRef]) -> Result<()> {
        let transaction = self.db.connection().unchecked_transaction()?;
        let mut rng = crate::rng::system();
        let text = "INSERT OR REPLACE INTO content (vault, tag, sealed) VALUES (?1, ?2, ?3)";
        for reference in references {
            let tag = content_tag(self.db.keys(), self.vault, reference.content_hash, reference.size);
            let sealed = self.db.keys().seal_row(&place(self.vault, &tag), &encode(reference), &mut rng);
            transaction.prepare_cached(text)?.execute(params![self.key, &tag[..], sealed])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Forgets objects that the server has not got any more.
    ///
    /// # Errors
    /// [`crate::ClientError::Database`].
    pub(crate) fn forget_contents(&self, blobs: &[BlobId]) -> Result<()> {
        let gone: BTreeSet<&BlobId> = blobs.iter().collect();
        let transaction = self.db.connection().unchecked_transaction()?;
        {
            let mut statement =
                transaction.prepare_cached("SELECT tag, sealed FROM content WHERE vault = ?1")?;
            let mut rows = statement.query([self.key])?;
            let mut tags = Vec::new();
            while let Some(row) = rows.next()? {
                let (tag, sealed): ([u8; 16], Vec<u8>) = (row.get(0)?, row.get(1)?);
                let opened = self.db.keys().open_row(&place(self.vault, &tag), &sealed).ok();
                let reference: Option<BlobRef> = opened.and_then(|row| decode_local(&row));
                if reference.is_none_or(|reference| gone.contains(&reference.blob)) {
                    tags.push(tag);
                }
            }
            let mut delete =
                transaction.prepare_cached("DELETE FROM content WHERE vault = ?1 AND tag = ?2")?;
            for tag in tags {
                delete.execute(params![self.key, &tag[..]])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// What files looked like when they were read last, ascending by record: rows are keyed hashes.
    ///
    /// # Errors
    /// [`crate::ClientError::Database`].
    pub(crate) fn stat_tags(&self) -> Result<Vec<(RecordId, [u8; 16])>> {
        let text = "SELECT record, sealed FROM stat WHERE vault = ?1 AND length(sealed) = 16 ORDER BY record";
        let mut statement = self.db.connection().prepare_cached(text)?;
        let rows =
            statement.query_map([self.key], |row| Ok((RecordId::from_bytes(row.get(0)?), row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Sets what files look like, together.
    ///
    /// # Errors
    /// [`crate::ClientError::Database`].
    pub(crate) fn set_stat_tags(&self, rows: &[(RecordId, [u8; 16])]) -> Result<()> {
        let transaction = self.db.connection().unchecked_transaction()?;
        let text = "INSERT OR REPLACE INTO stat (vault, record, sealed) VALUES (?1, ?2, ?3)";
        for (record, tag) in rows {
            transaction.prepare_cached(text)?.execute(params![self.key, record.as_bytes(), &tag[..]])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Records of a source's files that are there, in no order.
    ///
    /// # Errors
    /// [`crate::ClientError::Database`].
    pub(crate) fn file_ids(&self, record_type: &str, source: SourceId) -> Result<Vec<RecordId>> {
        let tag = self.db.keys().tag("type", record_type.as_bytes());
        let group = self.db.keys().tag("group", source.as_bytes());
        let text = "SELECT record FROM record
                    WHERE vault = ?1 AND tag = ?2 AND group_tag = ?3 AND kind = ?4 AND present = 1";
        let mut statement = self.db.connection().prepare_cached(text)?;
        let kind = i64::from(lockstep_proto::envelope::KIND_DOCUMENT);
        let values = params![self.key, &tag[..], &group[..], kind];
        let rows = statement.query_map(values, |row| Ok(RecordId::from_bytes(row.get(0)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

//! What waits for somebody to decide, and what was merged without asking.

use crate::documents::{Body, Document, NewDocument, kept};
use crate::error::{ClientError, Result};
use crate::replica::MergeEntry;
use crate::vault::Vault;
use lockstep_engine::replica::{Pinning, Policy, Replica as _};
use lockstep_engine::{Input, NewRecord};
use lockstep_merge::{Choice, Fields, Open, Side, Stamp, Value};
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::{DeviceId, RecordId};
use std::collections::BTreeSet;

/// Records that are looked at in one go.
const PAGE: usize = 500;

/// One of the versions between which somebody has to choose.
#[derive(Clone)]
pub struct Candidate {
    /// Who wrote it, and when.
    pub stamp: Stamp,
    /// The value; none if the field was taken out, or the document deleted.
    pub value: Option<Shown>,
    /// Whether it is this side's: written on this device, or, of a conflict copy, the one that lost.
    pub is_local: bool,
}

/// A whole document, or one value of it.
#[derive(Clone, PartialEq, Eq)]
pub enum Shown {
    /// A document.
    Document(Body),
    /// A field's value.
    Field(Value),
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Candidate({:?}, [redacted])", self.stamp)
    }
}

/// What a conflict is about.
#[derive(Clone, PartialEq, Eq)]
pub enum About {
    /// Two documents that could not become one; the record is the copy, and this the one that it was split from.
    Copy {
        /// The record as committed.
        of: RecordId,
    },
    /// Concurrent values of a field (of the whole document, if the path is empty).
    Field {
        /// From the outermost map in.
        path: Vec<String>,
    },
    /// Somebody deleted what somebody else edited.
    Deletion,
}

/// Something that waits for a decision.
#[derive(Clone)]
pub struct Conflict {
    /// The record.
    pub record: RecordId,
    /// Its type.
    pub record_type: String,
    /// Its name.
    pub name: Vec<u8>,
    /// What it is about.
    pub about: About,
    /// At least two versions.
    pub candidates: Vec<Candidate>,
}

impl std::fmt::Debug for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conflict({}, {} versions)", self.record, self.candidates.len())
    }
}

/// A decision.
#[derive(Clone)]
pub enum Keep {
    /// This side's version.
    Local,
    /// The other side's.
    Remote,
    /// Both, as two records: for conflict copies.
    Both,
    /// The version with this number, from 0.
    Number(usize),
    /// Another value, made of them.
    Merged(Option<Value>),
}

impl Conflict {
    /// The candidate that a decision means.
    fn chosen(&self, keep: &Keep) -> Result<&Candidate> {
        let only = |is_local: bool| {
            let mut found = self.candidates.iter().filter(|candidate| candidate.is_local == is_local);
            match (found.next(), found.next()) {
                (Some(one), None) => Ok(one),
                (None, _) => {
                    Err(ClientError::Usage("no version is of that side: choose one by its number".into()))
                }
                _ => Err(ClientError::Usage(
                    "more than one version is of that side: choose one by its number".into(),
                )),
            }
        };
        match keep {
            Keep::Local => only(true),
            Keep::Remote => only(false),
            Keep::Number(number) => self.candidates.get(*number).ok_or_else(|| {
                ClientError::Usage(format!("there are {} versions, from 1 on", self.candidates.len()))
            }),
            Keep::Both => Err(ClientError::Usage(
                "both stay as long as nobody decides; choose one, or give a merged value".into(),
            )),
            Keep::Merged(_) => Err(ClientError::Usage("a deletion is kept or not: choose a version".into())),
        }
    }
}

impl Vault {
    /// Everything that waits for a decision.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn conflicts(&self) -> Result<Vec<Conflict>> {
        let mut records = BTreeSet::new();
        let mut after = None;
        loop {
            let page = self.replica.maybe_open(after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.record);
            for row in page.iter().filter(|row| row.present && row.kind == KIND_DOCUMENT) {
                records.insert(row.record);
            }
        }
        // What waits for the server may wait for a decision, too.
        for row in self.replica.pending(usize::MAX)? {
            records.insert(row.record);
        }
        let mut found = Vec::new();
        for record in records {
            let document = match self.document(record) {
                Err(ClientError::NotHeld(_) | ClientError::Incomplete(_)) => continue,
                other => other?,
            };
            if let Some(document) = document {
                found.extend(self.conflicts_of(&document)?);
            } else if let Some(row) = self.replica.record(record)?
                && self.replica.db().writes()
                && self.replica.pending_of(record)?.is_empty()
            {
                self.replica.set_open(&row, false)?;
            }
        }
        Ok(found)
    }

    /// How many records wait for a decision, as far as it was looked.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn conflict_count(&self) -> Result<u64> {
        self.replica.maybe_open_count()
    }

    /// What waits in one document. Where nothing does, that is noted.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn conflicts_of(&self, document: &Document) -> Result<Vec<Conflict>> {
        let own = self.setup.device.id();
        let conflict = |about, candidates| Conflict {
            record: document.record,
            record_type: document.record_type.clone(),
            name: document.name.clone(),
            about,
            candidates,
        };
        let mut found = Vec::new();
        if let Some(of) = document.conflict_of {
            let mut candidates = vec![whole(document, true)];
            match self.document(of) {
                Ok(Some(original)) => candidates.push(whole(&original, false)),
                Ok(None) => candidates.extend(self.deletion_of(of)?),
                // It can be fetched; the copy is shown all the same.
                Err(ClientError::NotHeld(_) | ClientError::Incomplete(_)) => {}
                Err(error) => return Err(error),
            }
            found.push(conflict(About::Copy { of }, candidates));
        }
        for open in &document.open {
            found.push(match open {
                Open::Field { path, values } => {
                    let candidate = |(stamp, value): &(Stamp, Option<Value>)| Candidate {
                        stamp: *stamp,
                        value: value.clone().map(Shown::Field),
                        is_local: stamp.device == own,
                    };
                    let about = About::Field { path: path.clone() };
                    conflict(about, values.iter().map(candidate).collect())
                }
                Open::Deletion { by } => {
                    let is_local = by.device == own;
                    let deleted = Candidate { stamp: *by, value: None, is_local };
                    conflict(About::Deletion, vec![whole(document, !is_local), deleted])
                }
            });
        }
        if let Some(row) = self.replica.record(document.record)?
            && found.is_empty()
            && !document.pending
            && self.replica.db().writes()
        {
            self.replica.set_open(&row, false)?;
        }
        Ok(found)
    }

    /// A deleted record as a version.
    fn deletion_of(&self, record: RecordId) -> Result<Option<Candidate>> {
        let Some(row) = self.replica.record(record)? else { return Ok(None) };
        let opened = lockstep_engine::read::open_row(&self.replica, &self.setup.keys, &row)?;
        Ok(opened.map(|opened| Candidate {
            stamp: Stamp { hlc: opened.content.hlc, device: opened.header.device },
            value: None,
            is_local: false,
        }))
    }

    /// Decides a conflict. The decision is written like any edit, and sent by [`Self::sync`].
    ///
    /// # Errors
    /// [`ClientError`]; nothing is written then.
    pub async fn resolve(&mut self, conflict: &Conflict, keep: Keep) -> Result<()> {
        match &conflict.about {
            About::Copy { of } => self.resolve_copy(conflict, *of, keep).await,
            About::Field { path } => {
                let value = match keep {
                    Keep::Merged(value) => value,
                    keep => match &conflict.chosen(&keep)?.value {
                        Some(Shown::Field(value)) => Some(value.clone()),
                        _ => None,
                    },
                };
                let path = path.clone();
                self.drive(Input::Decide(conflict.record, Choice::Field { path, value })).await?;
                Ok(())
            }
            About::Deletion => {
                if conflict.chosen(&keep)?.value.is_some() {
                    self.drive(Input::Decide(conflict.record, Choice::KeepDocument)).await?;
                    return Ok(());
                }
                let name = conflict.name.clone();
                let deletion = deletion(&conflict.record_type, name, Policy::Merge);
                self.put(vec![deletion]).await
            }
        }
    }

    async fn resolve_copy(&mut self, conflict: &Conflict, of: RecordId, keep: Keep) -> Result<()> {
        let gone = || ClientError::NotFound("the conflict copy is not there any more".into());
        let copy = self.document(conflict.record)?.ok_or_else(gone)?;
        let policy = self.setup.policies.of(&copy.record_type);
        let knows = |schema: u64| policy.is_some_and(|policy| schema <= policy.schema());
        let drop_policy = if policy.is_some() { Policy::Merge } else { Policy::KeepBoth };
        let drop_copy = deletion(&copy.record_type, copy.name.clone(), drop_policy);
        let fields = match keep {
            // As it is, but no copy any more.
            Keep::Both => return self.put(vec![copy.as_it_is(copy.name.clone())]).await,
            Keep::Merged(Some(Value::Map(fields))) => Some(fields),
            Keep::Merged(_) => return Err(ClientError::Usage("a merged document is a map of fields".into())),
            keep if !conflict.chosen(&keep)?.is_local => return self.put(vec![drop_copy]).await,
            _ => match &copy.body {
                Body::Fields(fields) if knows(copy.schema) => Some(fields.clone()),
                _ => None,
            },
        };
        let (name, original_schema) = self.name_and_schema(of)?;
        let written = match fields {
            // What the policy does not know is passed on as it is.
            None => copy.as_it_is(name),
            Some(fields) if policy.is_none() && matches!(copy.body, Body::Bytes(_)) => {
                // The app writes JSON text and goes on reading that.
                let text = serde_json::to_vec(&fields);
                copy.with_bytes(name, text.map_err(|error| ClientError::Usage(error.to_string()))?)
            }
            Some(_) if original_schema.is_some_and(|schema| policy.is_some() && !knows(schema)) => {
                return Err(ClientError::Usage(
                    "the record was written by a newer version of the app: update this one, or keep it"
                        .into(),
                ));
            }
            Some(fields) => self.new_record(NewDocument {
                record_type: copy.record_type.clone(),
                name,
                schema: Some(original_schema.unwrap_or(0).max(copy.schema)),
                fields: Some(fields),
                blobs: copy.blobs.clone(),
                seen: None,
                expected: None,
            })?,
        };
        self.put(vec![written, drop_copy]).await
    }

    /// A record's name, and the schema of its document; none if it is deleted.
    fn name_and_schema(&self, record: RecordId) -> Result<(Vec<u8>, Option<u64>)> {
        if let Some(document) = self.document(record)? {
            return Ok((document.name, Some(document.schema)));
        }
        if let Some(last) = self.replica.pending_of(record)?.pop() {
            return Ok((kept(&last.content)?.name.0, None));
        }
        let opened = match self.replica.record(record)? {
            Some(row) => lockstep_engine::read::open_row(&self.replica, &self.setup.keys, &row)?,
            None => None,
        };
        let gone = || ClientError::NotFound("the record that the copy was split from is not held".into());
        Ok((opened.ok_or_else(gone)?.content.name.0, None))
    }

    /// Takes back what a merge decided where both sides had changed something: this side's values again as they were
    /// before it, or the other's. Written like any edit.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if it was changed since, or there is nothing to undo.
    pub async fn undo_merge(&mut self, entry: &MergeEntry, to: Side) -> Result<()> {
        let was = kept(&entry.pending)?;
        let refused = |error: lockstep_merge::UndoError| ClientError::Usage(error.to_string());
        let current = self.document(entry.record)?;
        let mut now: Option<Fields> = match current.as_ref().map(|document| &document.body) {
            Some(Body::Fields(fields)) => Some(fields.clone()),
            Some(Body::Bytes(_)) => return Err(refused(lockstep_merge::UndoError::ChangedSince)),
            None => None,
        };
        let mut clashes = entry.decisions.decisions.iter().filter(|decision| decision.is_clash()).peekable();
        if clashes.peek().is_none() {
            return Err(refused(lockstep_merge::UndoError::NothingToUndo));
        }
        for decision in clashes {
            now = decision.undo(now.as_ref(), to).map_err(refused)?;
        }
        let schema = current.as_ref().map_or(was.schema, |document| document.schema);
        let mut blobs = current.map(|document| document.blobs).unwrap_or_default();
        let bytes = now.clone().and_then(|fields| lockstep_merge::encode(fields).ok()).unwrap_or_default();
        for blob in was.blobs {
            let is_listed = blobs.iter().any(|known| known.blob == blob.blob);
            if is_listed || !lockstep_merge::names_object(&bytes, blob.blob) {
                continue;
            }
            // The server may have forgotten what no commit named.
            if !self.holds(blob.blob) {
                return Err(ClientError::NotFound(format!(
                    "object {} of the version before the merge is not on this device any more",
                    blob.blob
                )));
            }
            blobs.push(blob);
        }
        let new = NewDocument {
            record_type: was.record_type,
            name: was.name.0,
            schema: Some(schema),
            fields: now,
            blobs,
            seen: None,
            expected: None,
        };
        self.put_documents(vec![new]).await
    }

    /// Merges that this device did, the newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn merges(&self) -> Result<Vec<MergeEntry>> {
        self.replica.merges()
    }

    /// This device.
    pub fn device_id(&self) -> DeviceId {
        self.setup.device.id()
    }
}

fn whole(document: &Document, is_local: bool) -> Candidate {
    let value = Some(Shown::Document(document.body.clone()));
    Candidate { stamp: document.stamp, value, is_local }
}

fn deletion(record_type: &str, name: Vec<u8>, policy: Policy) -> NewRecord {
    NewRecord {
        record_type: record_type.to_owned(),
        name,
        schema: 1,
        document: None,
        blobs: Vec::new(),
        policy,
        pin: Pinning::None,
        expected: None,
    }
}

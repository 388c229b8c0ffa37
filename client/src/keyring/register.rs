//! What the keyring says of vaults, read once: opening thousands of records for each of a thousand vaults would be an
//! hour's work. It is read again when the keyring, the keys or the device log changed.

use super::keys::{HeldKey, key_doc};
use super::{DEFAULT_VAULT, Result};
use crate::account::Account;
use lockstep_client_crypto::content::Content;
use lockstep_engine::keyring::{VAULT_KEY_TYPE, VAULT_TYPE, VaultDoc, VaultKeyDoc};
use lockstep_engine::read;
use lockstep_engine::replica::Replica as _;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::{Epoch, Seq, VaultId};
use lockstep_proto::vault_log::files_vault_id;
use lockstep_proto::{Digest, chain, limits};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The keyring's vaults.
#[derive(Default)]
pub(super) struct Register {
    /// Every key that a first version holds, whatever birth it names, and those of this device's own that wait.
    pub(super) keys: BTreeMap<VaultId, Vec<HeldKey>>,
    /// Vaults that were deleted, and what they were called.
    pub(super) deleted: BTreeMap<VaultId, String>,
    /// Vaults that a device of the account gave birth to and that were not deleted, and what they are called.
    pub(super) vaults: BTreeMap<VaultId, String>,
}

/// Where keys of vaults, and claims to a name, stand in the keyring's chain.
#[derive(Default)]
struct Places {
    /// Of each vault its first key.
    first: BTreeMap<VaultId, Seq>,
    claims: Vec<(Seq, VaultDoc)>,
}

/// What the register was read from.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    head: Option<Digest>,
    held: (i64, i64, i64),
    log: u64,
    keys: Epoch,
}

/// The register, once it was read.
#[derive(Default)]
pub(crate) struct Cache(RefCell<Option<(Stamp, Rc<Register>)>>);

impl Cache {
    /// It is read again when it is needed.
    pub(super) fn forget(&self) {
        self.0.take();
    }
}

impl Account {
    /// What the keyring says of vaults.
    pub(super) fn register(&self) -> Result<Rc<Register>> {
        let replica = &self.keyring.replica;
        let stamp = Stamp {
            head: replica.head()?.map(|head| head.tip.hash),
            held: replica.counts()?,
            log: self.keyring.device_log().next_index(),
            keys: self.names.epoch(),
        };
        if let Some((known, register)) = &*self.register.0.borrow()
            && *known == stamp
        {
            return Ok(Rc::clone(register));
        }
        let register = Rc::new(self.read_register()?);
        self.register.0.replace(Some((stamp, Rc::clone(&register))));
        Ok(register)
    }

    fn read_register(&self) -> Result<Register> {
        let mut register = Register::default();
        let mut places = Places::default();
        self.read_keys(&mut register, &mut places)?;
        self.read_names(&mut register, &mut places)?;
        let mut ids: Vec<(Seq, VaultId)> = places.first.iter().map(|(id, seq)| (*seq, *id)).collect();
        ids.sort_unstable();
        let own = self.keyring.setup.vault();
        for (_, id) in ids {
            if id != own && !register.deleted.contains_key(&id) && self.is_vault(&register, id) {
                register.vaults.insert(id, id.to_string());
            }
            // A device can make up any number: those that were there first count.
            if register.vaults.len() >= limits::VAULTS_MAX {
                break;
            }
        }
        self.name(&mut register, places.claims);
        Ok(register)
    }

    fn read_keys(&self, register: &mut Register, places: &mut Places) -> Result<()> {
        let keyring = &self.keyring;
        for row in self.once_rows(VAULT_KEY_TYPE)? {
            if let Some(bytes) = self.first_envelope(&row)? {
                let Some(key) = self.key_in(&bytes) else { continue };
                if key.doc.epoch == Epoch::new(1) {
                    let seq = self.first_version(row.record)?.map_or(row.seq, |version| version.seq);
                    places.first.insert(key.doc.vault, seq);
                }
                register.keys.entry(key.doc.vault).or_default().push(key);
            } else if let Some(content) = read::open(&keyring.replica, &keyring.setup.keys, &row)?
                && let Some((id, epoch)) = content.name.0.split_first_chunk::<16>()
                && content.record_type == VAULT_KEY_TYPE
                && *epoch == Epoch::new(1).value().to_be_bytes()
            {
                // It may be a vault: its key was written over, and is fetched when it is opened.
                places.first.insert(VaultId::from_bytes(*id), row.seq);
            }
        }
        // Keys of this device's own that wait for the server.
        for row in keyring.replica.pending(usize::MAX)? {
            let Some(doc) = Content::decode(&row.content).ok().and_then(|content| key_doc(&content)) else {
                continue;
            };
            let held = register.keys.entry(doc.vault).or_default();
            if held.iter().all(|key| key.doc.epoch != doc.epoch) {
                if doc.epoch == Epoch::new(1) {
                    places.first.insert(doc.vault, Seq::new(i64::MAX.unsigned_abs()));
                }
                held.push(HeldKey { doc, sealed_in: Epoch::new(0) });
            }
        }
        Ok(())
    }

    /// Whether a device of the account signed the birth that a vault's first key says. One whose first key is not here
    /// may be a vault.
    fn is_vault(&self, register: &Register, vault: VaultId) -> bool {
        let keys = register.keys.get(&vault).map_or(&[][..], Vec::as_slice);
        let first = keys.iter().find(|key| key.doc.epoch == Epoch::new(1));
        first.is_none_or(|first| self.is_born(&first.doc))
    }

    fn is_born(&self, doc: &VaultKeyDoc) -> bool {
        let log = &**self.keyring.device_log();
        chain::verify_birth(doc.vault, self.id(), log.identity(), log, &doc.create, &doc.genesis).is_ok()
    }

    fn read_names(&self, register: &mut Register, places: &mut Places) -> Result<()> {
        let (account, identity) = (self.id(), self.identity());
        let keyring = &self.keyring;
        for row in self.once_rows(VAULT_TYPE)? {
            let first = self.first_envelope(&row)?.and_then(|bytes| keyring.setup.keys.open(&bytes).ok());
            let first = first.and_then(|opened| name_doc(&opened.content));
            let newest = read::open(&keyring.replica, &keyring.setup.keys, &row)?;
            let newest = newest.and_then(|content| name_doc(&content));
            let Some(vault) = first.as_ref().or(newest.as_ref()).map(|doc| doc.vault) else { continue };
            let says =
                |doc: &Option<VaultDoc>| doc.as_ref().is_some_and(|doc| doc.is_deleted(account, identity));
            if says(&newest) || says(&first) || self.is_known_deleted(vault)? {
                let name = first.or(newest).map(|doc| doc.name).unwrap_or_default();
                register.deleted.insert(vault, name);
            } else if let Some(doc) = first {
                let seq = self.first_version(row.record)?.map_or(row.seq, |version| version.seq);
                places.claims.push((seq, doc));
            }
        }
        Ok(())
    }

    /// The default vault has its name, whatever the keyring says; of the others that claim a name the one that claimed
    /// it first. Who has none is called by its id.
    fn name(&self, register: &mut Register, mut claims: Vec<(Seq, VaultDoc)>) {
        let default = files_vault_id(&self.identity().to_bytes());
        let mut taken = BTreeSet::new();
        if let Some(name) = register.vaults.get_mut(&default) {
            DEFAULT_VAULT.clone_into(name);
            taken.insert(DEFAULT_VAULT.to_owned());
        }
        claims.sort_by_key(|(seq, doc)| (*seq, doc.vault));
        for (_, doc) in claims {
            let Some(name) = register.vaults.get_mut(&doc.vault).filter(|_| doc.vault != default) else {
                continue;
            };
            if doc.name.parse::<VaultId>().is_err() && taken.insert(doc.name.clone()) {
                *name = doc.name;
            }
        }
    }
}

/// The name of a vault that a record holds, if it does.
fn name_doc(content: &Content) -> Option<VaultDoc> {
    let doc = VaultDoc::decode(&content.document.0).ok()?;
    (content.record_type == VAULT_TYPE && content.name.0 == doc.vault.as_bytes()).then_some(doc)
}

//! Lies about commits and about what there is: what is hidden, added, replayed, rolled back, and every field that the
//! server can see.

use super::{At, Scenario};
use crate::hostile::http::Answer;
use crate::hostile::rule::{Reply, Route, Rule};
use lockstep_proto::Digest;
use lockstep_proto::api::vault::{Entries, Entry, History, Page, VaultInfo, Vaults};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Commit;
use lockstep_proto::id::{RecordId, Revision, Seq, VaultId};
use lockstep_proto::label;
use std::collections::BTreeMap;

const COMMITS: &str = "GET /v1/vaults/{}/commits";

/// Fields that the scenario `metadata` changes, by their number there.
pub const METADATA: [&str; 11] = [
    "seq of an entry",
    "record of an entry",
    "revision of an entry",
    "kind of an entry",
    "head of a page",
    "whether a page is the last",
    "change list of a commit",
    "seq in the list of vaults",
    "head in the list of vaults",
    "records in the list of vaults",
    "id in the list of vaults",
];

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "unknown-vault",
        row: 2,
        does: "lists a vault that no device made",
        must: "neither read it nor write to it",
        rules: |_| {
            vec![Rule::answer_of::<Vaults>("unknown-vault", "GET /v1/vaults", |_, vaults| {
                vaults.0.push(VaultInfo {
                    vault: VaultId::from_bytes([7; 16]),
                    seq: Seq::new(3),
                    head: Digest::from_bytes([7; 32]),
                    records: 2,
                });
                vaults.0.sort_by_key(|info| info.vault);
                true
            })]
        },
    },
    Scenario {
        name: "record-added",
        row: 10,
        does: "adds an entry to every answer that has some: a record that no commit announces",
        must: "refuse the answer; the record is never listed",
        rules: |at| {
            of_entries("record-added", at, |entries| {
                let Some(model) = entries.last().cloned() else { return false };
                entries.push(Entry { record: RecordId::from_bytes([0xff; 16]), ..model });
                true
            })
        },
    },
    Scenario {
        name: "commit-of-the-server",
        row: 10,
        does: "adds a commit to every page, signed with a key of its own in a device's name",
        must: "refuse the page: the signature is no device's",
        rules: |at| {
            vec![of_page("commit-of-the-server", at, |page| {
                let Some(last) = page.commits.last() else { return false };
                let mut next = last.clone();
                let mut commit = Commit::decode(&last.commit.bytes.0).unwrap();
                commit.seq = commit.seq.next();
                commit.previous = Commit::hash_of(&last.commit.bytes.0);
                next.commit = super::keys::own_keys().sign(label::COMMIT, commit.encode());
                page.commits.push(next);
                page.head_seq = page.head_seq.next();
                true
            })]
        },
    },
    Scenario {
        name: "commit-replayed",
        row: 10,
        does: "sends the last commit of a page once more, as the next one",
        must: "refuse the page",
        rules: |at| {
            vec![of_page("commit-replayed", at, |page| {
                let Some(last) = page.commits.last().cloned() else { return false };
                page.commits.push(last);
                page.head_seq = page.head_seq.next();
                true
            })]
        },
    },
    Scenario {
        name: "metadata",
        row: 11,
        does: "changes one field that the server writes itself: of an entry the seq, record, revision, kind (at = 0 to \
               3), of a page the head, whether there is more (4, 5), a commit's change list (6), of the list of vaults \
               the seq, head, number of records, id (7 to 10)",
        must: "refuse, or show exactly what is shown without it",
        rules: |at| metadata(at),
    },
    Scenario {
        name: "old-vault",
        row: 12,
        does: "answers as it did when it was asked first for a vault: list, commits",
        must: "`Rollback`",
        rules: |at| old_vault(at),
    },
    Scenario {
        name: "record-hidden",
        row: 14,
        does: "leaves a record's entry out of every answer",
        must: "`Incomplete`; nothing of the round is kept",
        rules: |at| {
            let only = at.record.clone();
            of_entries("record-hidden", at, move |entries| {
                let before = entries.len();
                match &only {
                    Some(record) => entries.retain(|entry| entry.record.to_string() != *record),
                    None => {
                        entries.pop();
                    }
                }
                entries.len() < before
            })
        },
    },
    Scenario {
        name: "commits-hidden",
        row: 14,
        does: "hides every commit of a vault after the first `at` + 1, and lists it as if there were no more",
        must: "show how old the newest commit is that it verified; `Rollback` as soon as a pin or a head that was \
               verified says that there are more",
        rules: |at| commits_hidden(at),
    },
];

/// A rule about pages of commits, of one vault if the scenario says so.
pub(super) fn of_page(
    name: &str,
    at: &At,
    mut change: impl FnMut(&mut Page) -> bool + Send + 'static,
) -> Rule {
    let (at, route) = (at.clone(), Route::new(COMMITS));
    Rule::answer_of::<Page>(name, COMMITS, move |request, page| {
        at.is_vault(route.parts(request).unwrap()[0]) && change(page)
    })
}

/// Rules about entries, wherever an answer has some.
pub(super) fn of_entries(
    name: &'static str,
    at: &At,
    change: impl FnMut(&mut Vec<Entry>) -> bool + Send + 'static,
) -> Vec<Rule> {
    let change = std::sync::Arc::new(std::sync::Mutex::new(change));
    let mut rules = Vec::new();
    let shared = std::sync::Arc::clone(&change);
    rules.push(of_page(name, at, move |page| shared.lock().unwrap()(&mut page.entries)));
    for route in ["GET /v1/vaults/{}/state", "POST /v1/vaults/{}/envelopes/get"] {
        let (at, shape) = (at.clone(), Route::new(route));
        let shared = std::sync::Arc::clone(&change);
        rules.push(Rule::answer_of::<Entries>(name, route, move |request, page| {
            at.is_vault(shape.parts(request).unwrap()[0]) && shared.lock().unwrap()(&mut page.entries)
        }));
    }
    let route = "GET /v1/vaults/{}/records/{}/history";
    rules.push(Rule::answer_of::<History>(name, route, move |_, page| change.lock().unwrap()(&mut page.0)));
    rules
}

fn metadata(at: &At) -> Vec<Rule> {
    let number = at.at;
    let name = "metadata";
    match number {
        0..=3 => of_entries(name, at, move |entries| {
            let Some(entry) = entries.last_mut() else { return false };
            match number {
                0 => entry.seq = entry.seq.next(),
                1 => entry.record = RecordId::from_bytes([0xff; 16]),
                2 => entry.revision = Revision::new(entry.revision.value() + 1),
                _ => entry.kind = 3 - entry.kind,
            }
            true
        }),
        4..=6 => vec![of_page(name, at, move |page| {
            if page.commits.is_empty() {
                return false;
            }
            match number {
                4 => page.head_seq = page.head_seq.next(),
                5 => page.more = !page.more,
                _ => page.commits.last_mut().unwrap().changes = None,
            }
            true
        })],
        _ => {
            let only = at.clone();
            vec![Rule::answer_of::<Vaults>(name, "GET /v1/vaults", move |_, vaults| {
                let mut of_it = vaults.0.iter_mut().filter(|info| only.is_vault(&info.vault.to_string()));
                let Some(info) = of_it.next_back() else { return false };
                match number {
                    7 => info.seq = info.seq.next(),
                    8 => info.head = Digest::from_bytes([7; 32]),
                    9 => info.records += 1,
                    _ => info.vault = VaultId::from_bytes([0xff; 16]),
                }
                vaults.0.sort_by_key(|info| info.vault);
                true
            })]
        }
    }
}

/// Serves the list's entry, and every page, as it was when it was seen first.
fn old_vault(at: &At) -> Vec<Rule> {
    let (only, mut listed) = (at.clone(), BTreeMap::new());
    let list = Rule::answer_of::<Vaults>("old-vault", "GET /v1/vaults", move |_, vaults| {
        let mut is_changed = false;
        for info in &mut vaults.0 {
            if only.is_vault(&info.vault.to_string()) {
                let old = listed.entry(info.vault).or_insert_with(|| info.clone());
                is_changed |= old != info;
                *info = old.clone();
            }
        }
        is_changed
    });
    let (only, route) = (at.clone(), Route::new(COMMITS));
    let mut seen: BTreeMap<String, Answer> = BTreeMap::new();
    let pages = Rule::after("old-vault", move |request, answer| {
        let vault = route.parts(request)?[0].to_owned();
        if !only.is_vault(&vault) || !answer.is_success() {
            return None;
        }
        let old = seen.entry(request.path.clone()).or_insert_with(|| answer.clone());
        (old != answer).then(|| Reply::Answer(old.clone()))
    });
    vec![list, pages]
}

/// A page as it was before the commits after a seq came.
fn truncate(page: &mut Page, last: Seq) -> bool {
    if page.head_seq <= last {
        return false;
    }
    page.commits.retain(|entry| Commit::decode(&entry.commit.bytes.0).unwrap().seq <= last);
    page.entries.retain(|entry| entry.seq <= last);
    page.head_seq = last;
    page.more = false;
    true
}

fn commits_hidden(at: &At) -> Vec<Rule> {
    let last = Seq::new(at.at);
    // The hash of the last commit that is shown, as far as it was seen.
    let hashes = std::sync::Arc::new(std::sync::Mutex::new(BTreeMap::<VaultId, Digest>::new()));
    let (only, known) = (at.clone(), std::sync::Arc::clone(&hashes));
    let list = Rule::answer_of::<Vaults>("commits-hidden", "GET /v1/vaults", move |_, vaults| {
        let mut is_changed = false;
        for info in &mut vaults.0 {
            if only.is_vault(&info.vault.to_string()) && info.seq > last {
                info.seq = last;
                info.head =
                    known.lock().unwrap().get(&info.vault).copied().unwrap_or(Digest::from_bytes([7; 32]));
                is_changed = true;
            }
        }
        is_changed
    });
    let pages = of_page("commits-hidden", at, move |page| {
        for entry in &page.commits {
            let commit = Commit::decode(&entry.commit.bytes.0).unwrap();
            if commit.seq == last {
                hashes.lock().unwrap().insert(commit.vault, Commit::hash_of(&entry.commit.bytes.0));
            }
        }
        truncate(page, last)
    });
    vec![list, pages]
}

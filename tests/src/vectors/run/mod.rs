//! What each `op` of the vectors does with its inputs, by the very functions that clients and server use.

mod account;
mod archive;
mod basic;
pub mod chain;
pub mod object;
mod record;
mod wire;
pub(crate) use wire::BODIES;

use super::{Fault, In};
use lockstep_proto::label::{self, Label};
use serde_json::{Map, Value};

/// Does `op`.
///
/// # Errors
/// [`Fault`]: the inputs are refused.
pub fn run(op: &str, input: &Map<String, Value>) -> Result<Value, Fault> {
    let input = In(input);
    match op {
        "hash" => basic::hash(input),
        "kdf" => basic::kdf(input),
        "sign" => basic::sign(input),
        "verify" => basic::verify(input),
        "seal" => basic::seal(input),
        "open" => basic::open(input),
        "pad" => basic::pad(input),
        "skip" => basic::skip(input),
        "ids" => basic::ids(input),
        "fingerprint" => basic::fingerprint(input),
        "recovery-text" => basic::recovery_text(input),
        "checkpoint" => basic::checkpoint(input),
        "passphrase-kek" => account::passphrase_kek(input),
        "recovery-kek" => account::recovery_kek(input),
        "wrap" => account::wrap(input),
        "key-header" => account::key_header(input),
        "unlock" => account::unlock(input),
        "device-seal" => account::device_seal(input),
        "device-log" => account::device_log(input),
        "device-log-entry" => account::device_log_entry(input),
        "device-name" => account::device_name(input),
        "statement" => account::statement(input),
        "action" => account::action(input),
        "vault-secrets" => record::vault_secrets(input),
        "record-id" => record::record_id(input),
        "envelope" => record::envelope(input),
        "vault-log-entry" => record::vault_log_entry(input),
        "commit" => record::commit(input),
        "changes" => record::changes(input),
        "state" => record::state(input),
        "repair" => record::repair(input),
        "vault-deletion" => record::vault_deletion(input),
        "chain" => chain::chain(input),
        "parted" => chain::parted(input),
        "object" => object::object(input),
        "object-digest" => object::object_digest(input),
        "archive" => archive::archive(input),
        "opaque" => wire::opaque(input),
        "decode" => wire::decode(input),
        _ => panic!("no op {op}"),
    }
}

/// The registered label of a text.
pub fn label_of(text: &str) -> Label {
    label::ALL
        .iter()
        .copied()
        .find(|label| label.as_str() == text)
        .unwrap_or_else(|| panic!("no label {text}"))
}

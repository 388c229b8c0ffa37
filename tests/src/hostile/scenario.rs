//! Lies that have a name, each for a row of the attack catalogue: what the server does, and what a client must do.

pub mod chain;
pub mod envelope;
pub mod keys;
pub mod object;

use super::rule::Rule;

/// What a scenario can be told.
#[derive(Debug, Clone, Default)]
pub struct At {
    /// Which of many: a byte, a pair, a field.
    pub at: u64,
    /// One vault only, by the text of its id.
    pub vault: Option<String>,
    /// One record only, by the text of its id.
    pub record: Option<String>,
}

impl At {
    /// The one with this number.
    pub fn number(at: u64) -> Self {
        Self { at, ..Self::default() }
    }

    /// One record.
    pub fn record(record: &str) -> Self {
        Self { record: Some(record.to_owned()), ..Self::default() }
    }

    pub(super) fn is_vault(&self, vault: &str) -> bool {
        self.vault.as_ref().is_none_or(|only| only == vault)
    }
}

/// A lie with a name.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Row of the attack catalogue.
    pub row: u8,
    /// What the server does.
    pub does: &'static str,
    /// What the client must do.
    pub must: &'static str,
    /// The rules.
    pub rules: fn(&At) -> Vec<Rule>,
}

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    [keys::SCENARIOS, chain::SCENARIOS, envelope::SCENARIOS, object::SCENARIOS].concat()
}

/// A scenario by its name.
pub fn find(name: &str) -> Option<Scenario> {
    all().into_iter().find(|one| one.name == name)
}

/// The rules of a scenario.
///
/// # Panics
/// If there is none of this name.
pub fn rules(name: &str, at: &At) -> Vec<Rule> {
    (find(name).unwrap_or_else(|| panic!("there is no scenario {name}")).rules)(at)
}

/// The number as an index below a length.
pub(super) fn index(at: u64, len: usize) -> usize {
    usize::try_from(at).unwrap() % len.max(1)
}

//! Merging from outside: policies as files, each rule by example, promises by generated edits, the apps' own data.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod common;
mod companions;
mod deletions;
mod notes;
mod objects;
mod policies;
mod properties;
mod records;
mod rules;
mod schedule;
mod schemas;

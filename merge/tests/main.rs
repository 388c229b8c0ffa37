//! Merging from outside.

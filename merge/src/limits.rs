//! Every maximum of merging, with its unit.

use lockstep_proto::limits::KIB;

/// One document, with what merging notes in it.
pub const DOCUMENT_BYTES_MAX: usize = 900 * KIB;
/// Lists and maps inside each other in one document.
pub const DEPTH_MAX: usize = 24;
/// Values in one document, those inside lists and maps counted.
pub const VALUES_MAX: usize = 65_536;
/// Bytes of a key in a document's maps.
pub const KEY_BYTES_MAX: usize = 256;
/// Concurrent values that one field holds at once, and concurrent additions of one element of a set.
pub const SIBLINGS_MAX: usize = 16;
/// One policy file.
pub const POLICY_BYTES_MAX: usize = 256 * KIB;
/// Record types in one policy file.
pub const TYPES_MAX: usize = 256;
/// Fields that one map of a policy names.
pub const FIELDS_MAX: usize = 1024;
/// `three-way` policies inside each other.
pub const POLICY_DEPTH_MAX: usize = 4;
/// Words in the `order` of `max` or `min`.
pub const ORDER_MAX: usize = 64;
/// One merge record.
pub const RECORD_BYTES_MAX: usize = 4 * 1024 * KIB;
/// Cells of the table by which two texts are compared; what is larger counts as replaced as a whole.
pub(crate) const TEXT_CELLS_MAX: usize = 1 << 20;

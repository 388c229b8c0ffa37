//! What a log may show of rows: nothing of what is in them, and no names or keys.

use super::{HostChange, HostKey, HostWrite, Page, Unresolved};
use std::fmt::{Debug, Formatter, Result};

impl Debug for HostKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("HostKey([redacted])")
    }
}

impl Debug for HostWrite {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let kind = if self.document.is_some() { "edit" } else { "deletion" };
        write!(f, "HostWrite({kind}, [redacted])")
    }
}

impl Debug for HostChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let kind = if self.document.is_some() { "edit" } else { "deletion" };
        let (is_new, unresolved) = (self.key.is_none(), self.unresolved.len());
        write!(f, "HostChange({kind}, new {is_new}, {unresolved} unresolved, [redacted])")
    }
}

impl Debug for Unresolved {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("Unresolved([redacted])")
    }
}

impl Debug for Page {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "Page({} changes, [redacted])", self.changes.len())
    }
}

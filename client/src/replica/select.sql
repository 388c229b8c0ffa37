-- What of a vault is held here, sealed under a key of this device; null is everything.
ALTER TABLE vault ADD COLUMN keep BLOB;
-- Whether the envelope was let go of on purpose.
ALTER TABLE record ADD COLUMN evicted INTEGER NOT NULL DEFAULT 0;
-- A record is looked at once what is held begins at this time or later: 0 is at once, null never.
ALTER TABLE record ADD COLUMN due INTEGER;
CREATE INDEX record_due ON record (vault, due) WHERE due IS NOT NULL;
CREATE INDEX record_evicted ON record (vault, tag, record) WHERE evicted = 1;
DROP INDEX IF EXISTS record_absent;
CREATE INDEX record_missing ON record (vault, seq, record) WHERE present = 0 AND evicted = 0;
-- Whether the envelope of a version that no longer counts was not held when it was given up.
ALTER TABLE shelved ADD COLUMN evicted INTEGER NOT NULL DEFAULT 0;

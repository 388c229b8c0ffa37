-- What a pending write grew from, sealed under a key of this device.
ALTER TABLE pending ADD COLUMN grew BLOB;
-- Whether somebody has to decide; null where it was not looked at since the policies changed.
ALTER TABLE record ADD COLUMN conflict INTEGER;
ALTER TABLE staged ADD COLUMN conflict INTEGER;
CREATE INDEX record_conflict ON record (vault, record) WHERE conflict IS NOT 0;
-- What automatic merges decided, the newest thousand of a vault. Sealed under a key of this device.
CREATE TABLE merge (
    id     INTEGER NOT NULL PRIMARY KEY,
    vault  INTEGER NOT NULL,
    entry  BLOB NOT NULL,
    sealed BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX merge_entry ON merge (vault, entry);
-- Merge policies of the app that runs here, which go before those of the vault. Sealed under a key of this device.
ALTER TABLE vault ADD COLUMN policies BLOB;

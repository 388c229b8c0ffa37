-- Host stores: databases of an app's own whose rows are records of a vault. What is sealed is under a key of this
-- device, tags are keyed by it.
CREATE TABLE host_store (
    id       INTEGER NOT NULL PRIMARY KEY,
    vault    INTEGER NOT NULL,
    tag      BLOB NOT NULL,
    seq      INTEGER,           -- the last commit whose changes were acknowledged, and its hash
    hash     BLOB,
    imported INTEGER NOT NULL,  -- 0 not begun, 1 begun, 2 done
    UNIQUE (vault, tag)
) STRICT;

-- Which row of the store is which record, and what the store knows of it.
CREATE TABLE host_row (
    id      INTEGER NOT NULL PRIMARY KEY,
    vault   INTEGER NOT NULL,
    store   INTEGER NOT NULL,
    record  BLOB NOT NULL,
    key_tag BLOB,               -- of type and key in the store
    owed    INTEGER NOT NULL,   -- 1: it was delivered without a reference that had no key yet
    sealed  BLOB NOT NULL,
    UNIQUE (store, record)
) STRICT;
CREATE UNIQUE INDEX host_row_key ON host_row (store, key_tag) WHERE key_tag IS NOT NULL;
CREATE INDEX host_row_owed ON host_row (store) WHERE owed = 1;

-- Changes that were handed in.
CREATE TABLE host_change (
    vault INTEGER NOT NULL,
    store INTEGER NOT NULL,
    tag   BLOB NOT NULL,
    PRIMARY KEY (store, tag)
) STRICT, WITHOUT ROWID;

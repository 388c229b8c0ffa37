CREATE TABLE IF NOT EXISTS meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS device_log (
    position  INTEGER NOT NULL PRIMARY KEY,
    bytes     BLOB NOT NULL,
    signature BLOB NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS vault (
    id        INTEGER NOT NULL PRIMARY KEY,
    vault     BLOB NOT NULL UNIQUE,
    create_bytes     BLOB NOT NULL,
    create_signature BLOB NOT NULL,
    tip       BLOB,
    state     BLOB,
    clock_ms      INTEGER NOT NULL DEFAULT 0,
    clock_counter INTEGER NOT NULL DEFAULT 0,
    in_flight BLOB
) STRICT;

CREATE TABLE IF NOT EXISTS commit_row (
    vault     INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    hash      BLOB NOT NULL,
    bytes     BLOB NOT NULL,
    signature BLOB NOT NULL,
    changes   BLOB NOT NULL,
    PRIMARY KEY (vault, seq)
) STRICT;

CREATE TABLE IF NOT EXISTS version (
    vault        INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    record       BLOB NOT NULL,
    revision     INTEGER NOT NULL,
    digest       BLOB NOT NULL,
    kind         INTEGER NOT NULL,
    previous_seq INTEGER,
    PRIMARY KEY (vault, seq, record)
) STRICT, WITHOUT ROWID;

-- tag and group_tag are keyed hashes under a key of this device.
CREATE TABLE IF NOT EXISTS record (
    id        INTEGER NOT NULL PRIMARY KEY,
    vault     INTEGER NOT NULL,
    record    BLOB NOT NULL,
    revision  INTEGER NOT NULL,
    digest    BLOB NOT NULL,
    seq       INTEGER NOT NULL,
    kind      INTEGER NOT NULL,
    present   INTEGER NOT NULL,
    tag       BLOB,
    group_tag BLOB,
    quarantined INTEGER NOT NULL,
    envelope  BLOB
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS record_place ON record (vault, record);
CREATE INDEX IF NOT EXISTS record_tag ON record (vault, tag, group_tag);
CREATE INDEX IF NOT EXISTS record_absent ON record (vault) WHERE present = 0;

CREATE TABLE IF NOT EXISTS staged (
    vault     INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    record    BLOB NOT NULL,
    tag       BLOB,
    group_tag BLOB,
    envelope  BLOB NOT NULL,
    PRIMARY KEY (vault, record)
) STRICT;

-- content is sealed under a key of this device.
CREATE TABLE IF NOT EXISTS pending (
    id        INTEGER NOT NULL PRIMARY KEY,
    vault     INTEGER NOT NULL,
    operation BLOB NOT NULL,
    record    BLOB NOT NULL,
    kind      INTEGER NOT NULL,
    base_revision  INTEGER,
    base_operation BLOB,
    policy    INTEGER NOT NULL,
    pin       INTEGER NOT NULL,
    content   BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS pending_operation ON pending (vault, operation);
CREATE INDEX IF NOT EXISTS pending_record ON pending (vault, record);

-- What files looked like when they were last read; sealed.
CREATE TABLE IF NOT EXISTS stat (
    vault    INTEGER NOT NULL,
    record   BLOB NOT NULL,
    sealed   BLOB NOT NULL,
    PRIMARY KEY (vault, record)
) STRICT, WITHOUT ROWID;

-- Uploads of large objects that have begun; sealed.
CREATE TABLE IF NOT EXISTS upload (
    vault  INTEGER NOT NULL,
    record BLOB NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (vault, record)
) STRICT, WITHOUT ROWID;

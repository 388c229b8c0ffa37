-- Everything here is public structure or ciphertext. Ids are 16 bytes, digests 32, times seconds since 1970.

CREATE TABLE secret (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE account (
    id                   BLOB NOT NULL PRIMARY KEY,
    name                 TEXT NOT NULL UNIQUE,
    recovery             BLOB NOT NULL,
    credential           BLOB NOT NULL,
    opaque_record        BLOB NOT NULL,
    key_header           BLOB NOT NULL,
    key_header_signature BLOB NOT NULL,
    log_length           INTEGER NOT NULL,
    log_head             BLOB NOT NULL,
    created_utc          INTEGER NOT NULL
) STRICT;

CREATE TABLE device_log (
    account   BLOB NOT NULL,
    position  INTEGER NOT NULL,
    bytes     BLOB NOT NULL,
    signature BLOB NOT NULL,
    hash      BLOB NOT NULL,
    PRIMARY KEY (account, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE device (
    account     BLOB NOT NULL,
    device      BLOB NOT NULL,
    sign_key    BLOB NOT NULL,
    enrolled_at INTEGER NOT NULL,
    PRIMARY KEY (account, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
    token_hash  BLOB NOT NULL PRIMARY KEY,
    account     BLOB NOT NULL,
    device      BLOB NOT NULL,
    kind        INTEGER NOT NULL,
    expires_utc INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX session_expiry ON session (expires_utc);

CREATE TABLE challenge (
    id          BLOB NOT NULL PRIMARY KEY,
    kind        INTEGER NOT NULL,
    account     BLOB NOT NULL,
    data        BLOB NOT NULL,
    expires_utc INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX challenge_expiry ON challenge (expires_utc);

CREATE TABLE invite (
    code_hash   BLOB NOT NULL PRIMARY KEY,
    expires_utc INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE vault (
    id               INTEGER NOT NULL PRIMARY KEY,
    account          BLOB NOT NULL,
    vault            BLOB NOT NULL,
    seq              INTEGER NOT NULL,
    head             BLOB NOT NULL,
    epoch            INTEGER NOT NULL,
    device_log_index INTEGER NOT NULL,
    log_index        INTEGER NOT NULL,
    log_head         BLOB NOT NULL,
    state            BLOB NOT NULL,
    records          INTEGER NOT NULL,
    UNIQUE (account, vault)
) STRICT;

CREATE TABLE vault_log (
    vault     INTEGER NOT NULL REFERENCES vault (id),
    position  INTEGER NOT NULL,
    bytes     BLOB NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (vault, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE commit_header (
    id        INTEGER NOT NULL PRIMARY KEY,
    vault     INTEGER NOT NULL REFERENCES vault (id),
    seq       INTEGER NOT NULL,
    hash      BLOB NOT NULL,
    bytes     BLOB NOT NULL,
    signature BLOB NOT NULL,
    changes   BLOB NOT NULL,
    UNIQUE (vault, seq)
) STRICT;

-- Envelope bytes lie in append order; only `live` is random.
CREATE TABLE version (
    id           INTEGER NOT NULL PRIMARY KEY,
    vault        INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    record       BLOB NOT NULL,
    revision     INTEGER NOT NULL,
    kind         INTEGER NOT NULL,
    digest       BLOB NOT NULL,
    previous_seq INTEGER,           -- of the revision before
    replaced     INTEGER,           -- seq of the revision after
    envelope     BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX version_place ON version (vault, seq, record);

CREATE TABLE live (
    vault    INTEGER NOT NULL,
    record   BLOB NOT NULL,
    revision INTEGER NOT NULL,
    digest   BLOB NOT NULL,
    seq      INTEGER NOT NULL,
    PRIMARY KEY (vault, record)
) STRICT, WITHOUT ROWID;

CREATE TABLE pin (
    vault INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    PRIMARY KEY (vault, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE staged (
    vault       INTEGER NOT NULL,
    digest      BLOB NOT NULL,
    envelope    BLOB NOT NULL,
    expires_utc INTEGER NOT NULL,
    PRIMARY KEY (vault, digest)
) STRICT;
CREATE INDEX staged_expiry ON staged (expires_utc);

-- A stored piece of blob storage. state: 1 being written, 2 in use, 3 to be deleted.
CREATE TABLE segment (
    id          BLOB NOT NULL PRIMARY KEY,
    vault       INTEGER NOT NULL,
    state       INTEGER NOT NULL,
    created_utc INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX segment_state ON segment (state, created_utc) WHERE state <> 2;

CREATE TABLE object (
    vault       INTEGER NOT NULL,
    blob        BLOB NOT NULL,
    size        INTEGER NOT NULL,
    digest      BLOB NOT NULL,
    complete    INTEGER NOT NULL,
    named       INTEGER NOT NULL,   -- whether a commit names it
    created_utc INTEGER NOT NULL,
    PRIMARY KEY (vault, blob)
) STRICT, WITHOUT ROWID;
CREATE INDEX object_unnamed ON object (created_utc) WHERE named = 0;

CREATE TABLE part (
    vault    INTEGER NOT NULL,
    blob     BLOB NOT NULL,
    position INTEGER NOT NULL,
    digest   BLOB NOT NULL,
    segment  BLOB NOT NULL,
    start    INTEGER NOT NULL,
    size     INTEGER NOT NULL,
    PRIMARY KEY (vault, blob, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX part_segment ON part (segment);

-- Commits that verified repairs abandon.
CREATE TABLE IF NOT EXISTS abandoned (
    vault INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    hash  BLOB NOT NULL,
    PRIMARY KEY (vault, seq, hash)
) STRICT, WITHOUT ROWID;

-- Commits of a chain that was given up, and versions that no longer count: kept for review.
CREATE TABLE IF NOT EXISTS shelved_commit (
    vault     INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    hash      BLOB NOT NULL,
    bytes     BLOB NOT NULL,
    signature BLOB NOT NULL,
    changes   BLOB NOT NULL,
    PRIMARY KEY (vault, seq, hash)
) STRICT;

CREATE TABLE IF NOT EXISTS shelved (
    id       INTEGER NOT NULL PRIMARY KEY,
    vault    INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    record   BLOB NOT NULL,
    revision INTEGER NOT NULL,
    kind     INTEGER NOT NULL,
    digest   BLOB NOT NULL,
    commit_hash BLOB,
    envelope BLOB,
    state    INTEGER NOT NULL     -- 0 waits to be carried over, 1 done or not ours to carry
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS shelved_version ON shelved (vault, seq, record, digest);

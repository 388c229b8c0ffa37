-- Everything here is public structure or ciphertext. Ids are 16 bytes, digests 32, times seconds since 1970.

CREATE TABLE secret (
    name  TEXT NOT NULL PRIMARY KEY,
    value BYTEA NOT NULL
);

CREATE TABLE account (
    id                   BYTEA NOT NULL PRIMARY KEY,
    name                 TEXT NOT NULL UNIQUE,
    recovery             BYTEA NOT NULL,
    credential           BYTEA NOT NULL,
    opaque_record        BYTEA NOT NULL,
    key_header           BYTEA NOT NULL,
    key_header_signature BYTEA NOT NULL,
    log_length           BIGINT NOT NULL,
    log_head             BYTEA NOT NULL,
    created_utc          BIGINT NOT NULL,
    -- Bytes that count (server/src/domain/quota.rs); quota_bytes: null the server's default, -1 none; spared_bytes: what
    -- was written beyond the quota on the reserve. Its row is locked by whoever writes for the account.
    used_bytes           BIGINT NOT NULL DEFAULT 0,
    spared_bytes         BIGINT NOT NULL DEFAULT 0,
    quota_bytes          BIGINT
) WITH (fillfactor = 70);

CREATE TABLE device_log (
    account   BYTEA NOT NULL,
    position  BIGINT NOT NULL,
    bytes     BYTEA NOT NULL,
    signature BYTEA NOT NULL,
    hash      BYTEA NOT NULL,
    PRIMARY KEY (account, position)
);

CREATE TABLE device (
    account     BYTEA NOT NULL,
    device      BYTEA NOT NULL,
    sign_key    BYTEA NOT NULL,
    enrolled_at BIGINT NOT NULL,
    revoked_at  BIGINT,             -- log index of the entry that revoked it
    PRIMARY KEY (account, device)
);

-- What a revoked device wrote counts up to here; in a vault that is not named, nothing does.
CREATE TABLE device_pin (
    account BYTEA NOT NULL,
    device  BYTEA NOT NULL,
    vault   BYTEA NOT NULL,
    seq     BIGINT NOT NULL,
    PRIMARY KEY (account, device, vault)
);

CREATE TABLE session (
    token_hash  BYTEA NOT NULL PRIMARY KEY,
    account     BYTEA NOT NULL,
    device      BYTEA NOT NULL,
    kind        BIGINT NOT NULL,
    expires_utc BIGINT NOT NULL,
    id          BYTEA NOT NULL,
    created_utc BIGINT NOT NULL,
    used_utc    BIGINT NOT NULL
);
CREATE INDEX session_expiry ON session (expires_utc);
CREATE INDEX session_account ON session (account, kind, created_utc);

CREATE TABLE challenge (
    id          BYTEA NOT NULL PRIMARY KEY,
    kind        BIGINT NOT NULL,
    account     BYTEA NOT NULL,
    data        BYTEA NOT NULL,
    expires_utc BIGINT NOT NULL
);
CREATE INDEX challenge_expiry ON challenge (expires_utc);

CREATE TABLE invite (
    code_hash   BYTEA NOT NULL PRIMARY KEY,
    expires_utc BIGINT NOT NULL
);

-- Its row is locked by whoever commits: one commit of a vault at a time.
CREATE TABLE vault (
    id               BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account          BYTEA NOT NULL,
    vault            BYTEA NOT NULL,
    seq              BIGINT NOT NULL,
    head             BYTEA NOT NULL,
    epoch            BIGINT NOT NULL,
    device_log_index BIGINT NOT NULL,
    log_index        BIGINT NOT NULL,
    log_head         BYTEA NOT NULL,
    state            BYTEA NOT NULL,
    records          BIGINT NOT NULL,
    rotated_at       BIGINT NOT NULL,   -- device-log index that the vault log's last entry names
    used_bytes       BIGINT NOT NULL DEFAULT 0,
    objects          BIGINT NOT NULL DEFAULT 0,
    is_keyring       BOOLEAN NOT NULL,
    UNIQUE (account, vault)
);

CREATE TABLE vault_log (
    vault     BIGINT NOT NULL REFERENCES vault (id),
    position  BIGINT NOT NULL,
    bytes     BYTEA NOT NULL,
    signature BYTEA NOT NULL,
    PRIMARY KEY (vault, position)
);

-- A heap lies in the order of its inserts: neither commits nor versions need a number for that.
CREATE TABLE commit_header (
    vault     BIGINT NOT NULL REFERENCES vault (id),
    seq       BIGINT NOT NULL,
    hash      BYTEA NOT NULL,
    bytes     BYTEA NOT NULL,
    signature BYTEA NOT NULL,
    changes   BYTEA NOT NULL,
    PRIMARY KEY (vault, seq)
);

-- Envelope bytes lie in append order; only `live` is random. The room that is left on every page lets
-- `replaced` be set without touching the index.
CREATE TABLE version (
    vault        BIGINT NOT NULL,
    seq          BIGINT NOT NULL,
    record       BYTEA NOT NULL,
    revision     BIGINT NOT NULL,
    kind         BIGINT NOT NULL,
    digest       BYTEA NOT NULL,
    previous_seq BIGINT,            -- of the revision before
    replaced     BIGINT,            -- seq of the revision after
    abandoned    BIGINT,            -- seq of the repair that abandoned it
    envelope     BYTEA NOT NULL,    -- of no bytes: not at hand when the store was healed
    PRIMARY KEY (vault, seq, record)
) WITH (fillfactor = 90);

CREATE TABLE live (
    vault    BIGINT NOT NULL,
    record   BYTEA NOT NULL,
    revision BIGINT NOT NULL,
    digest   BYTEA NOT NULL,
    seq      BIGINT NOT NULL,
    PRIMARY KEY (vault, record)
) WITH (fillfactor = 90);

CREATE TABLE pin (
    vault BIGINT NOT NULL,
    seq   BIGINT NOT NULL,
    PRIMARY KEY (vault, seq)
);

CREATE TABLE staged (
    vault       BIGINT NOT NULL,
    digest      BYTEA NOT NULL,
    envelope    BYTEA NOT NULL,
    expires_utc BIGINT NOT NULL,
    PRIMARY KEY (vault, digest)
);
CREATE INDEX staged_expiry ON staged (expires_utc);

-- A stored piece of blob storage. state: 1 being written, 2 in use, 3 to be deleted. counted_bytes: 0 while the upload
-- that it is a part of counts them. owner: account of a vault that was deleted, which counts them until they are gone.
CREATE TABLE segment (
    id            BYTEA NOT NULL PRIMARY KEY,
    vault         BIGINT NOT NULL,
    state         BIGINT NOT NULL,
    created_utc   BIGINT NOT NULL,
    counted_bytes BIGINT NOT NULL,
    owner         BYTEA
);
CREATE INDEX segment_state ON segment (state, created_utc) WHERE state <> 2;
CREATE INDEX segment_vault ON segment (vault);
CREATE INDEX segment_owner ON segment (owner) WHERE owner IS NOT NULL;

CREATE TABLE object (
    vault       BIGINT NOT NULL,
    blob        BYTEA NOT NULL,
    size        BIGINT NOT NULL,
    digest      BYTEA NOT NULL,
    complete    BOOLEAN NOT NULL,
    named       BOOLEAN NOT NULL,   -- whether a commit names it
    created_utc BIGINT NOT NULL,
    lost        BIGINT NOT NULL,    -- bits; 1: its bytes are gone, 2: its digest was never known here
    reserved_bytes BIGINT NOT NULL, -- of a begun upload, counted before they come; 0 where the segment counts them
    PRIMARY KEY (vault, blob)
);
CREATE INDEX object_unnamed ON object (created_utc) WHERE NOT named;

CREATE TABLE part (
    vault    BIGINT NOT NULL,
    blob     BYTEA NOT NULL,
    position BIGINT NOT NULL,
    digest   BYTEA NOT NULL,
    segment  BYTEA NOT NULL,
    start    BIGINT NOT NULL,
    size     BIGINT NOT NULL,
    PRIMARY KEY (vault, blob, position)
);
CREATE INDEX part_segment ON part (segment);

-- Ciphertext does not compress: PostgreSQL need not try.
ALTER TABLE account ALTER COLUMN key_header SET STORAGE EXTERNAL;
ALTER TABLE device_log ALTER COLUMN bytes SET STORAGE EXTERNAL;
ALTER TABLE vault ALTER COLUMN state SET STORAGE EXTERNAL;
ALTER TABLE commit_header ALTER COLUMN changes SET STORAGE EXTERNAL;
ALTER TABLE version ALTER COLUMN envelope SET STORAGE EXTERNAL;
ALTER TABLE staged ALTER COLUMN envelope SET STORAGE EXTERNAL;

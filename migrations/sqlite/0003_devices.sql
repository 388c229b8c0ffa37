-- Revocation, key epochs, repairs, healing.

-- Data of draft 1 is refused by name when the server starts.
INSERT INTO secret (name, value) SELECT 'draft', x'81' WHERE EXISTS (SELECT 1 FROM account);

-- Log index of the entry that revoked the device.
ALTER TABLE device ADD COLUMN revoked_at INTEGER;

-- What a revoked device wrote counts up to here; in a vault that is not named, nothing does.
CREATE TABLE device_pin (
    account BLOB NOT NULL,
    device  BLOB NOT NULL,
    vault   BLOB NOT NULL,
    seq     INTEGER NOT NULL,
    PRIMARY KEY (account, device, vault)
) STRICT, WITHOUT ROWID;

-- Device-log index that the vault log's last entry names.
ALTER TABLE vault ADD COLUMN rotated_at INTEGER NOT NULL DEFAULT 0;

-- Seq of the repair that abandoned the version. An envelope of no bytes was not at hand when the store was healed.
ALTER TABLE version ADD COLUMN abandoned INTEGER;

-- Named by a commit, and its bytes are gone; a digest of zeros: never known here.
ALTER TABLE object ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;

-- Account of a vault that was deleted: the bytes of its segments count there until they are gone.
ALTER TABLE segment ADD COLUMN owner BLOB;
CREATE INDEX segment_owner ON segment (owner) WHERE owner IS NOT NULL;

-- Keys of deleted vaults are not given to others: requests and segments may still name them.
CREATE TABLE vault_key (next INTEGER NOT NULL) STRICT;
INSERT INTO vault_key (next) SELECT coalesce(max(id), 0) + 1 FROM vault;

-- What every account and vault uses, in bytes that count (server/src/domain/quota.rs), and the public side of
-- sessions. The numbers are kept up to date in the transactions that they count.

-- quota_bytes: null the server's default, -1 none. spared_bytes: what was written beyond the quota on the reserve.
ALTER TABLE account ADD COLUMN used_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN spared_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN quota_bytes INTEGER;

ALTER TABLE vault ADD COLUMN used_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE vault ADD COLUMN objects INTEGER NOT NULL DEFAULT 0;
ALTER TABLE vault ADD COLUMN is_keyring INTEGER NOT NULL DEFAULT 0;

-- Bytes of a begun upload, counted before they come; 0 where the segment counts them.
ALTER TABLE object ADD COLUMN reserved_bytes INTEGER NOT NULL DEFAULT 0;
-- Bytes of a segment that count; 0 while the upload that it is a part of counts them.
ALTER TABLE segment ADD COLUMN counted_bytes INTEGER NOT NULL DEFAULT 0;

ALTER TABLE session ADD COLUMN id BLOB;
ALTER TABLE session ADD COLUMN created_utc INTEGER NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN used_utc INTEGER NOT NULL DEFAULT 0;
UPDATE session SET
    id = randomblob(16),
    created_utc = max(0, expires_utc - CASE kind WHEN 2 THEN 86400 ELSE 600 END),
    used_utc = max(0, expires_utc - CASE kind WHEN 2 THEN 86400 ELSE 600 END);
CREATE INDEX session_account ON session (account, kind, created_utc);

-- An account's first vault was made with it.
UPDATE vault SET is_keyring = 1 WHERE id IN (SELECT min(id) FROM vault GROUP BY account);

UPDATE object SET reserved_bytes = size WHERE complete = 0;
UPDATE segment SET counted_bytes = (
    SELECT coalesce(max(p.start + p.size), 0)
    FROM part p JOIN object o ON o.vault = p.vault AND o.blob = p.blob
    WHERE p.segment = segment.id AND o.complete = 1
) WHERE state = 2;

UPDATE vault SET
    objects = (SELECT count(*) FROM object o WHERE o.vault = vault.id),
    used_bytes = 2560
        + (SELECT coalesce(sum(length(bytes) + length(signature) + 256), 0) FROM vault_log x WHERE x.vault = vault.id)
        + (SELECT coalesce(sum(length(bytes) + length(signature) + length(changes) + 256), 0)
           FROM commit_header x WHERE x.vault = vault.id)
        + (SELECT coalesce(sum(length(envelope) + 256), 0) FROM version x WHERE x.vault = vault.id)
        + (SELECT coalesce(sum(length(envelope) + 256), 0) FROM staged x WHERE x.vault = vault.id)
        + (SELECT coalesce(sum(reserved_bytes + 256), 0) FROM object x WHERE x.vault = vault.id);
WITH counted AS (SELECT vault, sum(counted_bytes) AS bytes FROM segment GROUP BY vault)
UPDATE vault SET used_bytes = used_bytes + counted.bytes FROM counted WHERE counted.vault = vault.id;

UPDATE account SET used_bytes =
    (SELECT coalesce(sum(length(bytes) + length(signature) + 256), 0) FROM device_log x WHERE x.account = account.id)
    + (SELECT coalesce(sum(used_bytes), 0) FROM vault x WHERE x.account = account.id);

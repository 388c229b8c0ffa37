-- Number of the last vault that was made. A deleted vault's number is never given to another one: who still holds it
-- must not come upon somebody else's vault.
CREATE TABLE vault_key (
    last INTEGER NOT NULL
) STRICT;
INSERT INTO vault_key (last) SELECT coalesce(max(id), 0) FROM vault;

-- The hub's Ed25519 signing keys. Their seeds are sealed under the seal key, which is never in the database.
--
-- current_for holds the purpose while the key signs and NULL afterwards: its unique index lets one key sign for each purpose,
-- so that of two replicas that generate or rotate at the same time one wins. longest_life (ms) is the longest life of a token
-- that the key may have signed; a retired key is published until published_until, when the last of them has expired.
CREATE TABLE signing_keys (
    kid VARCHAR(64) NOT NULL PRIMARY KEY,
    purpose VARCHAR(32) NOT NULL,
    current_for VARCHAR(32),
    public_key VARCHAR(64) NOT NULL,
    sealed_seed BLOB NOT NULL,
    seal_key_id VARCHAR(32) NOT NULL,
    longest_life BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    retired_at BIGINT,
    published_until BIGINT
);
CREATE UNIQUE INDEX signing_keys_current_for ON signing_keys (current_for);
CREATE INDEX signing_keys_purpose ON signing_keys (purpose);

-- Names under which servers are reached, and the one-use codes of the sign-in there.
--
-- host is unique: a name has one server. A released name keeps its row, without a foreign key, until quarantined_until: longer
-- than any certificate for it lives, so that nobody takes it over meanwhile. access is protected or open, tls is terminated or
-- passthrough; position orders a server's names, the first is shown in its URL.
CREATE TABLE names (
    host VARCHAR(253) NOT NULL PRIMARY KEY,
    server_id VARCHAR(36) NOT NULL,
    access VARCHAR(16) NOT NULL,
    tls VARCHAR(16) NOT NULL,
    position BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    released_at BIGINT,
    quarantined_until BIGINT
);
CREATE INDEX names_server_id ON names (server_id);
CREATE INDEX names_quarantined_until ON names (quarantined_until);

-- Hashed; used_at is set by the one edge that redeems it.
CREATE TABLE name_codes (
    code_hash VARCHAR(64) NOT NULL PRIMARY KEY,
    host VARCHAR(253) NOT NULL,
    server_id VARCHAR(36) NOT NULL,
    user_id VARCHAR(36) NOT NULL,
    session_id VARCHAR(36) NOT NULL,
    challenge VARCHAR(64) NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT
);
CREATE INDEX name_codes_expires_at ON name_codes (expires_at);

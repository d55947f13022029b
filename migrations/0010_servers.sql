-- Claimed servers, and the claims by which they come.
--
-- kind is phlix (an unmodified Phlix server, bearer enrollment) or generic (behind our agent, which proved its key).
-- public_key is base64url of 32 bytes. A server that pairs again with its owner keeps its row: the unique index makes it one
-- row for each owner, key and kind, also when two claims race. No cascade from users: who deletes an account takes its servers
-- away first, with their names and what edges hold of them.
CREATE TABLE servers (
    id VARCHAR(36) NOT NULL PRIMARY KEY,
    user_id VARCHAR(36) NOT NULL,
    server_name VARCHAR(255) NOT NULL,
    kind VARCHAR(16) NOT NULL,
    public_key VARCHAR(64) NOT NULL,
    version VARCHAR(32) NOT NULL,
    hostname_candidates TEXT NOT NULL,
    guard_local_paths SMALLINT NOT NULL,
    -- The generation of the newest credentials, since when, and the least that is still believed.
    generation BIGINT NOT NULL,
    generation_at BIGINT NOT NULL,
    least_generation BIGINT NOT NULL,
    last_seen_at BIGINT,
    -- SHA-256 of the list that server_libraries holds, and its length; NULL until the first heartbeat.
    libraries_hash VARCHAR(64),
    library_count BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT servers_user FOREIGN KEY (user_id) REFERENCES users (id)
);
CREATE UNIQUE INDEX servers_owner_key ON servers (user_id, public_key, kind);
CREATE INDEX servers_least_generation ON servers (least_generation);

-- A pending claim. The claim's id is the waiting server's secret: its SHA-256 is kept. The code is read aloud and lives for
-- ten minutes. claimed_by is set by the one request that redeems the code.
CREATE TABLE claims (
    id_hash VARCHAR(64) NOT NULL PRIMARY KEY,
    code VARCHAR(16) NOT NULL,
    server_name VARCHAR(255) NOT NULL,
    kind VARCHAR(16) NOT NULL,
    public_key VARCHAR(64) NOT NULL,
    version VARCHAR(32) NOT NULL,
    hostname_candidates TEXT NOT NULL,
    requester_address VARCHAR(45) NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    claimed_by VARCHAR(36),
    claimed_at BIGINT,
    server_id VARCHAR(36),
    generation BIGINT,
    delivered_at BIGINT
);
CREATE UNIQUE INDEX claims_code ON claims (code);
CREATE INDEX claims_public_key ON claims (public_key);
CREATE INDEX claims_expires_at ON claims (expires_at);

-- What servers said of themselves, every minute; old rows are swept.
CREATE TABLE server_heartbeats (
    id VARCHAR(36) NOT NULL PRIMARY KEY,
    server_id VARCHAR(36) NOT NULL,
    version VARCHAR(32) NOT NULL,
    uptime_seconds BIGINT NOT NULL,
    active_sessions BIGINT NOT NULL,
    active_transcodes BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    CONSTRAINT server_heartbeats_server FOREIGN KEY (server_id) REFERENCES servers (id) ON DELETE CASCADE
);
CREATE INDEX server_heartbeats_server_id ON server_heartbeats (server_id, received_at);
CREATE INDEX server_heartbeats_received_at ON server_heartbeats (received_at);

-- The libraries of a server, as its last heartbeat named them.
CREATE TABLE server_libraries (
    server_id VARCHAR(36) NOT NULL,
    library_id VARCHAR(255) NOT NULL,
    library_name VARCHAR(255) NOT NULL,
    PRIMARY KEY (server_id, library_id),
    CONSTRAINT server_libraries_server FOREIGN KEY (server_id) REFERENCES servers (id) ON DELETE CASCADE
);

-- Signatures of native servers over their calls, each good once: `jti` hashed together with the key that signed it.
CREATE TABLE seen_proofs (
    proof VARCHAR(64) NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);
CREATE INDEX seen_proofs_expires_at ON seen_proofs (expires_at);

-- Relay edges, what they carry, and what they are told.
--
-- public_key is base64url of 32 bytes; role is core or outer; status is pending, approved or revoked. names and addresses are
-- JSON lists. registered_at is NULL until the edge has said where it is.
CREATE TABLE edges (
    id VARCHAR(36) NOT NULL PRIMARY KEY,
    public_key VARCHAR(64) NOT NULL,
    role VARCHAR(16) NOT NULL,
    status VARCHAR(16) NOT NULL,
    region VARCHAR(64) NOT NULL,
    names TEXT NOT NULL,
    addresses TEXT NOT NULL,
    port BIGINT NOT NULL,
    spki VARCHAR(64),
    behind_proxy SMALLINT NOT NULL,
    version VARCHAR(64) NOT NULL,
    created_at BIGINT NOT NULL,
    registered_at BIGINT
);
CREATE UNIQUE INDEX edges_public_key ON edges (public_key);

-- An edge that is silent until expires_at holds no tunnels. instance is new at each start of an edge: what its last life held
-- is forgotten.
CREATE TABLE edge_leases (
    edge_id VARCHAR(36) NOT NULL PRIMARY KEY,
    instance VARCHAR(36) NOT NULL,
    expires_at BIGINT NOT NULL,
    CONSTRAINT edge_leases_edge FOREIGN KEY (edge_id) REFERENCES edges (id) ON DELETE CASCADE
);

-- Tunnels, each with the time until which its agent's own word for it is fresh enough to believe.
CREATE TABLE tunnels (
    edge_id VARCHAR(36) NOT NULL,
    tunnel_id VARCHAR(36) NOT NULL,
    server_id VARCHAR(36) NOT NULL,
    stated_until BIGINT NOT NULL,
    PRIMARY KEY (edge_id, tunnel_id),
    CONSTRAINT tunnels_edge FOREIGN KEY (edge_id) REFERENCES edges (id) ON DELETE CASCADE,
    CONSTRAINT tunnels_server FOREIGN KEY (server_id) REFERENCES servers (id) ON DELETE CASCADE
);
CREATE INDEX tunnels_server_id ON tunnels (server_id);

-- The bulletin: one counter, raised in the transaction of each change, so that revisions have no gap and commit in their order.
CREATE TABLE bulletin (
    id BIGINT NOT NULL PRIMARY KEY,
    revision BIGINT NOT NULL
);
INSERT INTO bulletin (id, revision) VALUES (1, 0);

-- The changes themselves, as the edges read them (JSON), kept for edges that come back within the hour.
CREATE TABLE bulletin_changes (
    revision BIGINT NOT NULL PRIMARY KEY,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX bulletin_changes_created_at ON bulletin_changes (created_at);

-- Tickets that are no longer good: those of this subject, session, share, server, id or edge issued until then (unix seconds).
CREATE TABLE revocations (
    selector VARCHAR(16) NOT NULL,
    subject VARCHAR(36) NOT NULL,
    issued_until BIGINT NOT NULL,
    keep_until BIGINT NOT NULL,
    PRIMARY KEY (selector, subject)
);
CREATE INDEX revocations_keep_until ON revocations (keep_until);

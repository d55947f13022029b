-- Relay tokens: what a client app shows at the mount of a Phlix server's tunnel.
--
-- Only the token's SHA-256 is kept. A token is good for its user, its server and the sign-in that asked for it, until it expires
-- or is revoked.
CREATE TABLE client_relay_tokens (
    id VARCHAR(36) NOT NULL PRIMARY KEY,
    token_hash VARCHAR(64) NOT NULL,
    user_id VARCHAR(36) NOT NULL,
    server_id VARCHAR(36) NOT NULL,
    session_id VARCHAR(36) NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    CONSTRAINT client_relay_tokens_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT client_relay_tokens_server FOREIGN KEY (server_id) REFERENCES servers (id) ON DELETE CASCADE,
    CONSTRAINT client_relay_tokens_session FOREIGN KEY (session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX client_relay_tokens_token_hash ON client_relay_tokens (token_hash);
CREATE INDEX client_relay_tokens_server_id ON client_relay_tokens (server_id, user_id);
CREATE INDEX client_relay_tokens_user_id ON client_relay_tokens (user_id);
CREATE INDEX client_relay_tokens_session_id ON client_relay_tokens (session_id);
CREATE INDEX client_relay_tokens_expires_at ON client_relay_tokens (expires_at);

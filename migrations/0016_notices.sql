-- What owners should know of their servers. One row for each server and kind: what happens again is counted there, also when
-- two replicas see it at once. dismissed_at hides it; some kinds show themselves again when they happen again.
CREATE TABLE notices (
    id VARCHAR(36) NOT NULL PRIMARY KEY,
    server_id VARCHAR(36) NOT NULL,
    kind VARCHAR(32) NOT NULL,
    detail VARCHAR(255) NOT NULL,
    times BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    dismissed_at BIGINT,
    CONSTRAINT notices_server FOREIGN KEY (server_id) REFERENCES servers (id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX notices_server_kind ON notices (server_id, kind);

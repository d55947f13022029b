-- Accounts, sign-ins and the counters that guard them.
--
-- username_key and email_key are folded by the program (trimmed, lower case): unique means the same on both engines,
-- whatever their collation. is_admin is 0 or 1.
CREATE TABLE users (
    id VARCHAR(36) NOT NULL PRIMARY KEY,
    username VARCHAR(64) NOT NULL,
    username_key VARCHAR(128) NOT NULL,
    email VARCHAR(255) NOT NULL,
    email_key VARCHAR(255) NOT NULL,
    password_hash VARCHAR(255) NOT NULL,
    display_name VARCHAR(128) NOT NULL,
    is_admin SMALLINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX users_username_key ON users (username_key);
CREATE UNIQUE INDEX users_email_key ON users (email_key);

-- One row at most: whose insert succeeds is the first administrator.
CREATE TABLE auth_signup_guard (
    guard_key VARCHAR(64) NOT NULL PRIMARY KEY,
    user_id VARCHAR(36) NOT NULL,
    elected_at BIGINT NOT NULL
);

-- One sign-in: a family of refresh tokens, and for browsers a cookie of which only the SHA-256 is kept.
CREATE TABLE sessions (
    id VARCHAR(36) NOT NULL PRIMARY KEY,
    user_id VARCHAR(36) NOT NULL,
    cookie_hash VARCHAR(64),
    cookie_expires_at BIGINT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at BIGINT,
    ended_because VARCHAR(32),
    CONSTRAINT sessions_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX sessions_cookie_hash ON sessions (cookie_hash);
CREATE INDEX sessions_user_id ON sessions (user_id);
CREATE INDEX sessions_expires_at ON sessions (expires_at);

-- A refresh token that was issued. used_at is set by the one refresh that it is good for; a second one ends the session.
CREATE TABLE refresh_tokens (
    jti VARCHAR(64) NOT NULL PRIMARY KEY,
    session_id VARCHAR(36) NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    CONSTRAINT refresh_tokens_session FOREIGN KEY (session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
CREATE INDEX refresh_tokens_session_id ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_expires_at ON refresh_tokens (expires_at);

-- Where an account has logged in from before (a keyed hash of the address's prefix): strangers who guess its password can
-- lock each other out, never its owner.
CREATE TABLE login_places (
    user_id VARCHAR(36) NOT NULL,
    place VARCHAR(64) NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, place),
    CONSTRAINT login_places_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);

-- Attempts within a window, counted by all replicas together.
CREATE TABLE rate_limits (
    rate_key VARCHAR(191) NOT NULL PRIMARY KEY,
    hits BIGINT NOT NULL,
    reset_at BIGINT NOT NULL
);
CREATE INDEX rate_limits_reset_at ON rate_limits (reset_at);

-- How legacy tunnels came: a bearer is all that they show, so the hub remembers what would be odd.
--
-- tls_since: the server has used TLS since then, and plain tunnels of it are refused; its owner may take that back (NULL).
ALTER TABLE servers ADD COLUMN tls_since BIGINT;
-- From where its newest tunnel came.
ALTER TABLE servers ADD COLUMN tunnel_address VARCHAR(45);
CREATE INDEX servers_tls_since ON servers (tls_since);

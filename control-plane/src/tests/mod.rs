//! The control plane's stories: through HTTP where there is a route, on SQLite and on MariaDB each.
#![expect(clippy::unwrap_used, reason = "tests")]

mod database;
mod mariadb;
mod world;

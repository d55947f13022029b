//! The control plane's stories: through HTTP where there is a route, on SQLite and on MariaDB each.

mod accounts;
mod actors;
mod claims;
mod database;
mod front;
mod keys;
mod mariadb;
mod operator;
mod world;

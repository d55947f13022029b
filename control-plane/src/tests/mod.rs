//! The control plane's stories: through HTTP where there is a route, on SQLite and on MariaDB each.

mod accounts;
mod actors;
mod bulletin;
mod claims;
mod compat;
mod database;
mod edges;
mod front;
mod keys;
mod legacy;
mod mariadb;
mod names;
mod operator;
mod picks;
mod replica;
mod servers;
mod subdomains;
mod world;

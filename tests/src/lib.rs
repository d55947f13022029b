//! Whole worlds for tests: a hub, its database, an agent, the media server behind it, and viewers
//! who are not ours (curl, ffprobe, a browser).
//!
//! A story in `tests/` reads as given, when, then: [`world::World`] gives, the story acts, the
//! [`origin`] tells what reached home. Programs are the built ones (`cargo build` comes first) and
//! run as children that are killed when their owner is dropped; every wait is for a condition and
//! has a limit; every port is picked by the kernel and lies on loopback.

#![allow(clippy::unwrap_used)]

pub mod agent;
pub mod aioquic;
pub mod api;
pub mod browser;
pub mod curl;
pub mod database;
pub mod gtlsclient;
pub mod h2raw;
pub mod hash;
pub mod hub;
pub mod latency;
pub mod legacy;
pub mod media;
pub mod origin;
pub mod process;
pub mod proxy;
pub mod python;
pub mod relay_peer;
pub mod viewer;
pub mod wait;
pub mod world;
pub mod ws_echo;

pub use database::Engine;
pub use wait::until;
pub use world::World;

/// Runs a story on its own runtime.
pub fn story(story: impl Future<Output = ()>) {
    // Two tests may install it at the same time: the second finds it installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(story);
}

/// Makes two tests of each story, `sqlite::name` and `mariadb::name`.
#[macro_export]
macro_rules! on_both_databases {
    ($($(#[$doc:meta])* $story:ident),+ $(,)?) => {
        mod sqlite {
            $($(#[$doc])* #[test] fn $story() {
                $crate::story(super::$story($crate::Engine::Sqlite));
            })+
        }
        mod mariadb {
            $($(#[$doc])* #[test] fn $story() {
                $crate::story(super::$story($crate::Engine::MariaDb));
            })+
        }
    };
}

/// Whether the stories run at their full size (`make test-slow`) or shortened.
pub fn full_size() -> bool {
    std::env::var_os("PHLIX_TEST_FULL").is_some()
}

//! One connection between an agent and an edge, whichever transport carries it.
//!
//! [`Link`] is over QUIC or over the multiplexer on a WebSocket; [`SendStream`] and [`RecvStream`] are the halves of what
//! flows in it. Who opens what, and what is said, is the business of agent and edge; here are only bytes, credit, the end
//! of a connection and whether its path still moves ([`PathHealth`]).

mod block;
mod end;
mod health;
mod link;
mod measured;
mod socket;
mod stream;
#[cfg(test)]
mod tls;
mod websocket;

pub use block::{Block, read_block};
pub use end::{End, ReadError, Stopped, WriteError};
pub use health::{Health, PathHealth, Sample};
pub use link::{Link, Side, Transport};
pub use measured::Measured;
pub use socket::tune;
pub use stream::{Priority, RecvStream, SendStream};

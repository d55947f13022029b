//! The legacy relay wire: what unmodified Phlix media servers speak to port 8802, and raw clients to 8803.
//!
//! Pure, like all of this crate. [`frame`] is the binary framing, [`handshake`] the two JSON messages before it,
//! [`http`] and [`channel`] what frames carry, and [`tunnel`] the life of one tunnel as a state machine that an actor
//! drives. Quotes (`//= legacy-relay-wire s.2`) are from the page that holds us to what upstream's servers do.

pub mod channel;
pub mod frame;
pub mod handshake;
pub mod http;
#[cfg(test)]
mod tests;
pub mod tunnel;

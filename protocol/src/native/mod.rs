//! The native tunnel, version 1: what agent and edge say to each other (native-tunnel).
//!
//! Sans-IO: decoders take bytes and give values; drivers in `relay-edge` and `server-agent` own sockets and timers.

pub mod control;
pub mod mux;
pub mod proof;
pub mod stream;

/// The version of the protocol that this code speaks.
pub const VERSION: u32 = 1;

/// ALPN of the tunnel over QUIC.
pub const ALPN: &[u8] = b"phlix-tunnel/1";

/// Where a tunnel over WebSocket is asked for, and its subprotocol.
pub const WEBSOCKET_PATH: &str = "/tunnel";
pub const WEBSOCKET_PROTOCOL: &str = "phlix-tunnel.1";

/// Label of the TLS exporter that binds a proof to its connection; 32 bytes, empty context.
//= trust s.3
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-phlix-tunnel";

/// QUIC application error codes with which a connection is closed.
pub mod close {
    /// Orderly end.
    pub const BYE: u32 = 0;
    /// A message broke the protocol.
    pub const PROTOCOL: u32 = 1;
    /// The edge said `refused`.
    pub const REFUSED: u32 = 2;
    /// No `welcome` within 10 s.
    pub const HANDSHAKE_TIMEOUT: u32 = 3;
    /// A newer tunnel of the same server, instance and index took over.
    pub const REPLACED: u32 = 4;
    /// The server's right to a tunnel was withdrawn.
    pub const REVOKED: u32 = 5;
    /// The edge is going away; another one waits.
    pub const DRAINED: u32 = 6;
    /// Bytes were outstanding and none moved.
    pub const DEAD_PATH: u32 = 7;
}

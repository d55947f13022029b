//! What the frames of raw channels say (legacy-relay-wire s.2.1, s.3.2).

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

/// CLIENT_CONNECT: a channel begins.
pub fn client_connect(client_id: Uuid, session_id: &str) -> Bytes {
    #[derive(Serialize)]
    struct Connect<'a> {
        client_id: Uuid,
        session_id: &'a str,
    }
    json(&Connect { client_id, session_id })
}

/// CLIENT_DISCONNECT: its client left.
pub fn client_disconnect(client_id: Uuid) -> Bytes {
    #[derive(Serialize)]
    struct Disconnect {
        client_id: Uuid,
    }
    json(&Disconnect { client_id })
}

/// Why a raw client's tunnel is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    ServerClosed,
    ServerReplaced,
    Timeout,
    InvalidFrame,
    FrameBufferOverflow,
    ProtocolError,
    BackpressureOverflow,
    BackpressureTimeout,
}

/// DISCONNECTED: a raw client's tunnel is gone.
pub fn disconnected(reason: Reason) -> Bytes {
    #[derive(Serialize)]
    struct Disconnected {
        reason: Reason,
    }
    json(&Disconnected { reason })
}

/// ERROR to a raw client that sent something else than DATA.
pub fn unexpected_type() -> Bytes {
    Bytes::from_static(br#"{"error":"Unexpected frame type"}"#)
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("ids and words are JSON").into()
}

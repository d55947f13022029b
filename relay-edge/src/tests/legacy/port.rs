//! A media server's own port, as raw channels reach it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::task::JoinHandle;

use super::home::{CONNECT, DATA, DISCONNECT, HEARTBEAT, Heard, Home};

/// The port; dropping it does not end it, `cut` does.
pub(super) struct Port {
    pub(super) seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// What it saw, by channel.
#[derive(Default)]
pub(super) struct Seen {
    /// What CLIENT_CONNECT said.
    pub(super) connected: HashMap<u32, Value>,
    /// Heads of requests.
    pub(super) heads: HashMap<u32, String>,
    /// What came behind a head before it was answered.
    pub(super) early: HashMap<u32, Vec<u8>>,
    /// Whose CLIENT_DISCONNECT came.
    pub(super) left: Vec<u32>,
}

impl Port {
    /// Answers each channel's first head with what `answer` makes of it, and sends back what comes later.
    pub(super) fn open(home: Home, answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn(serve(home, Arc::clone(&seen), answer));
        Self { seen, task }
    }

    /// The server is gone, without a word.
    pub(super) async fn cut(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub(super) fn left(&self) -> usize {
        self.seen.lock().unwrap().left.len()
    }
}

async fn serve(mut home: Home, seen: Arc<Mutex<Seen>>, answer: impl Fn(&str) -> Vec<u8>) {
    let mut begun: HashMap<u32, Vec<u8>> = HashMap::new();
    loop {
        let bytes = match home.hear_long().await {
            Heard::Binary(bytes) => bytes,
            Heard::Ping | Heard::Text(_) => continue,
            Heard::Close(_) | Heard::End => return,
        };
        let (head, payload) = bytes.split_at(7);
        let id = u32::from_be_bytes(head[..4].try_into().unwrap());
        match head[4] {
            CONNECT => {
                let told = serde_json::from_slice(payload).unwrap();
                assert!(seen.lock().unwrap().connected.insert(id, told).is_none(), "{id}: never used again");
                begun.insert(id, Vec::new());
            }
            DISCONNECT => {
                let told: Value = serde_json::from_slice(payload).unwrap();
                let mut seen = seen.lock().unwrap();
                assert_eq!(told["client_id"], seen.connected[&id]["client_id"]);
                seen.left.push(id);
            }
            DATA => {
                let said = match begun.get_mut(&id) {
                    None => payload.to_vec(),
                    Some(text) => {
                        text.extend_from_slice(payload);
                        let Some(end) = text.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
                        let early = text.split_off(end + 4);
                        let head = String::from_utf8(begun.remove(&id).unwrap()).unwrap();
                        let said = answer(&head);
                        let mut seen = seen.lock().unwrap();
                        seen.heads.insert(id, head);
                        seen.early.insert(id, early);
                        said
                    }
                };
                for piece in said.chunks(65_535) {
                    home.relay(id, DATA, piece).await;
                }
            }
            HEARTBEAT => {}
            other => panic!("{other:#x}"),
        }
    }
}

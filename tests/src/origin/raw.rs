//! An origin that answers with bytes of the test's choice, and keeps what it was sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// A listener whose every connection is answered by a script.
#[derive(Debug)]
pub struct Raw {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Raw {
    /// Answers each request head with these bytes, then closes.
    pub fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::with(move |mut stream| {
            let _ = stream.write_all(&bytes);
        })
    }

    /// Hands each connection, its first head read, to `act`; it is closed when that returns.
    pub fn with(act: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let heads = Arc::clone(&received);
        let act = Arc::new(act);
        // Threads of a test end with its process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (heads, act) = (Arc::clone(&heads), Arc::clone(&act));
                thread::spawn(move || {
                    if let Some(head) = read_head(&stream) {
                        heads.lock().unwrap().push(head);
                        act(stream);
                    }
                });
            }
        });
        Self { address, received }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of the requests that came, and what came in the same breath.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.received.lock().unwrap().clone()
    }
}

fn read_head(mut stream: &TcpStream) -> Option<Vec<u8>> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let mut head = Vec::new();
    let mut block = [0; 4096];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut block) {
            Ok(0) | Err(_) => return None,
            Ok(n) => head.extend_from_slice(&block[..n]),
        }
    }
    Some(head)
}

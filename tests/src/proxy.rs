//! An HTTP proxy that leads every CONNECT to the hub: for programs that can't be told an address for
//! a name and whose system does not know `*.localhost`, and for agents who have no other way out.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Starts one that lives as long as the test process; its URL.
pub fn to(target: SocketAddr) -> String {
    Proxy::start(target).url()
}

/// A proxy that lives as long as the test process, and remembers whom it was asked for.
#[derive(Debug, Clone)]
pub struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let proxy = Self { address, asked: Arc::clone(&asked) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let asked = Arc::clone(&asked);
                thread::spawn(move || {
                    // A client that breaks off is its own affair.
                    let _ = tunnel(stream, target, &asked);
                });
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `host:port` of every CONNECT so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn tunnel(mut client: TcpStream, target: SocketAddr, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let Some(authority) = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n");
    };
    asked.lock().unwrap().push(authority.to_owned());
    let mut hub = TcpStream::connect(target)?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut from_client, mut to_hub) = (client.try_clone()?, hub.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_hub);
        let _ = to_hub.shutdown(Shutdown::Write);
    });
    io::copy(&mut hub, &mut client)?;
    client.shutdown(Shutdown::Write)
}

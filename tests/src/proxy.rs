//! An HTTP proxy that leads every CONNECT to the hub: for programs that can't be told an address for
//! a name, and whose system does not know `*.localhost`.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Starts one that lives as long as the test process; its URL.
pub fn to(target: SocketAddr) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                // A client that breaks off is its own affair.
                let _ = tunnel(stream, target);
            });
        }
    });
    format!("http://{address}")
}

fn tunnel(mut client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if !head.starts_with(b"CONNECT ") {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n");
    }
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

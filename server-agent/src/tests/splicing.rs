//! Bytes between viewers and the origin.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::edge::status_of;
use super::*;

#[tokio::test]
async fn a_claimed_server_answers_a_viewer_through_its_tunnel() {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::start(&format!("http://{}", origin.local_addr().unwrap())).await;
    let (mut send, mut receive) =
        world.tunnel.open("a.hub.localhost", Some(world.hub.viewer_ticket("a.hub.localhost"))).await;
    send.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    send.finish().unwrap();
    soon(async {
        loop {
            // Looks at the origin's health come as connections without a request.
            let (mut socket, _) = origin.accept().await.unwrap();
            let mut asked = Vec::new();
            socket.read_to_end(&mut asked).await.unwrap();
            if !asked.is_empty() {
                assert_eq!(asked, b"GET / HTTP/1.1\r\n\r\n");
                socket.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await.unwrap();
                break;
            }
        }
    })
    .await;
    assert_eq!(soon(status_of(&mut receive)).await, 0);
    assert_eq!(soon(receive.read_to_end(100)).await.unwrap(), b"HTTP/1.1 200 OK\r\n\r\nhello");
    world.agent.stopped().await.unwrap();
}

//! Sockets that the program bound, made ours.

use std::io;

use socket2::SockRef;
use tokio::net::TcpListener;

/// A bound listener, on the runtime that we are on.
pub(crate) fn tcp(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Gives a bound UDP socket buffers of so many bytes, or what the kernel allows.
pub(crate) fn udp(socket: &std::net::UdpSocket, buffer: usize) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(buffer)?;
    socket.set_send_buffer_size(buffer)?;
    // The kernel caps at rmem_max and wmem_max, silently.
    let got = socket.recv_buffer_size()?.min(socket.send_buffer_size()?);
    if got < buffer {
        tracing::info!(
            wanted = buffer,
            got,
            "UDP buffers are smaller than asked for: raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    Ok(())
}

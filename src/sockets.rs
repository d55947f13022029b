//! Listening sockets: bound here, before anything else starts, so that a taken port is a clear message and a port that
//! the kernel picked is known to everybody who must name it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// A port could not be had.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {what} {address}: {source}{hint}")]
pub(crate) struct BindError {
    what: &'static str,
    address: SocketAddr,
    source: io::Error,
    hint: &'static str,
}

fn refused(what: &'static str, address: SocketAddr) -> impl FnOnce(io::Error) -> BindError {
    move |source| {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => "; another program has it: stop that one or set another port",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need the right to bind them",
            _ => "",
        };
        BindError { what, address, source, hint }
    }
}

/// What `serve` listens on.
pub(crate) struct Sockets {
    pub http: TcpListener,
    pub tls: TcpListener,
    pub quic: UdpSocket,
    pub metrics: TcpListener,
    pub relay_server: TcpListener,
    pub relay_client: TcpListener,
}

/// The ports that the settings ask for; 0 lets the kernel pick.
pub(crate) struct Ports {
    pub host: IpAddr,
    pub http: u16,
    pub tls: u16,
    pub metrics: u16,
    pub relay_server: u16,
    pub relay_client: u16,
}

impl Sockets {
    /// Binds all of them or none.
    pub(crate) fn bind(ports: &Ports) -> Result<Self, BindError> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (tls, quic) = tcp_and_udp(ports.host, ports.tls)?;
        Ok(Self {
            http: tcp("HTTP", SocketAddr::new(ports.host, ports.http))?,
            tls,
            quic,
            metrics: tcp("metrics", (loopback, ports.metrics).into())?,
            relay_server: tcp("media servers' tunnels", SocketAddr::new(ports.host, ports.relay_server))?,
            relay_client: tcp("media servers' raw clients", SocketAddr::new(ports.host, ports.relay_client))?,
        })
    }
}

/// Whether a loopback port is free.
pub(crate) fn is_free(what: &'static str, port: u16) -> Result<(), BindError> {
    tcp(what, (Ipv4Addr::LOCALHOST, port).into()).map(drop)
}

/// The same port number on TCP and UDP.
fn tcp_and_udp(host: IpAddr, port: u16) -> Result<(TcpListener, UdpSocket), BindError> {
    // A number that the kernel picked for TCP may be taken on UDP: then another one is tried.
    let mut attempts = if port == 0 { 16 } else { 1 };
    loop {
        attempts -= 1;
        let listener = tcp("TLS", SocketAddr::new(host, port))?;
        let address = listener.local_addr().map_err(refused("TLS", SocketAddr::new(host, port)))?;
        match socket(address, Type::DGRAM, Protocol::UDP).map(UdpSocket::from) {
            Ok(udp) => return Ok((listener, udp)),
            Err(error) if attempts == 0 => return Err(refused("QUIC (UDP)", address)(error)),
            Err(_) => {}
        }
    }
}

fn tcp(what: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let bound = socket(address, Type::STREAM, Protocol::TCP).and_then(|socket| {
        socket.listen(1024)?;
        Ok(TcpListener::from(socket))
    });
    bound.map_err(refused(what, address))
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // `::` means both families, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    if kind == Type::STREAM {
        // A restart must not wait for the old connections' TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(host: IpAddr) -> Ports {
        Ports { host, http: 0, tls: 0, metrics: 0, relay_server: 0, relay_client: 0 }
    }

    #[test]
    fn tls_and_quic_share_a_number() {
        let sockets = Sockets::bind(&any(Ipv4Addr::LOCALHOST.into())).expect("free ports");
        let tls = sockets.tls.local_addr().expect("bound");
        assert_eq!(tls.port(), sockets.quic.local_addr().expect("bound").port());
    }

    #[test]
    fn a_taken_port_is_a_clear_message() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("free port");
        let http = taken.local_addr().expect("bound").port();
        let error = Sockets::bind(&Ports { http, ..any(Ipv4Addr::LOCALHOST.into()) }).map(|_| ()).expect_err("taken");
        assert!(error.to_string().contains("another program has it"), "{error}");
    }

    #[test]
    fn both_families_are_served() {
        let sockets = Sockets::bind(&any(std::net::Ipv6Addr::UNSPECIFIED.into())).expect("free ports");
        let port = sockets.http.local_addr().expect("bound").port();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("IPv4 reaches a dual-stack socket");
    }
}

//! The connection under a legacy tunnel.

use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A connection whose TCP socket can be told how patient to be.
pub(crate) trait Socket {
    /// The socket that it rests on.
    fn tcp(&self) -> &TcpStream;

    /// How long bytes may stay unacknowledged before the kernel gives the connection up. Where it can't be set, the
    /// kernel's own patience holds (minutes) and the reaper is what is left.
    fn set_patience(&self, patience: Duration) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(self.tcp()).set_tcp_user_timeout(Some(patience));
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = (SockRef::from(self.tcp()), patience);
    }
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

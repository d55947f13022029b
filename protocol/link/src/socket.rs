//! TCP sockets that carry a tunnel.

use std::os::fd::AsFd;

use socket2::SockRef;

/// What may wait unsent in the kernel, in bytes: beyond it the order of our own queue would mean nothing
/// (native-tunnel s.4).
const UNSENT: u32 = 128 * 1024;

/// Prepares a socket for a tunnel. What the kernel does not have, it does without.
pub fn tune(socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    let _ = socket.set_tcp_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let _ = socket.set_tcp_notsent_lowat(UNSENT);
        // Where the kernel has it: a lossy line to the home is the rule.
        let _ = socket.set_tcp_congestion(b"bbr");
    }
}

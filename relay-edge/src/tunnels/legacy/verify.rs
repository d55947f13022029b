//! Whose tunnel it is: the enrollment that a server's HELLO brings, judged by what the bulletin says.

use phlix_protocol::legacy::handshake::Hello;
use phlix_protocol::token::{self, Enrollment};

use crate::clock;
use crate::tunnels::native::Tunnels;

/// Why a server is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAdmitted {
    /// It is not who it says, or may not come so.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// This edge can't tell, or has no room.
    #[error("{0}")]
    Later(&'static str),
}

impl NotAdmitted {
    /// The word in metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unauthorized(_) => "unauthorized",
            Self::Later(_) => "internal",
        }
    }
}

/// Believes the enrollment or says why not.
pub(super) fn verify(tunnels: &Tunnels, hello: &Hello, tls: bool) -> Result<Enrollment, NotAdmitted> {
    use NotAdmitted::{Later, Unauthorized};
    //= trust s.9.4
    // An edge without any snapshot refuses legacy tunnels.
    if !tunnels.uplink.ready() {
        return Err(Later("this edge has not heard from its hub yet"));
    }
    let world = tunnels.uplink.bulletin.world();
    let enrollment: Enrollment =
        token::verify(&hello.enrollment_jwt, &world.keys, clock::unix_now()).map_err(|error| {
            tracing::debug!(%error, "an enrollment is not believed");
            Unauthorized("the enrollment is not the hub's, or has expired")
        })?;
    //= trust s.2.3
    // A key is asked for its proof, which this wire has no words for.
    if enrollment.cnf.is_some() {
        return Err(Unauthorized("the enrollment is bound to a key"));
    }
    //= legacy-relay-wire s.1.2
    if hello.server_id != enrollment.server_id {
        return Err(Unauthorized("the enrollment is another server's"));
    }
    if world.revokes_enrollment(&enrollment) {
        return Err(Unauthorized("the server's right to a tunnel was withdrawn"));
    }
    //= trust s.9.6
    if !tls && world.is_tls_only(enrollment.server_id) {
        return Err(Unauthorized("this server has used TLS, and comes without it"));
    }
    //= trust s.2.3
    // A legacy tunnel never replaces a native one.
    if tunnels.registry.has(enrollment.server_id) {
        return Err(Unauthorized("the server has a native tunnel"));
    }
    Ok(enrollment)
}

//! Viewers over HTTP/3: a QUIC connection's requests go down the same road as those over TCP.
//!
//! A connection is served by one task, its requests by one each, which end with it.

mod bytestream;
mod request;
mod section;
mod stream;
mod transport;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h3::error::{Code, ConnectionError};
use h3::quic::SendStream as _;
use h3::server::{Connection, RequestResolver};
use phlix_protocol::hostname::Hostname;
use quinn::VarInt;
use tokio::task::JoinSet;

use self::stream::{Stream, var};
use self::transport::{Shared, Transport};
use super::http::Viewers;
use super::{Stage, glitches, reached};
use crate::road::Visit;
use crate::road::resolve::Door;

/// The name of HTTP/3 in TLS (RFC 9114 s.3.1).
pub(crate) const ALPN: &[u8] = b"h3";

/// Uploads of one connection that are on their way to us, in bytes: as over HTTP/2.
const RECEIVE: u32 = 4 << 20;

/// After GOAWAY, for requests that crossed it: they are refused so that the viewer asks again elsewhere.
const CROSSING: Duration = Duration::from_millis(500);

/// Takes a connection whose handshake is done: from here on it is a viewer like those over TCP.
pub(crate) async fn welcome(viewers: &Viewers, connection: quinn::Connection, sni: Option<&str>) {
    let peer = connection.remote_address();
    let Some(_place) = viewers.gauge.enter(peer.ip()) else {
        viewers.metrics.connections_refused.inc();
        return connection.close(var(Code::H3_EXCESSIVE_LOAD), b"too many connections");
    };
    let sni = match sni.map(Hostname::from_authority) {
        None => None,
        Some(Ok(sni)) => Some(sni),
        // A name that is none of ours in any case.
        Some(Err(_)) => return connection.close(var(Code::H3_NO_ERROR), b""),
    };
    let _open = viewers.opened();
    viewers.metrics.connections.h3.inc();
    let visit = viewers.visit(peer, Door::Tls(sni), "h3");
    let watched = async {
        glitches::watch(&connection, &viewers.metrics).await;
        // It is closed: what serves it sees that for itself.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = serve(viewers, connection.clone(), visit) => {}
        () = watched => {}
    }
}

/// Serves a connection until it ends.
async fn serve(viewers: &Viewers, connection: quinn::Connection, visit: Arc<Visit>) {
    let limits = &viewers.road.config.limits;
    let timeouts = &viewers.road.config.timeouts;
    connection.set_receive_window(RECEIVE.into());
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(limits.h2_streams));
    let shared = Shared::new(connection.clone(), limits.head_bytes);
    let building = async {
        h3::server::builder()
            .max_field_section_size(limits.head_bytes as u64)
            .enable_extended_connect(true)
            .send_grease(false)
            .build(Transport::new(&shared))
            .await
    };
    // A viewer that lets us open no control stream has none to serve.
    let mut h3: Connection<Transport, Bytes> = match tokio::time::timeout(timeouts.handshake, building).await {
        Ok(Ok(h3)) => h3,
        Ok(Err(error)) => return tracing::debug!(%error, "an HTTP/3 connection did not begin"),
        Err(_) => return connection.close(var(Code::H3_EXCESSIVE_LOAD), b""),
    };
    let mut requests = JoinSet::new();
    let mut stages = viewers.stages.clone();
    let mut idle = pin!(tokio::time::sleep(timeouts.keep_alive));
    // In this order: the edge's end, what ends, what begins.
    loop {
        tokio::select! {
            biased;
            () = reached(&mut stages, Stage::Finishing) => break,
            Some(_) = requests.join_next() => {
                if requests.is_empty() {
                    idle.as_mut().reset(tokio::time::Instant::now() + timeouts.keep_alive);
                }
            }
            accepted = h3.accept() => match accepted {
                Ok(Some(resolver)) => begin(viewers, &shared, &visit, &mut requests, resolver),
                Ok(None) => return finish(&mut h3, &shared, &mut requests).await,
                Err(error) => return log(&error),
            },
            () = idle.as_mut(), if requests.is_empty() => break,
        }
    }
    let mut dropping = viewers.stages.clone();
    tokio::select! {
        biased;
        () = reached(&mut dropping, Stage::Dropping) => {}
        () = finish(&mut h3, &shared, &mut requests) => {}
    }
}

fn begin(
    viewers: &Viewers,
    shared: &Arc<Shared>,
    visit: &Arc<Visit>,
    requests: &mut JoinSet<()>,
    resolver: RequestResolver<Transport, Bytes>,
) {
    if let Some(stream) = taken(shared, &resolver) {
        requests.spawn(request::serve(Arc::clone(&viewers.road), Arc::clone(visit), resolver, stream));
    }
}

/// Says GOAWAY, waits for what runs, and closes.
async fn finish(h3: &mut Connection<Transport, Bytes>, shared: &Shared, requests: &mut JoinSet<()>) {
    // The crate's number is of the last request that is served, the frame's of the first that is not.
    if let Err(error) = h3.shutdown(1).await {
        return log(&error);
    }
    let mut crossing = pin!(tokio::time::sleep(CROSSING));
    loop {
        tokio::select! {
            biased;
            Some(_) = requests.join_next() => {}
            accepted = h3.accept() => match accepted {
                Ok(Some(resolver)) => refuse(shared, &resolver),
                // The viewer, too, has said that it goes.
                Ok(None) if requests.is_empty() => return,
                Ok(None) => {
                    while requests.join_next().await.is_some() {}
                    return;
                }
                Err(error) => return log(&error),
            },
            () = crossing.as_mut(), if requests.is_empty() => return,
        }
    }
}

fn refuse(shared: &Shared, resolver: &RequestResolver<Transport, Bytes>) {
    if let Some(stream) = taken(shared, resolver) {
        stream.abort(Code::H3_REQUEST_REJECTED);
    }
}

/// Our side of a stream that the h3 crate has accepted.
fn taken(shared: &Shared, resolver: &RequestResolver<Transport, Bytes>) -> Option<Arc<Stream>> {
    shared.take(resolver.frame_stream.send_id().into_inner())
}

fn log(error: &ConnectionError) {
    if !error.is_h3_no_error() {
        tracing::debug!(%error, "a viewer's HTTP/3 connection ended");
    }
}

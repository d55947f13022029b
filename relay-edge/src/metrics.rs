//! Counters for Prometheus. Handles are held, not looked up: an increment on the data path is one atomic.

use phlix_link::Transport;
use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Every number that an edge exports.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) connections: Connections,
    pub(crate) requests: Requests,
    pub(crate) bytes_in: IntCounter,
    pub(crate) bytes_out: IntCounter,
    pub(crate) active: IntGauge,
    pub(crate) first_byte: Histogram,
    pub(crate) duration: Histogram,
    pub(crate) refusals: IntCounterVec,
    pub(crate) cuts: IntCounter,
    pub(crate) relieved: IntCounter,
    pub(crate) resumes: IntCounterVec,
    pub(crate) tunnels: ByTransport<IntGauge>,
    pub(crate) tunnels_opened: ByTransport<IntCounter>,
    pub(crate) tunnels_refused: IntCounterVec,
    pub(crate) tunnels_lost: ByTransport<IntCounter>,
    pub(crate) handshakes_failed: IntCounter,
    pub(crate) connections_refused: IntCounter,
    pub(crate) glitches: IntCounterVec,
    pub(crate) revision: Gauge,
    pub(crate) ready: IntGauge,
    pub(crate) legacy: Legacy,
}

/// Tunnels of existing media servers.
pub(crate) struct Legacy {
    pub(crate) open: IntGauge,
    pub(crate) opened: IntCounter,
    /// Tunnels that ended, by reason.
    pub(crate) ended: IntCounterVec,
    /// Bytes of answers that wait for their viewers.
    pub(crate) queued: IntGauge,
    pub(crate) pauses: IntCounter,
    pub(crate) stalled: IntCounter,
    pub(crate) short: IntCounter,
    pub(crate) dropped: IntCounter,
    /// Raw channels that clients hold.
    pub(crate) mounts: IntGauge,
    /// Header fields that the wire can't carry, by what they were.
    pub(crate) fields: IntCounterVec,
    /// What a stream, and a tunnel, may hold, as it was configured.
    pub(crate) budgets: IntGaugeVec,
}

/// Viewers' connections by protocol.
pub(crate) struct Connections {
    pub(crate) http: IntCounter,
    pub(crate) h1: IntCounter,
    pub(crate) h2: IntCounter,
    pub(crate) h3: IntCounter,
    pub(crate) open: IntGauge,
}

/// One of something for each transport of tunnels.
pub(crate) struct ByTransport<T> {
    quic: T,
    websocket: T,
}

impl<T> ByTransport<T> {
    fn of(make: impl Fn(&str) -> T) -> Self {
        Self { quic: make(Transport::Quic.as_str()), websocket: make(Transport::WebSocket.as_str()) }
    }

    pub(crate) fn on(&self, transport: Transport) -> &T {
        match transport {
            Transport::Quic => &self.quic,
            Transport::WebSocket => &self.websocket,
        }
    }
}

/// Requests by what was asked and how it ended.
pub(crate) struct Requests {
    classes: [[IntCounter; 6]; 4],
}

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Hub = 0,
    Proxy = 1,
    Name = 2,
    Other = 3,
}

impl Room {
    const ALL: [Self; 4] = [Self::Hub, Self::Proxy, Self::Name, Self::Other];

    /// The word in metrics and access lines.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Proxy => "proxy",
            Self::Name => "name",
            Self::Other => "other",
        }
    }
}

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Requests {
    /// One more, that ended with this status; 0 for none.
    pub(crate) fn count(&self, room: Room, status: u16) {
        self.classes[room as usize][usize::from(status / 100).min(5)].inc();
    }
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| -> Result<Histogram, prometheus::Error> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let requests = counters(
            "phlix_edge_requests_total",
            "Requests by what was asked and class of status",
            &["room", "class"],
        )?;
        let accepted =
            counters("phlix_edge_connections_total", "Viewers' connections accepted, by protocol", &["protocol"])?;
        let open_tunnels =
            IntGaugeVec::new(Opts::new("phlix_edge_tunnels_open", "Tunnels open now, by transport"), &["transport"])?;
        registry.register(Box::new(open_tunnels.clone()))?;
        let opened_tunnels =
            counters("phlix_edge_tunnels_opened_total", "Tunnels that were let in, by transport", &["transport"])?;
        let lost_tunnels = counters(
            "phlix_edge_tunnels_dead_path_total",
            "Tunnels closed because no byte moved, by transport",
            &["transport"],
        )?;
        let legacy_ended = counters(
            "phlix_edge_legacy_tunnels_ended_total",
            "Tunnels of existing media servers that ended, by reason",
            &["reason"],
        )?;
        let legacy_budgets = IntGaugeVec::new(
            Opts::new(
                "phlix_edge_legacy_queue_limit_bytes",
                "Bytes of answers that may wait for viewers, per stream and per tunnel of an existing media server",
            ),
            &["of"],
        )?;
        registry.register(Box::new(legacy_budgets.clone()))?;
        let revision = Gauge::new("phlix_edge_bulletin_revision", "Revision of the bulletin that was reached")?;
        registry.register(Box::new(revision.clone()))?;
        Ok(Self {
            connections: Connections {
                http: accepted.with_label_values(&["http"]),
                h1: accepted.with_label_values(&["h1"]),
                h2: accepted.with_label_values(&["h2"]),
                h3: accepted.with_label_values(&["h3"]),
                open: gauge("phlix_edge_connections_open", "Viewers' connections open now")?,
            },
            requests: Requests {
                classes: Room::ALL.map(|room| CLASSES.map(|class| requests.with_label_values(&[room.as_str(), class]))),
            },
            bytes_in: counter("phlix_edge_request_body_bytes_total", "Bytes of requests' bodies taken from viewers")?,
            bytes_out: counter("phlix_edge_response_body_bytes_total", "Bytes of answers' bodies given to viewers")?,
            active: gauge("phlix_edge_requests_active", "Requests under way")?,
            first_byte: histogram(
                "phlix_edge_first_byte_seconds",
                "From a request's head to its answer's head",
                &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0],
            )?,
            duration: histogram(
                "phlix_edge_request_duration_seconds",
                "From a request's head to its answer's end",
                &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0, 7200.0],
            )?,
            refusals: counters(
                "phlix_edge_refusals_total",
                "Requests answered by the edge itself, by code",
                &["code"],
            )?,
            cuts: counter("phlix_edge_cuts_total", "Running exchanges cut because a right was withdrawn")?,
            relieved: counter(
                "phlix_edge_unread_resets_total",
                "Answers reset because their viewers did not read and held a tunnel's credit",
            )?,
            resumes: counters(
                "phlix_edge_resumes_total",
                "Exchanges whose tunnel died, by what was still missing (head, body) and what came of it",
                &["missing", "outcome"],
            )?,
            tunnels: ByTransport::of(|transport| open_tunnels.with_label_values(&[transport])),
            tunnels_opened: ByTransport::of(|transport| opened_tunnels.with_label_values(&[transport])),
            tunnels_refused: counters(
                "phlix_edge_tunnels_refused_total",
                "Tunnels that were refused, by code",
                &["code"],
            )?,
            tunnels_lost: ByTransport::of(|transport| lost_tunnels.with_label_values(&[transport])),
            handshakes_failed: counter("phlix_edge_handshakes_failed_total", "TLS and QUIC handshakes that failed")?,
            connections_refused: counter("phlix_edge_connections_refused_total", "Connections over a limit")?,
            glitches: counters(
                "phlix_edge_glitches_total",
                "Viewers' connections closed for what they sent too much of, or framed in two ways, by kind",
                &["kind"],
            )?,
            revision,
            legacy: Legacy {
                open: open_tunnels.with_label_values(&["legacy"]),
                opened: opened_tunnels.with_label_values(&["legacy"]),
                ended: legacy_ended,
                queued: gauge(
                    "phlix_edge_legacy_queued_bytes",
                    "Bytes of existing media servers' answers that wait for their viewers",
                )?,
                pauses: counter(
                    "phlix_edge_legacy_pauses_total",
                    "Times that a tunnel of an existing media server was not read because a viewer did not",
                )?,
                stalled: counter(
                    "phlix_edge_legacy_stalled_total",
                    "Answers given up because their viewers held up others of the same tunnel",
                )?,
                short: counter(
                    "phlix_edge_legacy_short_bodies_total",
                    "Answers of existing media servers that ended before their Content-Length",
                )?,
                dropped: counter(
                    "phlix_edge_legacy_frames_dropped_total",
                    "Frames of existing media servers for requests that were over or never made",
                )?,
                mounts: gauge(
                    "phlix_edge_legacy_mounts_open",
                    "Raw channels to existing media servers that clients hold",
                )?,
                fields: counters(
                    "phlix_edge_legacy_fields_dropped_total",
                    "Header fields left out because the wire can't carry them: of requests (unspeakable), repeated Set-Cookie (cookie)",
                    &["what"],
                )?,
                budgets: legacy_budgets,
            },
            ready: gauge("phlix_edge_ready", "1 when this edge is registered, approved and has a snapshot")?,
            registry,
        })
    }

    /// The page; with what else the process counts.
    pub(crate) fn page(&self, more: &[Registry]) -> Result<Vec<u8>, prometheus::Error> {
        let mut page = Vec::new();
        for registry in std::iter::once(&self.registry).chain(more) {
            TextEncoder::new().encode(&registry.gather(), &mut page)?;
        }
        Ok(page)
    }
}

//! Numbers for Prometheus. The process that runs us exports them on its loopback port.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

/// The control plane's own.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// By route template (never a path: ids and tokens are in it), method and status.
    pub(crate) requests: IntCounterVec,
    /// Seconds, by route template.
    pub(crate) duration: HistogramVec,
    /// Password hashes by outcome: `done`, `refused` (the queue was full).
    pub(crate) hashes: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: Registry) -> Self {
        let requests = IntCounterVec::new(
            Opts::new("phlix_control_requests_total", "Requests that the control plane answered."),
            &["route", "method", "status"],
        );
        let duration = HistogramVec::new(
            HistogramOpts::new("phlix_control_request_seconds", "Time to the answer's head.")
                .buckets(vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]),
            &["route"],
        );
        let hashes = IntCounterVec::new(
            Opts::new("phlix_control_password_hashes_total", "Password hashes, done or refused."),
            &["outcome"],
        );
        let valid = "the names above are valid and each is registered once";
        let (requests, duration, hashes) = (requests.expect(valid), duration.expect(valid), hashes.expect(valid));
        registry.register(Box::new(requests.clone())).expect(valid);
        registry.register(Box::new(duration.clone())).expect(valid);
        registry.register(Box::new(hashes.clone())).expect(valid);
        Self { registry, requests, duration, hashes }
    }

    /// All of them, for those who add their own.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// In Prometheus' text format.
    pub(crate) fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

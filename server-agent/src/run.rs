//! One agent from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use phlix_certs::pin::SpkiPin;
use phlix_protocol::keys::SigningKey;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::{HubClock, SystemClock, WallClock};
use crate::config::Config;
use crate::event::Event;
use crate::health::{self, OriginHealth};
use crate::hub::{HubClient, HubError, HubKeys, HubUrlError, checked_origin};
use crate::serve::Admission;
use crate::serve::origin::OriginConnector;
use crate::shared::{Shared, StatusBoard, Tell};
use crate::state::{self, Enrollment, Stage, State, StateError, Status};
use crate::trust::{self, TrustError};
use crate::{dial, enroll, keeper};

/// The status file is at most this old while the agent runs.
const STATUS_AT_LEAST: Duration = Duration::from_secs(60);

/// Why an agent ended. Each text says what to do, where there is something.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    HubUrl(#[from] HubUrlError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The hub has no certificate that is trusted here. A person may compare `seen` with what `phlix serve` printed;
    /// then run again with `Config::hub_key`.
    #[error(
        "the hub's certificate is not trusted. The SHA-256 of its key is {}: if `phlix serve` printed the same, confirm it with --hub-key",
        .seen.hex()
    )]
    HubNotTrusted { seen: SpkiPin },
    #[error("the hub did not take the claim: {0}")]
    ClaimRefused(HubError),
    /// Unclaimed by its owner, or too long away.
    #[error("{hub} no longer knows this server ({reason}): claim it anew with --claim-again")]
    NotEnrolled { hub: String, reason: HubError },
    #[error("this server is claimed at {enrolled}, not at {asked}: give that hub, another --state, or --claim-again")]
    OtherHub { enrolled: String, asked: String },
}

/// Runs an agent until `stop` is cancelled or it can't go on. `events` is called on the runtime's thread and must not
/// block.
pub async fn run(
    config: Config,
    events: impl Fn(Event) + Send + Sync + 'static,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let hub_origin = checked_origin(&config.hub, config.insecure)?;
    let (state, _lock) = State::open(&config.state_dir)?;
    let state = Arc::new(state);
    let key = state.server_key()?;
    let instance = state.instance()?;
    if config.claim_again {
        state.forget_enrollment()?;
    }
    let enrollment = state.enrollment()?;
    if let Some(found) = enrollment.as_ref().filter(|found| found.hub != hub_origin) {
        return Err(AgentError::OtherHub { enrolled: found.hub.clone(), asked: hub_origin });
    }
    // What a person confirmed now comes before what was confirmed then.
    let kept_pin = enrollment.as_ref().and_then(|found| found.hub_key.as_deref()?.parse().ok());
    let pin = config.hub_key.or(kept_pin);
    let clock = Arc::new(HubClock::new(Box::new(SystemClock)));
    let hub = Arc::new(HubClient::new(&config, hub_origin.clone(), pin, Arc::clone(&clock))?);
    let origin_connector = OriginConnector::new(&config)?;

    let board = Arc::new(StatusBoard::new(Status {
        version: env!("CARGO_PKG_VERSION").into(),
        hub: hub_origin.clone(),
        origin: config.origin.to_string(),
        origin_up: true,
        ..Status::default()
    }));
    let tell = telling(events, &board);
    let mut tasks = JoinSet::new();
    tasks.spawn(write_status(Arc::clone(&board), Arc::clone(&state)));

    let enrolled = tokio::select! {
        () = stop.cancelled() => {
            finish_status(&board, &state).await;
            return Ok(());
        }
        enrolled = enrolled(enrollment, &hub, &config, &key, pin, &state, &tell) => enrolled?,
    };
    let (enrollment, saved) = enrolled;
    board.change(|status| {
        status.server_id = Some(enrollment.server_id);
        status.owner_name.clone_from(&enrollment.owner_name);
        status.stage = Stage::Connecting;
    });

    let keys = HubKeys::new(Arc::clone(&hub), enrollment.jwks_path.clone(), Arc::clone(&clock), Arc::clone(&state));
    let shared = Arc::new(Shared {
        server_id: enrollment.server_id,
        instance,
        key,
        clock,
        hub,
        keys,
        state: Arc::clone(&state),
        edge_roots: trust::roots(config.ca_file.as_deref())?,
        origin_connector,
        admission: Admission::new(config.limits.remembered_tickets),
        origin: OriginHealth::new(),
        board: Arc::clone(&board),
        credentials: watch::Sender::new(None),
        want_ticket: Notify::new(),
        streams: std::sync::atomic::AtomicUsize::new(0),
        tell,
        config,
    });
    keeper::take_up_stored(&shared).await;

    let watched = Arc::clone(&shared);
    tasks.spawn(async move { health::watch_origin(&watched).await });
    let dialling = dial::keep_connected(Arc::clone(&shared), stop.clone());
    let outcome = tokio::select! {
        reason = keeper::keep(Arc::clone(&shared), enrollment, saved) => match reason {
            HubError::NotTrusted { seen } => Err(AgentError::HubNotTrusted { seen }),
            reason => Err(AgentError::NotEnrolled { hub: hub_origin, reason }),
        },
        () = dialling => Ok(()),
    };
    tasks.shutdown().await;
    finish_status(&board, &state).await;
    outcome
}

/// The enrollment of the folder, or a new one; and whether it is on disk.
async fn enrolled(
    found: Option<Enrollment>,
    hub: &HubClient,
    config: &Config,
    key: &SigningKey,
    pin: Option<SpkiPin>,
    state: &State,
    tell: &Tell,
) -> Result<(Enrollment, bool), AgentError> {
    let hub_key = pin.map(|pin| pin.to_string());
    match found {
        Some(found) if found.hub_key == hub_key => Ok((found, true)),
        // Another key was confirmed: kept once the hub has been reached by it.
        Some(found) => Ok((Enrollment { hub_key, ..found }, false)),
        None => {
            let enrollment = enroll::enroll(hub, &config.server_name, key, hub_key, &config.timings, &**tell)
                .await
                .map_err(|error| match error {
                    HubError::NotTrusted { seen } => AgentError::HubNotTrusted { seen },
                    other => AgentError::ClaimRefused(other),
                })?;
            let saved = state.save_enrollment(&enrollment);
            if let Err(error) = &saved {
                tell(Event::NotSaved { reason: error.to_string() });
            }
            Ok((enrollment, saved.is_ok()))
        }
    }
}

/// Passes events on, and keeps what they say of claiming in the status.
fn telling(events: impl Fn(Event) + Send + Sync + 'static, board: &Arc<StatusBoard>) -> Tell {
    let board = Arc::clone(board);
    Arc::new(move |event| {
        if let Event::ClaimPending { code, url, expires_in } = &event {
            let expires_at = SystemClock.now().saturating_add_unsigned(expires_in.as_secs());
            let stage = Stage::Claiming { code: code.clone(), url: url.clone(), expires_at };
            board.change(|status| status.stage = stage);
        }
        events(event);
    })
}

async fn write_status(board: Arc<StatusBoard>, state: Arc<State>) {
    loop {
        write_now(&board, &state).await;
        tokio::select! {
            () = board.changed() => {}
            () = tokio::time::sleep(STATUS_AT_LEAST) => {}
        }
    }
}

async fn write_now(board: &Arc<StatusBoard>, state: &Arc<State>) {
    let (board, state) = (Arc::clone(board), Arc::clone(state));
    let written = tokio::task::spawn_blocking(move || {
        // One after the other, each with what is true by then: the last one written is the last one true.
        let _turn = board.writing();
        let status = Status { updated_at: SystemClock.now(), ..board.current() };
        state::write_status(state.folder(), &status)
    })
    .await;
    if let Ok(Err(error)) = written {
        tracing::warn!(%error, "the status file can't be written");
    }
}

async fn finish_status(board: &Arc<StatusBoard>, state: &Arc<State>) {
    board.change(|status| status.stage = Stage::Stopped);
    write_now(board, state).await;
}

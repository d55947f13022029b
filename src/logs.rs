//! Logs: one JSON line an event on standard output and in a file per channel, rotated by size and redacted.
//!
//! Channels are told apart by the event's target: `audit`, `access` and the edge go to `audit` and `relay`, the control
//! plane to `hub`, the rest to `app`; errors go to `error` as well. All is written by a thread of its own: a data path
//! never waits for a disk or a terminal. When that thread can't keep up, lines are dropped and counted.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::settings::LogFormat;

/// A file is rotated at this size, in bytes.
const MAX_FILE: u64 = 10 * 1024 * 1024;
/// Rotated files that are kept: `<channel>.log.1` (newest) to `.5`.
const KEPT: u32 = 5;
/// Lines that may wait for the writer.
const QUEUE: usize = 8192;

/// Where a line belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Channel {
    App,
    Error,
    Hub,
    Relay,
    Audit,
}

impl Channel {
    fn of(metadata: &Metadata<'_>) -> Self {
        let target = metadata.target();
        if target.starts_with("audit") {
            Self::Audit
        } else if target.starts_with("access") || target.starts_with("phlix_relay_edge") {
            Self::Relay
        } else if target.starts_with("phlix_control_plane") {
            Self::Hub
        } else {
            Self::App
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Error => "error",
            Self::Hub => "hub",
            Self::Relay => "relay",
            Self::Audit => "audit",
        }
    }
}

/// Keeps the writer's thread; on drop what waits is written.
pub(crate) struct LogGuard {
    sender: Option<SyncSender<Line>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            // The subscriber keeps a sender for as long as the process lives: an explicit end, not a hang-up.
            let _ = sender.send(Line::End);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

enum Line {
    File { channel: Channel, error: bool, bytes: Vec<u8> },
    Stdout(Vec<u8>),
    End,
}

/// What can't be logged to, or by.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("HUB_LOG: {0}")]
    Directives(#[from] tracing_subscriber::filter::ParseError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

/// For commands that run once: what is worth saying, on standard error.
pub(crate) fn for_tool(directives: &str) -> Result<(), LogError> {
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).without_time().with_target(false);
    let layer = layer.with_ansi(io::stderr().is_terminal()).with_filter(EnvFilter::try_new(directives)?);
    // Only a second call in one process fails, and then the first one's subscriber stays.
    let _ = tracing_subscriber::registry().with(layer).try_init();
    Ok(())
}

/// For the agent: standard error, with the time; systemd and Docker keep it.
pub(crate) fn for_agent(directives: &str) -> Result<(), LogError> {
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    let layer = layer.with_ansi(io::stderr().is_terminal()).with_filter(EnvFilter::try_new(directives)?);
    let _ = tracing_subscriber::registry().with(layer).try_init();
    Ok(())
}

/// For a process that stays: standard output, and files in `<data_dir>/logs`.
pub(crate) fn for_service(
    directives: &str,
    format: LogFormat,
    data_dir: &Path,
    relay_log: Option<&Path>,
) -> Result<LogGuard, LogError> {
    let filter = || EnvFilter::try_new(directives);
    let folder = data_dir.join("logs");
    std::fs::create_dir_all(&folder).map_err(|source| LogError::File { path: folder.clone(), source })?;
    let (sender, receiver) = sync_channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let mut files = Files::new(folder, relay_log);
    files.open(Channel::App)?;
    let counter = Arc::clone(&dropped);
    let thread = std::thread::Builder::new()
        .name("log writer".into())
        .spawn(move || write_lines(&receiver, &mut files, &counter))
        .map_err(|source| LogError::File { path: data_dir.to_owned(), source })?;
    let to_files = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_writer(ToFiles { sender: sender.clone(), dropped: Arc::clone(&dropped) })
        .with_filter(filter()?);
    let pretty = match format {
        LogFormat::Pretty => true,
        LogFormat::Json => false,
        LogFormat::Auto => io::stdout().is_terminal(),
    };
    // Access lines are for the file: on a terminal they would bury everything else.
    let registry = tracing_subscriber::registry().with(to_files);
    let to_stdout = ToStdout { sender: sender.clone(), dropped };
    let started = if pretty {
        let layer = tracing_subscriber::fmt::layer().with_target(false).with_writer(to_stdout);
        let quiet = filter()?.add_directive("access=off".parse()?);
        registry.with(layer.with_filter(quiet)).try_init()
    } else {
        let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(to_stdout);
        registry.with(layer.with_filter(filter()?)).try_init()
    };
    // Only a second call in one process fails, and then the first one's subscriber stays.
    let _ = started;
    Ok(LogGuard { sender: Some(sender), thread: Some(thread) })
}

fn write_lines(receiver: &Receiver<Line>, files: &mut Files, dropped: &AtomicU64) {
    while let Ok(line) = receiver.recv() {
        // A full disk must not stop the hub: what can't be written is lost, as a dropped line is.
        match line {
            Line::File { channel, error, bytes } => {
                let _ = files.write(channel, &bytes);
                if error {
                    let _ = files.write(Channel::Error, &bytes);
                }
            }
            Line::Stdout(bytes) => {
                let _ = io::stdout().write_all(&bytes);
            }
            Line::End => break,
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let note = format!(
                "{{\"level\":\"WARN\",\"target\":\"log\",\"message\":\"log lines dropped\",\"lines\":{lost}}}\n"
            );
            let _ = files.write(Channel::App, note.as_bytes());
        }
    }
}

/// The open files of one process.
struct Files {
    folder: PathBuf,
    relay_log: Option<PathBuf>,
    open: BTreeMap<Channel, (File, u64)>,
}

impl Files {
    fn new(folder: PathBuf, relay_log: Option<&Path>) -> Self {
        Self { folder, relay_log: relay_log.map(Path::to_owned), open: BTreeMap::new() }
    }

    fn path(&self, channel: Channel) -> PathBuf {
        match (&self.relay_log, channel) {
            (Some(path), Channel::Relay) => path.clone(),
            _ => self.folder.join(format!("{}.log", channel.name())),
        }
    }

    fn open(&mut self, channel: Channel) -> Result<&mut (File, u64), LogError> {
        if !self.open.contains_key(&channel) {
            let path = self.path(channel);
            let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
            let opened = opened.and_then(|file| Ok((file.metadata()?.len(), file)));
            let (length, file) = opened.map_err(|source| LogError::File { path, source })?;
            self.open.insert(channel, (file, length));
        }
        Ok(self.open.get_mut(&channel).expect("it was just put there"))
    }

    fn write(&mut self, channel: Channel, bytes: &[u8]) -> Result<(), LogError> {
        let path = self.path(channel);
        let (_, length) = self.open(channel)?;
        if *length > 0 && *length + bytes.len() as u64 > MAX_FILE {
            self.open.remove(&channel);
            rotate(&path);
        }
        let (file, length) = self.open(channel)?;
        *length += bytes.len() as u64;
        file.write_all(bytes).map_err(|source| LogError::File { path, source })
    }
}

/// Moves `x.log.4` to `x.log.5`, …, `x.log` to `x.log.1`.
fn rotate(path: &Path) {
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    for number in (1..KEPT).rev() {
        let _ = std::fs::rename(numbered(number), numbered(number + 1));
    }
    let _ = std::fs::rename(path, numbered(1));
}

/// Hands each event to the files.
struct ToFiles {
    sender: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

/// Hands each event to standard output.
struct ToStdout {
    sender: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

/// One event on its way; sent when it is whole.
struct Event {
    sender: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
    /// Channel, and whether it is an error; `None` for standard output.
    file: Option<(Channel, bool)>,
    bytes: Vec<u8>,
}

impl<'a> MakeWriter<'a> for ToFiles {
    type Writer = Event;

    fn make_writer(&'a self) -> Event {
        self.event(Channel::App, false)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Event {
        self.event(Channel::of(metadata), *metadata.level() == Level::ERROR)
    }
}

impl ToFiles {
    fn event(&self, channel: Channel, error: bool) -> Event {
        let (sender, dropped) = (self.sender.clone(), Arc::clone(&self.dropped));
        Event { sender, dropped, file: Some((channel, error)), bytes: Vec::new() }
    }
}

impl<'a> MakeWriter<'a> for ToStdout {
    type Writer = Event;

    fn make_writer(&'a self) -> Event {
        Event { sender: self.sender.clone(), dropped: Arc::clone(&self.dropped), file: None, bytes: Vec::new() }
    }
}

impl Write for Event {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let bytes = redact(&self.bytes);
        let line = match self.file {
            Some((channel, error)) => Line::File { channel, error, bytes },
            None => Line::Stdout(bytes),
        };
        if let Err(TrySendError::Full(_)) = self.sender.try_send(line) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The last net under a mistake elsewhere: anything that looks like a JWT (`eyJ` and 16 or more of its characters) is
/// cut out. Nothing is meant to log one.
fn redact(line: &[u8]) -> Vec<u8> {
    const START: &[u8] = b"eyJ";
    const LEAST: usize = 16;
    let part_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.windows(START.len()).position(|window| window == START) {
        let length = rest[at..].iter().take_while(|byte| part_of_token(byte)).count();
        out.extend_from_slice(&rest[..at]);
        if length >= START.len() + LEAST {
            out.extend_from_slice(b"[redacted]");
        } else {
            out.extend_from_slice(&rest[at..at + length]);
        }
        rest = &rest[at + length..];
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_token_is_cut_out() {
        let line = b"{\"m\":\"got eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.c2ln and eyJ\",\"x\":1}";
        assert_eq!(redact(line), b"{\"m\":\"got [redacted] and eyJ\",\"x\":1}");
        assert_eq!(redact(b"plain"), b"plain");
    }

    #[test]
    fn files_are_rotated_by_size_and_only_some_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut files = Files::new(folder.path().to_owned(), None);
        let line = vec![b'x'; MAX_FILE as usize / 2 + 1];
        for _ in 0..8 {
            files.write(Channel::Hub, &line).expect("written");
        }
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .expect("folder")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        assert_eq!(names, ["hub.log", "hub.log.1", "hub.log.2", "hub.log.3", "hub.log.4", "hub.log.5"]);
    }
}

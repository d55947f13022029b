//! An edge on a thread of its own.

use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::config::{Config, Sockets};
use crate::{Addresses, Edge, StartError};

/// An edge that runs on its own thread. Dropping the handle asks it to end and does not wait.
pub struct EdgeHandle {
    addresses: Addresses,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts an edge on a thread with a current-thread runtime, and returns when it serves: within milliseconds.
pub fn spawn_thread(config: Config, sockets: Sockets) -> Result<EdgeHandle, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
    let (started, starting) = mpsc::sync_channel(1);
    let (stop, stopping) = oneshot::channel::<()>();
    let (end, ended) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("phlix-edge".into())
        .spawn(move || {
            runtime.block_on(async move {
                match Edge::start(config, sockets).await {
                    Ok(edge) => {
                        let _ = started.send(Ok(edge.addresses()));
                        // Asked, or the handle is gone: both mean "end".
                        let _ = stopping.await;
                        edge.shutdown().await;
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            });
            // What is left on the runtime ends here.
            drop(runtime);
            let _ = end.send(());
        })
        .map_err(StartError::Thread)?;
    let addresses = starting.recv().map_err(|_| StartError::ThreadEnded)??;
    Ok(EdgeHandle { addresses, stop: Some(stop), ended: Some(ended), thread: Some(thread) })
}

impl EdgeHandle {
    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Resolves when the edge's thread ends by itself, which it never should.
    pub async fn ended(&mut self) {
        if let Some(ended) = &mut self.ended {
            let _ = ended.await;
            self.ended = None;
        }
    }

    /// Ends the edge, see `Edge::shutdown`, and waits for its thread.
    pub async fn shutdown(mut self) {
        self.stop = None;
        self.ended().await;
        if let Some(thread) = self.thread.take() {
            // Its last deed was to tell us: it is over in a moment.
            let _ = thread.join();
        }
    }
}

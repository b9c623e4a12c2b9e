//! Signals that ask a process to end, while it waits with an open vault.
//!
//! A window that is closed, a session that ends and a person who says stop all mean the same: what was deleted is
//! overwritten, the vault is closed, and the command ends. Where nobody listens they end the process as they always do, and
//! the next unlock overwrites what is left (VLT-57).

use futures_util::future::select_all;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::signals;

/// Listens for them. From the first time on they do not end this process by themselves.
pub(crate) struct Stop {
    signals: Vec<Signal>,
}

impl Stop {
    /// Begins to listen for what this system gives.
    pub(crate) fn listen() -> Self {
        // Whoever ignores it for this process wants it to outlive its terminal: `nohup`.
        let hangup = (!signals::is_in("SigIgn", nix::sys::signal::Signal::SIGHUP)).then(SignalKind::hangup);
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit()];
        // What cannot be listened for ends the process without a word.
        Self { signals: kinds.into_iter().chain(hangup).filter_map(|kind| signal(kind).ok()).collect() }
    }

    /// Waits until one came.
    pub(crate) async fn asked(&mut self) {
        if self.signals.is_empty() {
            return std::future::pending().await;
        }
        let all = self.signals.iter_mut().map(|signal| Box::pin(signal.recv()));
        let _ = select_all(all).await;
    }
}

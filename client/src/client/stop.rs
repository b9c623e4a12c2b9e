//! Signals that ask a process to end, while it waits with an open vault.
//!
//! A window that is closed, a session that ends and a person who says stop all mean the same: what was deleted is
//! overwritten, the vault is closed, and the command ends. Where nobody listens they end the process as they always do, and
//! the next unlock overwrites what is left (VLT-57).

use futures_util::future::select_all;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for them. From the first time on they do not end this process by themselves.
pub(crate) struct Stop {
    signals: Vec<Signal>,
}

impl Stop {
    /// Begins to listen for what this system gives.
    pub(crate) fn listen() -> Self {
        let hangup = (!hangup_is_ignored()).then(SignalKind::hangup);
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

/// Whether whoever started this process wants it to outlive its terminal: `nohup`.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

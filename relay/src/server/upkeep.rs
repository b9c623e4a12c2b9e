//! What a relay does by itself while it serves.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, service::Service, store};

/// Between two looks at the deadlines: what a relay that is killed loses of its running time at most.
const WATCH: Duration = Duration::from_secs(15);
/// Between two looks at what retries need no more: what is appended and taken meanwhile stays for as long.
const FORGET: Duration = Duration::from_secs(60);
/// Between two retention sweeps.
const SWEEP: Duration = Duration::from_secs(3600);

/// TRP-10: tells the service how long it has been running.
pub(super) async fn watch(service: Arc<Service>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    let mut last = clock.steady();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(WATCH) => {}
        }
        let now = clock.steady();
        match service.watch(now.saturating_sub(last), clock.now()).await {
            Ok(()) => last = now,
            // The time counts with the next look.
            Err(_) => tracing::warn!("deadlines could not be looked at"),
        }
    }
}

/// Forgets what retries need no more.
pub(super) async fn forget(service: Arc<Service>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(FORGET) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            forgot = service.forget(clock.now()) => {
                if forgot.is_err() {
                    tracing::warn!("what retries need no more could not be deleted");
                }
            }
        }
    }
}

/// Deletes what is too old.
pub(super) async fn sweep(service: Arc<Service>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            swept = service.sweep(clock.now()) => {
                if swept.is_err() {
                    tracing::warn!("a retention sweep failed");
                }
                store::tell_damage();
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
    }
}

//! `serve`: the relay itself.

use std::{sync::Arc, time::Duration};

use lapwing_wire::address::RelayAddress;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    CliError, ServeArgs,
    init::{hold_relay, open_store},
    log,
    output::Output,
};
use crate::{
    clock::{Clock, SystemClock},
    config::Config,
    metrics::{self, Source},
    operator::{self, Desk, Running},
    place::Place,
    server::Server,
    service::Service,
    store::{KeptStore, Pressure},
};

/// How often the relay looks whether its disk has failed.
const WATCH: Duration = Duration::from_secs(1);
/// How long a commit may wait for the disk before that is reported while it still waits.
const STALL: Duration = Duration::from_secs(3);
/// Looks (`WATCH`) for which the disk must have had more room before that is told: a minute.
const CALM: u32 = 60;

pub(super) async fn run(args: &ServeArgs, place: &Place, output: &Output) -> Result<(), CliError> {
    let output = &output.logging();
    log::start(output.form());
    // Before anything else: a signal during start-up ends it in order too.
    let mut signals = Signals::new().map_err(CliError::System)?;
    // Before the key is read: whatever `wipe` does is done to nobody's relay, or ends this one first.
    hold_relay(place).await?;
    place.finish_rotation()?;
    let secret = place.secret()?;
    let mut config = load(place, output)?;
    let written = config.clone();
    if let Some(port) = args.port {
        config.network.port = port;
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = open_store(place, &config).await?;
    let service =
        Service::start(Arc::clone(&store) as _, config.limits(), &mut rand::rng(), clock.now()).await?;
    service.set_lineage(place.lineage()?);
    let service = Arc::new(service);
    let server =
        Arc::new(Server::start(&config.server(), &secret, Arc::clone(&service), Arc::clone(&clock))?);
    let address = RelayAddress::new(server.key(), &config.network.host, server.address().port())?;
    let stop = CancellationToken::new();
    let wish = CancellationToken::new();
    let running = Running { server: Arc::downgrade(&server), stop: wish.clone() };
    let desk = Desk::new(
        Arc::clone(&service),
        Arc::clone(&store),
        place.clone(),
        Some(address.clone()),
        Some(running),
    );
    let control = operator::listen(&place.control()).map_err(CliError::Control)?;
    let metrics = match config.metrics.address()? {
        None => None,
        Some(address) => {
            let listener = metrics::listen(address).await.map_err(CliError::Metrics)?;
            let at = listener.local_addr().map_err(CliError::Metrics)?;
            let source =
                Source { counters: server.counters(), store: Arc::clone(&store), folder: place.store() };
            output.talk(&format!("metrics on http://{at}/metrics"));
            Some(tokio::spawn(metrics::serve(listener, source, stop.clone())))
        }
    };
    let control = tokio::spawn(operator::serve(control, Arc::new(desk), clock, stop.clone()));
    let port = server.address().port();
    if output.is_json() {
        output.result("listening", json!({ "address": address.to_string(), "port": port }), "");
    }
    output.talk(&format!("listening on {}", server.address()));
    let reload = || reload(place, &written, &service, &*store, output);
    let ended = wait(&mut signals, &wish, &*store, &reload).await;
    stop.cancel();
    control.await.ok();
    if let Some(metrics) = metrics {
        metrics.await.ok();
    }
    std::fs::remove_file(place.control()).ok();
    if let Some(server) = Arc::into_inner(server) {
        server.shutdown(&service).await;
    }
    // Everything is on the disk. The engine, when it is dropped, waits for its worker, which may merge tables for a minute; whoever
    // destroys the relay waits for the end of this process, and not as long as that.
    std::mem::forget(store);
    ended
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

async fn wait(
    signals: &mut Signals,
    wish: &CancellationToken,
    store: &dyn KeptStore,
    reload: &dyn Fn(),
) -> Result<(), CliError> {
    let mut watch = tokio::time::interval(WATCH);
    // What was slept over is no time in which there was room.
    watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_stalled = false;
    let mut room = Room::default();
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.interrupt.recv() => return Ok(()),
            () = wish.cancelled() => return Ok(()),
            _ = signals.hangup.recv() => reload(),
            _ = watch.tick() => {
                let health = store.health();
                if health.has_failed {
                    return Err(CliError::DiskFailed);
                }
                is_stalled = report_stall(health.running_commit, is_stalled);
                if let Some(pressure) = room.look(health.pressure) {
                    report_room(pressure);
                }
            }
        }
    }
}

/// Says once that a commit hangs, and once that it ended.
fn report_stall(running: Option<Duration>, was_stalled: bool) -> bool {
    let is_stalled = running.is_some_and(|running| running >= STALL);
    if is_stalled && !was_stalled {
        tracing::warn!("a commit has been waiting for the disk for seconds; nothing is answered meanwhile");
    }
    if was_stalled && !is_stalled {
        tracing::warn!("the disk answers again");
    }
    is_stalled
}

/// What was told of the room on the disk.
#[derive(Default)]
struct Room {
    told: Pressure,
    /// Looks since the disk was as short of room as that, and how short it was at worst in these.
    calm: u32,
    worst: Pressure,
}

impl Room {
    /// What is to be told now: at once if room got shorter; if it did not, when it has been like that for a while, because at the limit
    /// it changes with each commit.
    fn look(&mut self, now: Pressure) -> Option<Pressure> {
        if now == self.told {
            (self.calm, self.worst) = (0, Pressure::default());
            return None;
        }
        self.calm += 1;
        self.worst = self.worst.max(now);
        if now < self.told && self.calm < CALM {
            return None;
        }
        *self = Self { told: self.worst, ..Self::default() };
        Some(self.told)
    }
}

fn report_room(pressure: Pressure) {
    match pressure {
        Pressure::None => tracing::warn!("the disk is no longer short of room: everything is taken again"),
        Pressure::NothingBegins => {
            tracing::warn!("the disk is short of room: no new mailboxes and attachments are taken");
        }
        Pressure::NothingNew => tracing::warn!("the disk is short of room: nothing new is taken"),
    }
}

/// A file with a mistake changes nothing; what is read at start only is named.
fn reload(place: &Place, started: &Config, service: &Service, store: &dyn KeptStore, output: &Output) {
    match load(place, output) {
        Ok(config) => {
            let later = config.needs_restart(started);
            if !later.is_empty() {
                output.talk(&format!("these take effect at the next start: {}", later.join(", ")));
            }
            service.set_limits(config.limits());
            store.set_reserve(config.storage.reserve.0);
            output.talk("limits read again");
        }
        Err(error) => output.warn(&format!("limits not changed: {error}")),
    }
}

/// Reads the configuration and warns of keys that mean nothing.
pub(super) fn load(place: &Place, output: &Output) -> Result<Config, CliError> {
    let text = place.config_text()?;
    let (config, unknown) = Config::parse(&text)?;
    if !Config::names_host(&text) {
        output.warn("relay.toml has no network.host: the address and new tickets say localhost");
    }
    for key in unknown {
        output.warn(&format!("relay.toml has an unknown key: {}", key.escape_debug()));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_room_got_short_is_told_at_once_and_that_there_is_more_when_it_stays_so() {
        use Pressure::{None as Enough, NothingBegins, NothingNew};
        let mut room = Room::default();
        assert_eq!(room.look(Enough), None);
        assert_eq!(room.look(NothingBegins), Some(NothingBegins));
        assert_eq!(room.look(NothingBegins), None);
        assert_eq!(room.look(NothingNew), Some(NothingNew));
        // About the limit: told once.
        for _ in 0..10 * CALM {
            assert_eq!(room.look(Enough), None);
            assert_eq!(room.look(NothingNew), None);
        }
        for _ in 2..CALM {
            assert_eq!(room.look(Enough), None);
        }
        assert_eq!(room.look(NothingBegins), None, "as little as that in all of the time");
        assert_eq!(room.look(Enough), Some(NothingBegins));
        for _ in 1..CALM {
            assert_eq!(room.look(Enough), None);
        }
        assert_eq!(room.look(Enough), Some(Enough));
        assert_eq!(room.look(Enough), None);
        assert_eq!(room.look(NothingNew), Some(NothingNew), "and anew");
    }
}

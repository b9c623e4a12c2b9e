//! Staying connected: what comes is taken as it comes, what waits is sent as soon as it can be.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::select_all};
use lapwing_wire::{
    address::RelayKey,
    frame::{Notice, ResponseBody},
};

use super::{Compartment, Driver, Report, WINDOW, mailbox_row, readable};
use crate::{
    engine::Effect,
    net::Backoff,
    store::{OpRow, Unit},
};

/// How often a follower looks whether it has to end, and for due work.
const TICK: Duration = Duration::from_millis(250);

/// Longest that one round of settling may take while following.
const ROUND: Duration = Duration::from_secs(20);

/// Whether following goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    On,
    /// It ends.
    End,
}

impl Driver {
    /// Receives and sends until `decide` says that it is enough. `decide` is asked with the effects of each round,
    /// and with none at least four times a second.
    pub async fn follow(
        &mut self,
        compartments: &[Compartment],
        decide: &mut dyn FnMut(&[(usize, Effect)]) -> Next,
    ) -> Report {
        let mut total = Report::default();
        let mut backoff = Backoff::default();
        let mut retry_at = tokio::time::Instant::now();
        loop {
            let mut report = Report::default();
            if tokio::time::Instant::now() >= retry_at {
                report = self.settle(compartments, ROUND).await;
                self.subscribe(compartments, &mut report).await;
                if report.trouble.is_empty() && !waiting(compartments) {
                    backoff.reset();
                }
                retry_at = tokio::time::Instant::now() + backoff.after_failure(&mut *self.rng);
            }
            if decide(&report.effects) == Next::End {
                return total;
            }
            total.trouble = report.trouble;
            total.faults.extend(report.faults);
            let mut report = Report::default();
            if let Some((relay, notice)) = self.next_notice().await {
                self.noticed(&relay, notice, compartments, &mut report).await;
                // Answers to what came leave at once.
                retry_at = tokio::time::Instant::now();
                backoff.reset();
                if decide(&report.effects) == Next::End {
                    return total;
                }
                total.faults.extend(report.faults);
            }
        }
    }

    /// The next thing that any relay says, or `None` after a tick.
    async fn next_notice(&self) -> Option<(RelayKey, Option<Notice>)> {
        let links: Vec<_> = self.lines.iter().map(|(relay, line)| (*relay, Arc::clone(&line.link))).collect();
        if links.is_empty() {
            tokio::time::sleep(TICK).await;
            return None;
        }
        let all = links.iter().map(|(relay, link)| async { (*relay, link.notice().await.ok()) }.boxed());
        tokio::time::timeout(TICK, select_all(all)).await.ok().map(|(said, _, _)| said)
    }

    async fn noticed(
        &mut self,
        relay: &RelayKey,
        notice: Option<Notice>,
        compartments: &[Compartment],
        report: &mut Report,
    ) {
        let Some(Notice::Window(window)) = notice else {
            self.lines.remove(relay);
            return;
        };
        for (number, compartment) in compartments.iter().enumerate() {
            if mailbox_row(compartment, &window.mailbox).is_some_and(|row| row.relay.key() == relay) {
                self.take(number, compartment, window, report).await;
                return;
            }
        }
    }

    async fn subscribe(&mut self, compartments: &[Compartment], report: &mut Report) {
        let relays: Vec<RelayKey> = self.lines.keys().copied().collect();
        for relay in relays {
            for (number, compartment) in compartments.iter().enumerate() {
                for mailbox in readable(compartment, &relay, report) {
                    let Some(row) = mailbox_row(compartment, &mailbox) else { continue };
                    let Some(line) = self.lines.get_mut(&relay) else { break };
                    if line.is_subscribed(&mailbox) {
                        continue;
                    }
                    match line.subscribe(&mailbox, &row, WINDOW).await {
                        Ok(ResponseBody::Window(window)) => {
                            self.take(number, compartment, window, report).await;
                        }
                        Ok(_) => {}
                        Err(_) => {
                            self.lines.remove(&relay);
                        }
                    }
                }
            }
        }
    }
}

fn waiting(compartments: &[Compartment]) -> bool {
    compartments.iter().any(|compartment| {
        Unit::new(&*compartment.base).range::<OpRow>(&[], None, 1, false).is_ok_and(|o| !o.is_empty())
    })
}

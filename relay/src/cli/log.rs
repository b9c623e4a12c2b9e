//! What the relay logs: warnings about itself on standard error; nothing about users.
//!
//! Invariant: only events of this crate are printed. Libraries know addresses, and some write them into their warnings:
//! the QUIC implementation does when a packet cannot be sent.

use tracing::{Level, Subscriber};
use tracing_subscriber::{filter::Targets, fmt::MakeWriter, layer::SubscriberExt};

/// The crate whose events are printed, as `tracing` names it; the modules below it too.
const OWN: &str = env!("CARGO_CRATE_NAME");

/// Starts logging to standard error, once a process.
pub(super) fn start() {
    tracing::subscriber::set_global_default(subscriber(std::io::stderr)).ok();
}

fn subscriber<W>(writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let print = tracing_subscriber::fmt()
        .with_max_level(Level::WARN)
        .with_target(false)
        .with_ansi(false)
        .with_writer(writer)
        .finish();
    print.with(Targets::new().with_target(OWN, Level::WARN))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn events_of_libraries_are_not_printed_whatever_their_level() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        tracing::subscriber::with_default(subscriber(move || writer.clone()), || {
            tracing::warn!(target: "quinn_udp", "sendmsg error: destination: 203.0.113.7:4433");
            tracing::error!(target: "quinn", "203.0.113.8");
            tracing::error!(target: "lapwing", "203.0.113.9");
            tracing::warn!(target: "rustls::server", "203.0.113.10");
            tracing::info!("of this crate, below the level");
            tracing::warn!("the disk is slow");
            tracing::error!(target: "lapwing_relay::store::fjall", "the disk refused");
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert!(!text.contains("203.0.113"), "{text}");
        assert!(text.contains("the disk is slow") && text.contains("the disk refused"), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}

//! What `serve` says on standard error, in one form: a line each, of when, how bad, and what. Nothing about users.
//!
//! ```text
//! 2026-11-23T07:00:00Z warn   the disk answers again
//! {"at":"2026-11-23T07:00:00Z","level":"warn","message":"the disk answers again","type":"log","v":1}      with --json
//! ```
//! Invariants: only events of this crate are printed, and of them the message only. Libraries know addresses, and some write
//! them into their warnings: the QUIC implementation does when a packet cannot be sent. Times are whole seconds.

use std::fmt;

use lapwing_wire::time::Timestamp;
use serde_json::json;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    filter::Targets,
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
};

use super::output::{VERSION, printable};
use crate::clock::{Clock, SystemClock};

/// The crate whose events are printed, as `tracing` names it; the modules below it too.
const OWN: &str = env!("CARGO_CRATE_NAME");

/// Starts logging to standard error, once a process.
pub(super) fn start(form: Form) {
    tracing::subscriber::set_global_default(subscriber(form, std::io::stderr)).ok();
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// Worth knowing.
    Info,
    /// Something is wrong.
    Warn,
    /// The relay cannot do its work.
    Error,
}

impl Weight {
    const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl Form {
    /// A line, without its end.
    pub(super) fn line(self, now: Timestamp, weight: Weight, message: &str) -> String {
        let at = i64::try_from(now.as_millis() / 1000).ok();
        let at = at.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        let at = at.unwrap_or_default().to_string();
        let (level, message) = (weight.name(), printable(message));
        match self {
            Self::Text => format!("{at} {level:<6} {message}"),
            Self::Json => {
                json!({ "v": VERSION, "type": "log", "at": at, "level": level, "message": message })
                    .to_string()
            }
        }
    }
}

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut message = Message::default();
        event.record(&mut message);
        let weight = match *event.metadata().level() {
            Level::ERROR => Weight::Error,
            Level::WARN => Weight::Warn,
            _ => Weight::Info,
        };
        writeln!(to, "{}", self.line(SystemClock.now(), weight, &message.0))
    }
}

/// What an event says. Other fields stay where they are.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

fn subscriber<W>(form: Form, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let print = tracing_subscriber::fmt()
        .with_max_level(Level::WARN)
        .with_ansi(false)
        .event_format(form)
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
        tracing::subscriber::with_default(subscriber(Form::Text, move || writer.clone()), || {
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

    #[test]
    fn a_line_is_of_one_form_and_says_the_message_only() {
        let now = Timestamp::from_millis(1_795_417_200_999);
        let said = "full\nof \"it\"";
        assert_eq!(Form::Text.line(now, Weight::Error, said), "2026-11-23T07:00:00Z error  full of \"it\"");
        let line = Form::Json.line(now, Weight::Info, said);
        assert_eq!(
            line,
            r#"{"at":"2026-11-23T07:00:00Z","level":"info","message":"full of \"it\"","type":"log","v":1}"#
        );
        let buffer = Buffer::default();
        let writer = buffer.clone();
        tracing::subscriber::with_default(subscriber(Form::Json, move || writer.clone()), || {
            tracing::warn!(peer = "203.0.113.7", "the disk is slow");
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["level"], &line["message"]), (&"warn".into(), &"the disk is slow".into()));
        assert!(!text.contains("203.0.113"), "{text}");
    }
}

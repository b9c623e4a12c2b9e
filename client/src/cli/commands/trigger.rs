//! `trigger`: a trusted contact's voice, given from afar.

use std::fmt;

use lapwing_wire::time::Timestamp;
use serde::Serialize;

use crate::{
    cli::{args::TriggerArgs, exit::Exit, output::Record, prompt::Question, shell::Shell},
    client::{Client, refused_by_engine},
    clock::{self, Zone},
    engine::{
        Command, Fault,
        view::{self, VoiceState, VoiceView},
    },
    error::Error,
    store::TrustSide,
    untrusted::Printable,
};

const ABOUT_VOICES: &str = "\
This gives your voice, as they asked you to for an emergency. When enough
trusted contacts have given theirs, all within five days, the relay alerts
all of them, and does there whatever else was prepared: that may destroy,
and cannot be taken back.";

/// What one can set off for a contact, as it is shown.
#[derive(Serialize)]
pub(super) struct Voice {
    needed: u8,
    of: u8,
    state: &'static str,
    given: Option<String>,
    until: Option<String>,
    /// When it was given, or until when it counts, for people.
    #[serde(skip)]
    time: String,
}

impl Voice {
    /// As it is at `now`.
    pub(super) fn of(view: &VoiceView, now: Timestamp) -> Self {
        let until = view.state.counts_until(now);
        let (state, given) = match view.state {
            VoiceState::Held => ("held", None),
            VoiceState::Waiting => ("waiting", None),
            VoiceState::Given(at) if until.is_some() => ("given", Some(at)),
            VoiceState::Given(at) => ("lapsed", Some(at)),
        };
        let short = |time| Zone::of_system().short(time, now);
        Self {
            needed: view.needed,
            of: view.of,
            state,
            time: until.or(given).map(short).unwrap_or_default(),
            given: given.map(clock::rfc3339),
            until: until.map(clock::rfc3339),
        }
    }
}

impl fmt::Display for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed, of, state, time, .. } = self;
        match *state {
            "given" => write!(f, "given until {time}"),
            "lapsed" => write!(f, "may no longer count (given {time}): trigger again"),
            "waiting" => f.write_str("waits for its relay"),
            _ => f.write_str("not given"),
        }?;
        write!(f, "; {needed} of {of} needed")
    }
}

#[derive(Serialize)]
struct Triggered {
    chat: String,
    state: &'static str,
    voices: Vec<Voice>,
}

impl Record for Triggered {
    const TYPE: &'static str = "trigger";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chat = &self.chat;
        match self.state {
            "given" => write!(f, "your voice for {chat} was given")?,
            _ => write!(f, "your voice for {chat} is kept; it leaves when the relay answers: lapwing sync")?,
        }
        for Voice { needed, of, until, time, .. } in &self.voices {
            match until {
                Some(_) => write!(f, "\nit counts until {time}; {needed} of {of} contacts are needed")?,
                None => write!(f, "\n{needed} of {of} contacts are needed")?,
            }
        }
        write!(f, "; the relay does not say how many there were")
    }
}

pub(super) async fn run(shell: &mut Shell, args: &TriggerArgs) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), &args.chat)?;
    // A voice may just be arriving.
    shell.settle(&mut client).await;
    // Whether there is such a chat at all.
    client.read(number, |unit| view::chat(unit, &args.chat))?;
    let voices = held(&client, number, &args.chat)?;
    if voices.is_empty() {
        return Err(refused_by_engine(&Fault::NoVoice));
    }
    shell.output.talk(ABOUT_VOICES);
    let mut hosts: Vec<String> = voices
        .iter()
        .flat_map(|voice| &voice.relays)
        .map(|relay| Printable::line(&format!("{}:{}", relay.host(), relay.port())).to_string())
        .collect();
    hosts.sort();
    hosts.dedup();
    shell.output.talk(format_args!("It goes to {}; whoever runs that sees your address.", hosts.join(", ")));
    if !(args.yes || shell.prompt.confirm(Question::new("give it", "--yes"))?) {
        return Err(Error::negative("your voice was not given", "run it again whenever you like"));
    }
    client.command(number, Command::Trigger { chat: args.chat.clone() })?;
    shell.settle(&mut client).await;
    let voices = held(&client, number, &args.chat)?;
    shell.close(client).await;
    let given = voices.iter().all(|voice| matches!(voice.state, VoiceState::Given(_)));
    let state = if given { "given" } else { "waiting" };
    let now = (shell.world.clock)();
    let voices = voices.iter().map(|voice| Voice::of(voice, now)).collect();
    shell.output.emit(&Triggered { chat: args.chat.clone(), state, voices })?;
    Ok(Exit::Done)
}

fn held(client: &Client, number: usize, chat: &str) -> Result<Vec<VoiceView>, Error> {
    let trusts = client.read(number, view::trusts)?.into_iter();
    let of_chat = trusts.filter(|trust| trust.side == TrustSide::Theirs && trust.chat == chat.trim());
    Ok(of_chat.flat_map(|trust| trust.voices).collect())
}

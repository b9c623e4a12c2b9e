//! `invite`, `join`, `verify`.

use std::fmt;

use lapwing_wire::address::RelayAddress;
use serde::Serialize;

use super::done::Done;
use crate::{
    cli::{
        args::{InviteArgs, JoinArgs, VerifyArgs},
        exit::Exit,
        output::Record,
        qr::{Qr, Style},
        shell::Shell,
    },
    clock,
    engine::{self, Command, MAX_VALIDITY, Reply, renewal, view},
    error::{Error, Retry},
};

#[derive(Serialize)]
struct Ticket {
    chat: String,
    ticket: String,
    #[serde(skip)]
    code: Option<String>,
}

impl Record for Ticket {
    const TYPE: &'static str = "ticket";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(code) = &self.code {
            writeln!(f, "{code}")?;
        }
        f.write_str(&self.ticket)
    }
}

pub(super) async fn invite(shell: &mut Shell, args: &InviteArgs) -> Result<Exit, Error> {
    let validity = clock::parse_span(&args.valid)
        .map_err(|error| Error::usage(format!("{error}"), "write it like 12h, 3d or 2weeks"))?;
    if validity > MAX_VALIDITY {
        return Err(Error::usage(
            "a ticket can be valid for at most 30 days",
            "relays forget what it needs after that; use --valid 30d or less",
        ));
    }
    let relay = args
        .relay
        .as_deref()
        .map(str::parse::<RelayAddress>)
        .transpose()
        .map_err(|error| Error::usage(format!("{error}"), "copy it from: lapwing relay list"))?;
    let mut client = shell.unlock().await?;
    let number = client.compartment(shell.compartment.as_deref())?;
    let command =
        Command::Invite { name: args.name.clone(), relay: relay.map(|relay| *relay.key()), validity };
    let Reply::Ticket { chat: _, text } = client.command(number, command)? else {
        return Err(Error::bug("another reply was expected"));
    };
    let report = shell.settle(&mut client).await;
    // Whatever is wrong there, the ticket is to be shown.
    let has_relay = !client.read(number, engine::is_invitation_refused).unwrap_or_default();
    shell.close(client).await;
    let code = if args.qr {
        // Upper case gives a smaller code, and a ticket is read in either.
        let style = Style::for_locale(|name| std::env::var(name).ok());
        Qr::new(&text.to_uppercase(), style).ok().map(|code| code.to_string())
    } else {
        None
    };
    shell.output.emit(&Ticket { chat: args.name.clone(), ticket: text, code })?;
    shell.output.talk("Give it to one person, best face to face. Whoever uses it first is the contact.");
    if !report.trouble.is_empty() || shell.world.offline || !has_relay {
        shell.output.warn("the relay does not have it yet: the ticket works after the next: lapwing sync");
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Joined {
    chat: String,
    state: &'static str,
}

impl Record for Joined {
    const TYPE: &'static str = "joined";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state {
            "open" => write!(f, "{} is a contact now", self.chat),
            _ => write!(f, "{} will be a contact as soon as the other side has answered", self.chat),
        }
    }
}

pub(super) async fn join(shell: &mut Shell, args: &JoinArgs) -> Result<Exit, Error> {
    let ticket = shell.argument(&args.ticket)?;
    let mut client = shell.unlock().await?;
    let number = client.compartment(shell.compartment.as_deref())?;
    client.command(number, Command::Join { ticket, name: args.name.clone() })?;
    let report = shell.settle(&mut client).await;
    let chat = client.read(number, |unit| view::chat(unit, &args.name))?;
    shell.close(client).await;
    match chat.state {
        view::ChatState::Failed => {
            return Err(Error::refused(
                "the ticket was used by somebody else, withdrawn, or is not genuine",
                "ask for a new ticket, and whether somebody else could have seen this one",
            ));
        }
        view::ChatState::Open => shell.output.emit(&Joined { chat: args.name.clone(), state: "open" })?,
        _ => shell.output.emit(&Joined { chat: args.name.clone(), state: "joining" })?,
    }
    if chat.state != view::ChatState::Open && report.trouble.is_empty() && !shell.world.offline {
        shell.output.talk("You can write already; it is delivered when the other side is online.");
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Safety {
    chat: String,
    number: String,
    verified: bool,
    /// The number that was compared was another one.
    carried: bool,
}

impl Record for Safety {
    const TYPE: &'static str = "safety_number";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.number)?;
        if self.verified && self.carried {
            write!(
                f,
                "You compared an earlier one: since then a new key was named inside that session. Compare this one too; \
                 if it is equal: lapwing verify {} --equal",
                self.chat
            )
        } else if self.verified {
            write!(f, "You recorded that it is equal on both sides.")
        } else {
            write!(f, "Compare it over another way; if it is equal: lapwing verify {} --equal", self.chat)
        }
    }
}

pub(super) async fn verify(shell: &mut Shell, args: &VerifyArgs) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), &args.chat)?;
    if args.equal || args.different {
        client.command(number, Command::Verify { chat: args.chat.clone(), equal: args.equal })?;
        shell.close(client).await;
        let what = if args.equal {
            format!("{} is verified", args.chat)
        } else {
            format!("{} is not verified", args.chat)
        };
        shell.output.emit(&Done::new(what))?;
        return Ok(Exit::Done);
    }
    let chat = client.read(number, |unit| view::chat(unit, &args.chat))?;
    let safety = client.read(number, |unit| view::safety_number(unit, &chat.id));
    let carried = client.read(number, |unit| renewal::carried(unit, &chat.id))?;
    shell.close(client).await;
    let safety = safety.map_err(|error| error.with_retry(Retry::Later))?;
    shell.output.emit(&Safety {
        chat: args.chat.clone(),
        number: safety.to_string(),
        verified: chat.verified,
        carried,
    })?;
    Ok(Exit::Done)
}

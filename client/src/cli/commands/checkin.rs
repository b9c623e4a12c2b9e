//! `checkin start|now|stop|status`: an alert that silence sets off.

use std::fmt;

use serde::Serialize;

use super::{done::Done, sos};
use crate::{
    cli::{
        args::{CheckinCommand, CheckinStartArgs},
        exit::Exit,
        output::Record,
        prompt::Question,
        shell::Shell,
        table::Table,
    },
    client::{CheckinRequest, Client},
    clock::{self, Zone},
    engine::checkin::{CheckinView, Standing},
    error::{Error, Kind, Retry},
    store::PlanState,
};

const WHAT_IT_IS: &str = "\
A check-in is an alert that your relay sends by itself when it has not heard
`lapwing checkin now` from you for the time that you choose: also if your
device is taken, broken or off. Reading or sending messages does not count,
nor does unlocking the vault.
The alert is prepared now and sealed for the people whom you trust. Your relay
cannot read it; it learns that you have a check-in, and how long it waits.
If you forget it they are alarmed for nothing: agree with them what they do
first. A vault that is lost or destroyed cannot be checked in with any more,
and the alert leaves.";

pub(super) async fn run(shell: &mut Shell, command: CheckinCommand) -> Result<Exit, Error> {
    match command {
        CheckinCommand::Start(args) => start(shell, args).await,
        CheckinCommand::Now => now(shell).await,
        CheckinCommand::Stop => stop(shell).await,
        CheckinCommand::Status => status(shell).await,
    }
}

async fn start(shell: &mut Shell, args: CheckinStartArgs) -> Result<Exit, Error> {
    let after = clock::parse_span(&args.every)
        .map_err(|error| Error::usage(error.to_string(), "for example: --every 24h"))?;
    let mut client = shell.unlock().await?;
    // A contact may just have agreed.
    shell.settle(&mut client).await;
    let number = client.compartment(shell.compartment.as_deref())?;
    shell.output.talk(WHAT_IT_IS);
    let alert = alerted(shell, &client, number, args.alert.to)?;
    let text = sos::words(shell, args.alert.text)?;
    shell.output.talk(format_args!(
        "After {} without `lapwing checkin now` the alert leaves, to {}.",
        clock::span_words(after),
        alert.join(", ")
    ));
    if !(args.yes || shell.prompt.confirm(Question::new("begin it like this", "--yes"))?) {
        return Err(Error::negative("no check-in was begun", "run it again whenever you like"));
    }
    let (place, instructions) = (args.alert.place, args.alert.instructions);
    client.start_checkin(number, CheckinRequest { after, alert, text, place, instructions }).await?;
    let checkins = client.checkins()?;
    let names = names(&client);
    shell.close(client).await;
    shell.output.emit(&Checkins::of(&names, checkins))?;
    shell.output.talk("To say that you are well: lapwing checkin now");
    Ok(Exit::Done)
}

/// Whom to alert: trusted contacts of this compartment.
fn alerted(
    shell: &mut Shell,
    client: &Client,
    number: usize,
    given: Vec<String>,
) -> Result<Vec<String>, Error> {
    if !given.is_empty() {
        return Ok(given);
    }
    let candidates = sos::trusted(client, number)?;
    if candidates.is_empty() {
        return Err(Error::refused(
            "there is nobody to alert in this compartment",
            "ask somebody: lapwing trust add CHAT; they agree with: lapwing trust accept CHAT",
        ));
    }
    sos::chosen(shell, candidates)
}

async fn now(shell: &mut Shell) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    let outcome = say(shell, &mut client).await;
    if !matches!(&outcome, Err(error) if error.kind() == Kind::Unreachable) {
        // Whoever lost it is told anew before the command ends.
        shell.settle(&mut client).await;
    }
    let checkins = client.checkins()?;
    let names = names(&client);
    shell.close(client).await;
    outcome?;
    shell.output.emit(&Checkins::of(&names, checkins))?;
    Ok(Exit::Done)
}

/// The word, in every compartment that waits for one, or in the one that was named.
async fn say(shell: &Shell, client: &mut Client) -> Result<(), Error> {
    let named = shell.compartment.as_deref().map(|name| client.compartment(Some(name))).transpose()?;
    let running = client.checkins()?.into_iter().filter(|(_, one)| one.state == PlanState::Armed);
    let mut numbers: Vec<usize> = running.map(|(number, _)| number).collect();
    if let Some(named) = named {
        numbers.retain(|number| *number == named);
    }
    if numbers.is_empty() {
        return Err(crate::client::refused_by_engine(&crate::engine::Fault::NoCheckin));
    }
    let (mut silent, mut came, mut lost) = (false, false, false);
    for number in numbers {
        for (_, standing) in client.check_in(number).await? {
            silent |= standing.is_none();
            came |= standing == Some(Standing::Came);
            lost |= standing == Some(Standing::Lost);
        }
    }
    if came {
        Err(Error::negative(
            "too late: the alert has left",
            "tell the people who got it; then: lapwing checkin stop, and start anew",
        ))
    } else if silent {
        Err(Error::unreachable(
            "a relay has not heard it: the alert leaves when its time is over",
            "check the network and run it again: lapwing checkin now",
        )
        .with_retry(Retry::Later))
    } else if lost {
        Err(Error::refused(
            "a relay had lost the check-in, and nothing was running there; it is told anew",
            "see that it runs again: lapwing checkin status",
        ))
    } else {
        Ok(())
    }
}

async fn stop(shell: &mut Shell) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    let number = match (shell.compartment.as_deref(), client.checkins()?.as_slice()) {
        (None, [(number, _)]) => *number,
        (name, _) => client.compartment(name)?,
    };
    client.stop_checkin(number)?;
    shell.settle(&mut client).await;
    let waits = client.is_checkin_ending(number)?;
    shell.close(client).await;
    if waits {
        return Err(Error::unreachable(
            "it is ended here, but a relay has not heard of it yet: the alert leaves when its time is over",
            "tell it before that: lapwing sync --wait 30",
        )
        .with_retry(Retry::Later));
    }
    shell.output.emit(&Done::new("the check-in is ended; no alert leaves any more"))?;
    Ok(Exit::Done)
}

async fn status(shell: &mut Shell) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    shell.settle(&mut client).await;
    let checkins = client.checkins()?;
    let names = names(&client);
    shell.close(client).await;
    shell.output.emit(&Checkins::of(&names, checkins))?;
    Ok(Exit::Done)
}

fn names(client: &Client) -> Vec<String> {
    client.compartments().iter().map(|one| one.name.clone()).collect()
}

#[derive(Serialize)]
struct Checkins {
    checkins: Vec<Checkin>,
}

#[derive(Serialize)]
struct Checkin {
    compartment: String,
    every_s: u64,
    alerts: Vec<String>,
    state: &'static str,
    heard: Option<String>,
    next: Option<String>,
    #[serde(skip)]
    every: String,
    #[serde(skip)]
    until: String,
}

impl Checkins {
    fn of(names: &[String], checkins: Vec<(usize, CheckinView)>) -> Self {
        let one = |(number, view): (usize, CheckinView)| {
            let next = view.heard.map(|heard| heard.plus(view.after));
            Checkin {
                compartment: names.get(number).cloned().unwrap_or_default(),
                every_s: view.after.as_secs(),
                state: match (view.state, view.came, view.armed) {
                    (PlanState::Pending, _, _) => "not set up",
                    (PlanState::Armed, true, _) => "over: the alert has left",
                    (PlanState::Armed, false, true) => "running",
                    (PlanState::Armed, false, false) => "to be armed anew",
                },
                heard: view.heard.map(clock::rfc3339),
                next: next.map(clock::rfc3339),
                every: clock::span_words(view.after),
                until: next.map_or_else(String::new, |at| Zone::of_system().short(at, clock::now())),
                alerts: view.alerts,
            }
        };
        Self { checkins: checkins.into_iter().map(one).collect() }
    }
}

impl Record for Checkins {
    const TYPE: &'static str = "checkins";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.checkins.is_empty() {
            return f.write_str("none; begin one with: lapwing checkin start");
        }
        let mut table = Table::new(&["compartment", "every", "next by", "alerts", "state"]);
        for one in &self.checkins {
            table.row([one.compartment.as_str(), &one.every, &one.until, &one.alerts.join(", "), one.state]);
        }
        write!(f, "{table}")
    }
}

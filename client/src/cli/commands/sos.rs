//! `sos add|list|remove`: duress passphrases, in plain words.

use std::fmt;

use serde::Serialize;

use super::done::Done;
use crate::{
    cli::{
        args::{ActionArg, SosAddArgs, SosCommand},
        exit::Exit,
        output::Record,
        prompt::Question,
        shell::Shell,
        table::Table,
    },
    client::{Client, FIRST_COMPARTMENT, PlanRequest, require_distinct},
    engine::view,
    error::Error,
    store::{PlanAction, PlanState, TrustSide},
};

const WHAT_IT_IS: &str = "\
A duress passphrase opens this vault like any other, but shows only the
compartments that you choose now. Typed at any prompt, it tells your relay
at once; the relay sends the alert that you prepare here to the people you
trust.";

const ABOUT_HIDE: &str = "\
hide: what it does not show stays in the file, unseen. Somebody who makes
you give up this passphrase cannot tell that there is more. Risk: whoever
later learns your real passphrase opens everything, from this file or from
any copy.";

const ABOUT_DESTROY: &str = "\
destroy: in the moment it is typed, the keys to everything that it does not
show are destroyed, in this file, for good, for you too. Risk: a copy of the
file made before still opens with your real passphrase. And in some
countries destroying what an authority asks for is an offence of its own;
ask a lawyer before you choose this.";

const ABOUT_REMOTE: &str = "\
remote: each of them gets a voice now. Enough of them together alert all of
them, without you and without this vault. What this vault holds on its disk
is not destroyed by that.";

const ABOUT_REMOTE_DESTROY: &str = "\
With destroy, the mailboxes of what would be destroyed are emptied too, and
keep nothing any more: you could not be written to there again.";

const ABOUT_SPACE: &str = "\
Inside the cover everything works. What is created there cannot know of what
is hidden and may take its room: with hide, make no compartment and no
passphrase while the cover is open unless you accept to lose something
hidden.";

pub(super) async fn run(shell: &mut Shell, command: SosCommand) -> Result<Exit, Error> {
    match command {
        SosCommand::Add(args) => add(shell, args).await,
        SosCommand::List => list(shell).await,
        SosCommand::Remove { name } => {
            let mut client = shell.unlock().await?;
            client.remove_plan(&name)?;
            shell.settle(&mut client).await;
            shell.close(client).await;
            shell
                .output
                .emit(&Done::new(format!("{name} is removed; its passphrase opens nothing any more")))?;
            Ok(Exit::Done)
        }
    }
}

async fn add(shell: &mut Shell, args: SosAddArgs) -> Result<Exit, Error> {
    let (mut client, real) = shell.unlock_with().await?;
    // A contact may just have agreed.
    shell.settle(&mut client).await;
    shell.output.talk(WHAT_IT_IS);
    let name = match args.name {
        Some(name) => name,
        None => shell.prompt.text(Question::new("a name for this plan", "--name"))?,
    };
    if client.plans()?.iter().any(|(_, plan)| plan.name == name.trim()) {
        return Err(Error::refused("there is already a plan of that name", "see: lapwing sos list"));
    }
    let shows = shown(shell, &mut client, args.show)?;
    let action = chosen_action(shell, args.action)?;
    let shows = make_cover(shell, &mut client, shows, args.yes)?;
    let numbers: Vec<usize> =
        shows.iter().map(|name| client.compartment(Some(name))).collect::<Result<_, _>>()?;
    let alert = if args.no_alert { Vec::new() } else { alerted(shell, &client, &numbers, args.alert.to)? };
    let text = match args.alert.text {
        None if alert.is_empty() => String::new(),
        given => words(shell, given)?,
    };
    let (place, instructions) = (args.alert.place, args.alert.instructions);
    let remote = args.remote;
    if remote.is_some() {
        shell.output.talk(ABOUT_REMOTE);
        if action == ActionArg::Destroy {
            shell.output.talk(ABOUT_REMOTE_DESTROY);
        }
    }
    confirm(shell, action, &shows, &alert, args.yes)?;
    let duress = shell.set_passphrase("new duress passphrase", args.new)?;
    require_distinct(&real, &duress)?;
    let action = match action {
        ActionArg::Hide => PlanAction::Hide,
        ActionArg::Destroy => PlanAction::Destroy,
    };
    let request = PlanRequest { name: name.clone(), shows, action, alert, text, place, instructions, remote };
    client.add_plan(request, &duress).await?;
    shell.settle(&mut client).await;
    shell.close(client).await;
    shell.output.emit(&Done::new(format!("{name} is armed")))?;
    shell.output.talk(
        "It was compared with the passphrase that you typed, not with others that you may have: lapwing passphrase compare",
    );
    shell.output.talk(
        "Use what the cover shows from time to time, so that it looks lived in. Tell the people you alert what to do.",
    );
    Ok(Exit::Done)
}

/// Which compartments stay.
fn shown(shell: &mut Shell, client: &mut Client, given: Vec<String>) -> Result<Vec<String>, Error> {
    if !given.is_empty() {
        let mut names = given;
        names.sort();
        names.dedup();
        return Ok(names);
    }
    let names: Vec<String> = client.compartments().iter().map(|one| one.name.clone()).collect();
    let options: Vec<&str> = names.iter().map(String::as_str).collect();
    let chosen = shell.prompt.choose(Question::new("which compartment stays visible", "--show"), &options)?;
    Ok(names.into_iter().skip(chosen).take(1).collect())
}

fn chosen_action(shell: &mut Shell, given: Option<ActionArg>) -> Result<ActionArg, Error> {
    if let Some(action) = given {
        shell.output.talk(match action {
            ActionArg::Hide => ABOUT_HIDE,
            ActionArg::Destroy => ABOUT_DESTROY,
        });
        return Ok(action);
    }
    shell.output.talk(ABOUT_HIDE);
    shell.output.talk(ABOUT_DESTROY);
    let question = Question::new("what becomes of everything else", "--do");
    Ok(match shell.prompt.choose(question, &["hide", "destroy"])? {
        0 => ActionArg::Hide,
        _ => ActionArg::Destroy,
    })
}

/// The first compartment cannot be shown: the keys of all later ones were noted in it, and old blocks of a disk still
/// hold those notes, for whoever has the duress passphrase. What lies in it keeps its place under another name, and a
/// new compartment takes the old name.
fn make_cover(
    shell: &mut Shell,
    client: &mut Client,
    shows: Vec<String>,
    yes: bool,
) -> Result<Vec<String>, Error> {
    let Some(first) = client.compartments().first().map(|one| one.name.clone()) else { return Ok(shows) };
    if !shows.iter().any(|name| name.trim() == first) {
        return Ok(shows);
    }
    let taken: Vec<String> = client.compartments().iter().map(|one| one.name.clone()).collect();
    let hidden = (1..)
        .map(|n| if n == 1 { "private".to_owned() } else { format!("private {n}") })
        .find(|name| !taken.contains(name))
        .unwrap_or_default();
    shell.output.talk(format_args!(
        "The first compartment of a vault cannot be shown: it has noted the keys of the others, and old copies\n\
         of the disk may still hold that. Instead, what is in {first} now is called {hidden} from here on and\n\
         stays hidden, and a new, empty {first} is made to be shown."
    ));
    if !(yes || shell.prompt.confirm(Question::new("do that", "--yes"))?) {
        return Err(Error::negative(
            "no plan was set up",
            "make a compartment to show: lapwing compartment create NAME",
        ));
    }
    client.rename_compartment(&first, &hidden)?;
    client.create_compartment(&first)?;
    Ok(shows)
}

/// Whom to alert: trusted contacts of a compartment that stays hidden.
fn alerted(
    shell: &mut Shell,
    client: &Client,
    shows: &[usize],
    given: Vec<String>,
) -> Result<Vec<String>, Error> {
    let mut candidates = Vec::new();
    for number in (0..client.compartments().len()).filter(|number| !shows.contains(number)) {
        candidates.extend(trusted(client, number)?);
    }
    if !given.is_empty() {
        if let Some(unknown) = given.iter().find(|chat| !candidates.contains(chat)) {
            return Err(Error::refused(
                format!("{unknown} is no trusted contact of a compartment that stays hidden"),
                "ask them with: lapwing trust add CHAT; they agree with: lapwing trust accept CHAT",
            ));
        }
        return Ok(given);
    }
    if candidates.is_empty() {
        shell.output.talk(
            "There is no trusted contact in a compartment that stays hidden, so nobody could be alerted.\n\
             To have one: lapwing trust add CHAT; they agree with: lapwing trust accept CHAT.",
        );
        if shell.prompt.confirm(Question::new("set it up without an alert", "--no-alert"))? {
            return Ok(Vec::new());
        }
        return Err(Error::negative("no plan was set up", "ask somebody first: lapwing trust add CHAT"));
    }
    chosen(shell, candidates)
}

/// The contacts of a compartment, by number, who have agreed to get our alerts.
pub(super) fn trusted(client: &Client, number: usize) -> Result<Vec<String>, Error> {
    let trusts = client.read(number, view::trusts)?.into_iter();
    Ok(trusts
        .filter(|trust| trust.side == TrustSide::Ours && trust.accepted)
        .map(|trust| trust.chat)
        .collect())
}

/// Asks whom of these to alert.
pub(super) fn chosen(shell: &mut Shell, candidates: Vec<String>) -> Result<Vec<String>, Error> {
    let mut options: Vec<&str> = vec!["all of them"];
    options.extend(candidates.iter().map(String::as_str));
    match shell.prompt.choose(Question::new("whom to alert", "--alert"), &options)? {
        0 => Ok(candidates),
        number => Ok(candidates.into_iter().skip(number - 1).take(1).collect()),
    }
}

/// What an alert says: as given, or asked for.
pub(super) fn words(shell: &mut Shell, given: Option<String>) -> Result<String, Error> {
    match given {
        Some(text) => Ok(text),
        None => {
            Ok(shell.prompt.text(Question::new("what the alert says (name, what it means)", "--text"))?)
        }
    }
}

fn confirm(
    shell: &mut Shell,
    action: ActionArg,
    shows: &[String],
    alert: &[String],
    yes: bool,
) -> Result<(), Error> {
    let fate = match action {
        ActionArg::Hide => "hides everything else",
        ActionArg::Destroy => "DESTROYS everything else for good",
    };
    shell.output.talk(ABOUT_SPACE);
    shell.output.talk(format_args!(
        "The passphrase you set next shows {}, {fate}, and alerts {}.",
        shows.join(", "),
        if alert.is_empty() { "nobody".to_owned() } else { alert.join(", ") }
    ));
    if !shows.iter().any(|name| name == FIRST_COMPARTMENT) {
        shell.output.talk(
            "Every vault begins with a compartment called main. A cover without one may be asked about; rename what\n\
             it shows with: lapwing compartment rename",
        );
    }
    if yes || shell.prompt.confirm(Question::new("set it up like this", "--yes"))? {
        return Ok(());
    }
    Err(Error::negative("no plan was set up", "run it again whenever you like"))
}

#[derive(Serialize)]
struct Plans {
    plans: Vec<Plan>,
}

#[derive(Serialize)]
struct Plan {
    name: String,
    shows: Vec<String>,
    action: &'static str,
    alerts: Vec<String>,
    remote: Option<Remote>,
    state: &'static str,
    compartment: String,
}

/// How many of the contacts set it off together, and how many can.
#[derive(Serialize)]
struct Remote {
    needed: u8,
    of: usize,
}

impl Plan {
    fn remote(&self) -> String {
        match &self.remote {
            None => String::new(),
            Some(Remote { needed, of: 0 }) => format!("{needed}, too few left"),
            Some(Remote { needed, of }) => format!("{needed} of {of}"),
        }
    }
}

impl Record for Plans {
    const TYPE: &'static str = "plans";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.plans.is_empty() {
            return f.write_str("none; set one up with: lapwing sos add");
        }
        let mut table = Table::new(&["name", "shows", "does", "alerts", "from afar", "state"]);
        for plan in &self.plans {
            table.row([
                plan.name.as_str(),
                &plan.shows.join(", "),
                plan.action,
                &plan.alerts.join(", "),
                &plan.remote(),
                plan.state,
            ]);
        }
        write!(f, "{table}")
    }
}

async fn list(shell: &mut Shell) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    shell.settle(&mut client).await;
    let mut plans = client.plans()?;
    plans.sort_by(|(_, one), (_, other)| one.name.cmp(&other.name));
    let plans = plans
        .into_iter()
        .map(|(number, plan)| Plan {
            state: match (plan.state, plan.fired, plan.armed) {
                (PlanState::Pending, _, _) => "not set up",
                (PlanState::Armed, _, _) if plan.agreed => "set off from afar, by your contacts",
                (PlanState::Armed, true, _) => "gone: set off, or lost by its relay",
                (PlanState::Armed, false, true) => "armed",
                (PlanState::Armed, false, false) => "to be armed anew",
            },
            name: plan.name,
            shows: plan.shows,
            action: match plan.action {
                PlanAction::Hide => "hide",
                PlanAction::Destroy => "destroy",
            },
            alerts: plan.alerts,
            remote: plan.remote.map(|view| Remote { needed: view.needed, of: view.of }),
            compartment: client.compartments()[number].name.clone(),
        })
        .collect();
    shell.close(client).await;
    shell.output.emit(&Plans { plans })?;
    Ok(Exit::Done)
}

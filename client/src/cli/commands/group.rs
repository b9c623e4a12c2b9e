//! `group ...`.

use std::fmt;

use serde::Serialize;

use super::done::Done;
use crate::{
    cli::{args::GroupCommandLine, exit::Exit, output::Record, shell::Shell, table::Table},
    engine::{
        Command, Reply,
        group::{GroupCommand, GroupReply, group_view},
        view,
    },
    error::Error,
};

pub(super) async fn run(shell: &mut Shell, command: GroupCommandLine) -> Result<Exit, Error> {
    match command {
        GroupCommandLine::Create { name, alias } => {
            let what = format!("founded the group {name}; invite with: lapwing group invite {name} CHAT");
            change(shell, None, GroupCommand::Create { name, alias, relay: None }, what).await
        }
        GroupCommandLine::Invite { group, chat } => {
            let what = format!("invited {chat} to {group}");
            change(shell, Some(&group.clone()), GroupCommand::Invite { group, chat }, what).await
        }
        GroupCommandLine::Approve { what, alias, name } => {
            let told = format!("said yes to {what}");
            let number = waiting_in(shell, &what);
            approve(shell, number, GroupCommand::Approve { what, alias, name }, told).await
        }
        GroupCommandLine::Decline { what } => {
            let told = format!("said no to {what}");
            let number = waiting_in(shell, &what);
            approve(shell, number, GroupCommand::Decline { what }, told).await
        }
        GroupCommandLine::Remove { group, member } => remove(shell, group, member).await,
        GroupCommandLine::Leave { group, end } => {
            let what = if end { format!("ended {group}") } else { format!("left {group}") };
            change(shell, Some(&group.clone()), GroupCommand::Leave { group, end }, what).await
        }
        GroupCommandLine::Members { group } => members(shell, &group).await,
        GroupCommandLine::Info { group } => info(shell, group.as_deref()).await,
    }
}

async fn change(
    shell: &mut Shell,
    group: Option<&str>,
    command: GroupCommand,
    what: String,
) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    let number = match group {
        Some(group) => client.compartment_of_chat(shell.compartment.as_deref(), group)?,
        None => client.compartment(shell.compartment.as_deref())?,
    };
    // What the log already holds counts before what we add to it.
    if group.is_some() {
        shell.settle(&mut client).await;
    }
    client.command(number, Command::Group(command))?;
    shell.settle(&mut client).await;
    shell.close(client).await;
    shell.output.emit(&Done::new(what))?;
    Ok(Exit::Done)
}

/// What an answer is about, to find the compartment in which it waits.
struct Waiting(String);

fn waiting_in(_shell: &Shell, what: &str) -> Waiting {
    Waiting(what.trim().to_owned())
}

async fn approve(
    shell: &mut Shell,
    Waiting(what): Waiting,
    command: GroupCommand,
    told: String,
) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    shell.settle(&mut client).await;
    let mut number = client.compartment(shell.compartment.as_deref())?;
    if shell.compartment.is_none() {
        for candidate in 0..client.compartments().len() {
            let waits = client.read(candidate, view::invitations)?;
            if waits.iter().any(|waits| *waits.group.expose() == what || waits.through == what) {
                number = candidate;
                break;
            }
        }
    }
    client.command(number, Command::Group(command))?;
    shell.settle(&mut client).await;
    shell.close(client).await;
    shell.output.emit(&Done::new(told))?;
    Ok(Exit::Done)
}

async fn remove(shell: &mut Shell, group: String, member: String) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), &group)?;
    shell.settle(&mut client).await;
    let command = Command::Group(GroupCommand::Remove { group: group.clone(), member });
    let Reply::Group(GroupReply::Removed { name }) = client.command(number, command)? else {
        return Err(Error::bug("another reply was expected"));
    };
    let report = shell.settle(&mut client).await;
    shell.close(client).await;
    let what = format!("{name} is not in {group} any more; what is sent from now on is closed to them");
    shell.output.emit(&Done::new(what))?;
    if !report.trouble.is_empty() {
        shell.output.warn("the relay could not be reached: the others learn of it when it answers");
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Members {
    group: String,
    members: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    name: String,
    role: String,
    me: bool,
    chat: Option<String>,
}

impl Record for Members {
    const TYPE: &'static str = "members";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["member", "role", "chat"]);
        for member in &self.members {
            let name = if member.me { format!("{} (you)", member.name) } else { member.name.clone() };
            table.row([name.as_str(), &member.role, member.chat.as_deref().unwrap_or_default()]);
        }
        write!(f, "{table}")
    }
}

async fn members(shell: &mut Shell, group: &str) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), group)?;
    shell.settle(&mut client).await;
    let chat = client.read(number, |unit| view::chat(unit, group))?.id;
    let shown = client.read(number, |unit| group_view(unit, &chat))?;
    shell.close(client).await;
    let mut members: Vec<Member> = shown
        .members
        .iter()
        .map(|member| Member {
            name: member.name.line().to_string(),
            role: format!("{:?}", member.role).to_lowercase(),
            me: member.me,
            chat: member.chat.clone(),
        })
        .collect();
    // The same order at every look: their ids, by which they are kept, say nothing to anybody.
    members.sort_by(|one, other| (one.role != "owner", &one.name).cmp(&(other.role != "owner", &other.name)));
    shell.output.emit(&Members { group: group.to_owned(), members })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Info {
    group: String,
    name: String,
    role: Option<String>,
    members: usize,
    epoch: u64,
    head: String,
    ended: bool,
    waiting_for_keys: bool,
    relay: Option<String>,
}

impl Record for Info {
    const TYPE: &'static str = "group";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "name     {}", self.name)?;
        writeln!(f, "members  {}", self.members)?;
        writeln!(f, "you are  {}", self.role.as_deref().unwrap_or("not a member"))?;
        writeln!(f, "epoch    {}", self.epoch)?;
        writeln!(f, "state    {}", self.head)?;
        if let Some(relay) = &self.relay {
            writeln!(f, "relay    {relay}")?;
        }
        if self.ended {
            writeln!(f, "This group is over for you.")?;
        }
        if self.waiting_for_keys {
            writeln!(f, "Somebody was removed; the new keys have not arrived yet, so messages wait.")?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Invitations {
    invitations: Vec<Invitation>,
}

#[derive(Serialize)]
struct Invitation {
    group: String,
    chat: String,
    kind: &'static str,
}

impl Record for Invitations {
    const TYPE: &'static str = "invitations";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.invitations.is_empty() {
            return f.write_str("nothing waits for an answer");
        }
        let mut table = Table::new(&["group", "through", "what"]);
        for one in &self.invitations {
            table.row([one.group.as_str(), &one.chat, one.kind]);
        }
        write!(
            f,
            "{table}answer with: lapwing group approve GROUP --as NAME, or: lapwing group decline GROUP"
        )
    }
}

async fn info(shell: &mut Shell, group: Option<&str>) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    shell.settle(&mut client).await;
    let Some(group) = group else {
        let mut invitations = Vec::new();
        for number in 0..client.compartments().len() {
            for waits in client.read(number, view::invitations)? {
                let kind = if waits.ours { "asks to be let in" } else { "invites you" };
                invitations.push(Invitation {
                    group: waits.group.line().to_string(),
                    chat: waits.through,
                    kind,
                });
            }
        }
        shell.close(client).await;
        shell.output.emit(&Invitations { invitations })?;
        return Ok(Exit::Done);
    };
    let number = client.compartment_of_chat(shell.compartment.as_deref(), group)?;
    let chat = client.read(number, |unit| view::chat(unit, group))?.id;
    let shown = client.read(number, |unit| group_view(unit, &chat))?;
    shell.close(client).await;
    shell.output.emit(&Info {
        group: group.to_owned(),
        name: shown.name.line().to_string(),
        role: shown.role.map(|role| format!("{role:?}").to_lowercase()),
        members: shown.members.len(),
        epoch: shown.epoch,
        head: shown.head,
        ended: shown.ended,
        waiting_for_keys: shown.waiting_for_keys,
        relay: shown.relay.map(|relay| relay.to_string()),
    })?;
    Ok(Exit::Done)
}

//! `status` and `access`: asked of the running relay, else of its store.

use lapwing_wire::{address::RelayAddress, time::Timestamp};
use serde_json::{Value, json};

use super::{
    AccessCommand, CliError, IssueArgs, error::OTHER_VERSION, init::open, output::Output, serve::load,
};
use crate::{
    clock::{Clock, SystemClock},
    config::{AccessConfig, Size},
    operator::{self, Ask, Reply, Status, TicketLine},
    place::Place,
    store::Pressure,
};

/// A commit that has been running for longer is told.
const STALL_MS: u64 = 3000;

pub(super) async fn status(place: &Place, output: &Output) -> Result<(), CliError> {
    let reply = ask(place, output, Ask::Status).await?;
    let Reply::Status(status) = reply else { return Err(unexpected(reply)) };
    output.result("status", serde_json::to_value(&status).unwrap_or(Value::Null), &status_text(&status));
    Ok(())
}

pub(super) async fn run(command: AccessCommand, place: &Place, output: &Output) -> Result<(), CliError> {
    match command {
        AccessCommand::Issue(IssueArgs { size, mailboxes, expires }) => {
            let (size, mailboxes) = match (size, mailboxes) {
                (Some(size), Some(mailboxes)) => (size, mailboxes),
                (size, mailboxes) => {
                    let access = defaults(place, output)?;
                    (size.unwrap_or(access.size), mailboxes.unwrap_or(access.mailboxes))
                }
            };
            let ask_for = Ask::AccessIssue {
                bytes: size.0,
                mailboxes,
                expires: expires.map(|span| SystemClock.now().plus(span.0)),
            };
            match ask(place, output, ask_for).await? {
                Reply::Issued { name, ticket } => {
                    if !output.is_json() {
                        output.talk(&format!("Its name, for `access list` and `access revoke`: {name}"));
                    }
                    let json = json!({ "name": name, "access_ticket": ticket });
                    output.result("access_ticket", json, &ticket);
                    Ok(())
                }
                other => Err(unexpected(other)),
            }
        }
        AccessCommand::List => match ask(place, output, Ask::AccessList).await? {
            Reply::Tickets(lines) => {
                lines.iter().for_each(|line| show(line, output));
                Ok(())
            }
            other => Err(unexpected(other)),
        },
        AccessCommand::Revoke { name } => match ask(place, output, Ask::AccessRevoke { name: name.clone() })
            .await?
        {
            Reply::Done => {
                let text =
                    format!("revoked {name}: mailboxes that were made with it go on until they are closed");
                output.result("revoked", json!({ "name": name }), &text);
                Ok(())
            }
            other => Err(unexpected(other)),
        },
    }
}

/// What a ticket allows of which the command does not say it.
fn defaults(place: &Place, output: &Output) -> Result<AccessConfig, CliError> {
    load(place, output).map(|config| config.access).map_err(|error| match error {
        CliError::Config(error) => CliError::NoDefaults(error),
        other => other,
    })
}

/// Asks the running relay; opens the store where none runs.
pub(super) async fn ask(place: &Place, output: &Output, question: Ask) -> Result<Reply, CliError> {
    let secret = place.secret()?;
    if let Some((reply, _)) = operator::ask(&place.control(), &question).await.map_err(CliError::Control)? {
        return Ok(reply);
    }
    // The others make what they need.
    if matches!(question, Ask::Status | Ask::AccessList | Ask::AccessRevoke { .. }) {
        place.check_store()?;
    }
    let config = load(place, output)?;
    let address = match config.network.port {
        0 => None,
        port => Some(RelayAddress::new(secret.public()?, &config.network.host, port)?),
    };
    let desk = open(place, &config, address).await?;
    let reply = desk.answer(question, SystemClock.now()).await;
    desk.service().shutdown().await;
    match reply {
        Reply::Failed { message, hint } => Err(CliError::Undone { message, hint }),
        reply => Ok(reply),
    }
}

pub(super) fn unexpected(reply: Reply) -> CliError {
    match reply {
        Reply::NoSuchTicket => CliError::NoSuchTicket,
        Reply::NoAddress => CliError::NoAddress,
        Reply::Failed { message, hint } => CliError::Refused { message, hint },
        Reply::Status(_)
        | Reply::Issued { .. }
        | Reply::Tickets(_)
        | Reply::Rotated { .. }
        | Reply::Rows
        | Reply::Done => {
            CliError::Refused { message: "it answered something else".into(), hint: OTHER_VERSION.into() }
        }
    }
}

fn status_text(status: &Status) -> String {
    let Status {
        version,
        address,
        connections,
        mailboxes,
        envelope_bytes,
        blobs,
        blob_bytes,
        tickets,
        disk_bytes,
        free_bytes,
        slow_commits,
        slowest_commit_ms,
        running_commit_ms,
        is_full,
        pressure,
        socket_buffer,
    } = status;
    let state = match connections {
        Some(connections) => format!("running, {connections} connections"),
        None => "not running".to_owned(),
    };
    let mut text = format!(
        "version          {version}\nstate            {state}\naddress          {}\n\
         mailboxes        {mailboxes}, {} waiting\nattachments      {blobs}, {}\naccess tickets   {tickets} valid\n\
         on disk          {}, {} free",
        address.as_deref().unwrap_or("none: the port is chosen at start"),
        Size(*envelope_bytes).rounded(),
        Size(*blob_bytes).rounded(),
        Size(*disk_bytes).rounded(),
        Size(*free_bytes).rounded(),
    );
    if let Some(buffer) = socket_buffer {
        text.push_str(&format!(
            "\nslow commits     {slow_commits} since the start, the slowest {slowest_commit_ms} ms\nsocket buffer    {}",
            Size(u64::try_from(*buffer).unwrap_or(u64::MAX)).rounded()
        ));
    }
    if let Some(running) = running_commit_ms.filter(|running| *running >= STALL_MS) {
        text.push_str(&format!("\nthe disk hangs: a commit has been waiting for {running} ms"));
    }
    if *is_full {
        text.push_str("\nthe disk is full: nothing new is taken until there is room");
    }
    text.push_str(match pressure {
        Pressure::None => "",
        Pressure::NothingBegins => {
            "\nthe disk is short of room: no new mailboxes and attachments are taken; see `doctor`"
        }
        Pressure::NothingNew => "\nthe disk is short of room: nothing new is taken; see `doctor`",
    });
    text
}

fn show(line: &TicketLine, output: &Output) {
    let TicketLine { name, quota_bytes, used_bytes, quota_mailboxes, used_mailboxes, expires, is_valid } =
        line;
    let expires = expires.and_then(rfc3339);
    let text = format!(
        "{name}  {}  mailboxes {used_mailboxes} of {quota_mailboxes}  {} of {}{}",
        if *is_valid { "valid" } else { "ended" },
        Size(*used_bytes).rounded(),
        Size(*quota_bytes),
        expires.as_ref().map_or_else(String::new, |end| format!("  until {end}")),
    );
    let json = json!({
        "name": name, "valid": is_valid, "expires": expires,
        "quota_bytes": quota_bytes, "used_bytes": used_bytes,
        "quota_mailboxes": quota_mailboxes, "used_mailboxes": used_mailboxes,
    });
    output.result("access_ticket", json, &text);
}

/// `None` for what lies beyond the calendar: nobody lives to see it.
fn rfc3339(at: Timestamp) -> Option<String> {
    let ms = i64::try_from(at.as_millis()).ok()?;
    jiff::Timestamp::from_millisecond(ms).ok().map(|at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_date_or_there_is_none() {
        let at = |ms| rfc3339(Timestamp::from_millis(ms));
        assert_eq!(at(0).as_deref(), Some("1970-01-01T00:00:00Z"));
        for beyond in [i64::MAX.unsigned_abs(), u64::MAX] {
            assert_eq!(at(beyond), None);
        }
    }
}

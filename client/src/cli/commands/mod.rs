//! One module per group of verbs: each parses nothing and prints through records.

mod alert;
mod backup;
mod chat;
mod checkin;
mod compartment;
mod contact;
mod demo;
mod doctor;
mod done;
mod draft;
mod erase;
mod file;
mod group;
mod grow;
mod message;
mod passphrase;
mod relay;
mod renew;
mod search;
mod sos;
mod trigger;
mod trust;
mod vault;

use super::{args::CommandLine, exit::Exit, shell::Shell};
use crate::error::Error;

/// Carries out a command.
///
/// # Errors
/// What went wrong, in two lines; nothing was lost.
pub async fn run(shell: &mut Shell, command: CommandLine) -> Result<Exit, Error> {
    match command {
        CommandLine::Init(args) => vault::init(shell, &args).await,
        CommandLine::Grow(args) => grow::grow(shell, &args).await,
        CommandLine::Status => vault::status(shell).await,
        CommandLine::Doctor => doctor::doctor(shell).await,
        CommandLine::Relay(command) => relay::run(shell, command).await,
        CommandLine::Invite(args) => contact::invite(shell, &args).await,
        CommandLine::Join(args) => contact::join(shell, &args).await,
        CommandLine::Verify(args) => contact::verify(shell, &args).await,
        CommandLine::Chat(command) => chat::run(shell, command).await,
        CommandLine::Send(args) => message::send(shell, &args).await,
        CommandLine::Draft(args) => draft::draft(shell, &args).await,
        CommandLine::Read(args) => message::read(shell, &args).await,
        CommandLine::Search(args) => search::search(shell, &args).await,
        CommandLine::Sync(args) => message::sync(shell, &args).await,
        CommandLine::Group(command) => group::run(shell, command).await,
        CommandLine::Compartment(command) => compartment::run(shell, command).await,
        CommandLine::Sos(command) => sos::run(shell, command).await,
        CommandLine::Checkin(command) => checkin::run(shell, command).await,
        CommandLine::Trust(command) => trust::run(shell, command).await,
        CommandLine::Trigger(args) => trigger::run(shell, &args).await,
        CommandLine::Alert(command) => alert::run(shell, command).await,
        CommandLine::Passphrase(command) => passphrase::run(shell, command).await,
        CommandLine::Backup(command) => backup::run(shell, command).await,
        CommandLine::Demo(args) => demo::run(shell, &args).await,
    }
}

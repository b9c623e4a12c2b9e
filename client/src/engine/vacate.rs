//! Leaving everything of a compartment that is about to be deleted.
//!
//! One commit ends the trusts, queues the closing of every mailbox, and marks the compartment: whoever opens it later
//! knows that its deletion was begun. What the relays have to do for it waits in the records like everything else; what
//! they have not done when the compartment goes expires there.

use super::{Cx, Fault, outgoing, trust};
use crate::store::{ChatRow, MailboxRow, Purpose, SettingsRow, TrustRow};

/// Ends trusts and mailboxes and marks the compartment as leaving. Groups must have been left before.
pub(super) fn vacate(cx: &mut Cx<'_, '_, '_>) -> Result<(), Fault> {
    let mut settings =
        cx.unit.get::<SettingsRow>(&())?.ok_or(Fault::Inconsistent("a compartment has no name"))?;
    settings.leaving = true;
    cx.unit.put(&(), &settings);
    for (_, row) in cx.unit.scan::<TrustRow>(&[])? {
        let Some(chat) = cx.unit.get::<ChatRow>(&row.chat)? else { continue };
        // Where the other side cannot be told, the trust is ended here all the same.
        if let Err(fault @ (Fault::Store(_) | Fault::Inconsistent(_))) = trust::remove(cx, &chat.name) {
            return Err(fault);
        }
    }
    for (mailbox, row) in cx.unit.scan::<MailboxRow>(&[])? {
        if row.admin.is_some() && !matches!(row.purpose, Purpose::Group(_)) {
            outgoing::close_mailbox(cx, &mailbox)?;
        }
    }
    Ok(())
}

//! Proofs of rights.

use lapwing_wire::{
    capability::{PublicKey, Right, Subject, Write},
    frame::{Prove, Refusal, ResponseBody},
    time::Timestamp,
};

use super::{ConnectionState, Service, unread};

/// Checked where there is no mailbox, so that the answer takes as long as for a mailbox with other keys. A point of
/// the curve: the base point of RFC 8032.
const NOBODY: PublicKey<Write> = PublicKey::from_bytes([
    0x58, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
    0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
]);

/// Owners' and contacts' keys that somebody may prove who has proved nothing else; above, `busy`.
const STRANGERS_PROOFS: usize = 64;

impl Service {
    /// CAP-03, FRM-04.
    pub(super) async fn prove(
        &self,
        connection: &ConnectionState,
        prove: &Prove,
        now: Timestamp,
    ) -> Result<ResponseBody, Refusal> {
        let Prove { subject, signature } = prove;
        let binding = connection.binding();
        let limit = self.limits().proofs_per_connection;
        // Everybody can make such keys.
        let limit_of_any = if connection.is_known() { limit } else { limit.min(STRANGERS_PROOFS) };
        let kept = match subject {
            Subject::Mailbox(id, right) => {
                let there = self.store.mailbox(*id).await.map_err(unread)?;
                let checked = match (&there, right) {
                    (Some(there), Right::Read) => subject.check(&there.keys.read, binding, signature),
                    (Some(there), Right::Write) => subject.check(&there.keys.write, binding, signature),
                    (Some(there), Right::Admin) => subject.check(&there.keys.admin, binding, signature),
                    (None, _) => subject.check(&NOBODY, binding, signature),
                };
                match (checked, there) {
                    (Ok(()), Some(there)) => connection.keep_right(*id, *right, there.born, limit),
                    _ => return Err(Refusal::NotAllowed),
                }
            }
            Subject::Access(key) => {
                subject.check(key, binding, signature).map_err(|_| Refusal::NotAllowed)?;
                let ticket = self.store.ticket(*key).await.map_err(unread)?;
                if !ticket.is_some_and(|ticket| ticket.is_valid(now)) {
                    return Err(Refusal::NoAccess);
                }
                connection.keep_access(*key, limit)
            }
            Subject::Tripwire(key) => {
                subject.check(key, binding, signature).map_err(|_| Refusal::NotAllowed)?;
                connection.keep_owner(*key, limit_of_any)
            }
            Subject::Anchor(key) => {
                subject.check(key, binding, signature).map_err(|_| Refusal::NotAllowed)?;
                connection.keep_subject(*subject, limit_of_any)
            }
            Subject::Trigger(key) => {
                subject.check(key, binding, signature).map_err(|_| Refusal::NotAllowed)?;
                connection.keep_subject(*subject, limit_of_any)
            }
            Subject::Thaw(key) => {
                subject.check(key, binding, signature).map_err(|_| Refusal::NotAllowed)?;
                connection.keep_subject(*subject, limit_of_any)
            }
        };
        if kept { Ok(ResponseBody::Done) } else { Err(Refusal::Busy) }
    }
}

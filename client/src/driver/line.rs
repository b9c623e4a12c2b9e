//! A link and what was proved and subscribed on it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::join_all;
use lapwing_wire::{
    capability::{SecretKey, Subject},
    frame::{Ack, MailboxKind, Read, Refusal, RequestBody, ResponseBody, Seq},
    ids::MailboxId,
};

use crate::{
    engine::Proof,
    net::{Link, LinkError},
    store::{MailboxRow, OpId},
};

/// How a mailbox is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// What is there now.
    Read,
    /// And what comes after it.
    Subscribe,
}

/// An operation, ready to be sent.
pub(super) struct Work {
    pub(super) op: OpId,
    pub(super) proofs: Vec<Proof>,
    pub(super) body: RequestBody,
}

/// A mailbox to be read.
pub(super) struct Reading {
    pub(super) mailbox: MailboxId,
    pub(super) row: MailboxRow,
}

pub(super) struct Line {
    pub(super) link: Arc<dyn Link>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    proven: HashSet<Subject>,
    subscribed: HashSet<MailboxId>,
    /// Mailboxes of which a window was taken on this link: the relay has what it had when the last one was taken.
    shown: HashSet<MailboxId>,
    /// The last acknowledgement that was answered.
    acknowledged: HashMap<MailboxId, Seq>,
}

impl Line {
    pub(super) fn new(link: Arc<dyn Link>) -> Self {
        Self { link, state: Mutex::default() }
    }

    pub(super) fn is_subscribed(&self, mailbox: &MailboxId) -> bool {
        self.state().subscribed.contains(mailbox)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends all operations at once and answers what became of each, in order. An operation whose right was refused
    /// gets that refusal as its answer.
    pub(super) async fn carry_out(&self, batch: Vec<Work>) -> Vec<(OpId, Result<ResponseBody, LinkError>)> {
        let proofs: Vec<&Proof> = batch.iter().flat_map(|work| &work.proofs).collect();
        let refused = self.prove(&proofs).await;
        let answers = batch.into_iter().map(|Work { op, proofs, body }| {
            let refusal = proofs.iter().find_map(|proof| refused.get(&proof.subject()).cloned());
            async move {
                match refusal {
                    Some(refusal) => (op, refusal),
                    None => (op, self.link.request(body).await),
                }
            }
        });
        join_all(answers).await
    }

    /// Proves what was not proved on this link before, all at once. Answers what failed.
    async fn prove(&self, proofs: &[&Proof]) -> HashMap<Subject, Result<ResponseBody, LinkError>> {
        let mut missing: HashMap<Subject, &Proof> = HashMap::new();
        for proof in proofs {
            let subject = proof.subject();
            if !self.state().proven.contains(&subject) {
                missing.insert(subject, proof);
            }
        }
        let binding = self.link.binding();
        let answers = missing.into_iter().map(|(subject, proof)| async move {
            (subject, self.link.request(proof.request(&binding)).await)
        });
        let mut failed = HashMap::new();
        for (subject, answer) in join_all(answers).await {
            match answer {
                Ok(ResponseBody::Done) => {
                    self.state().proven.insert(subject);
                }
                Ok(ResponseBody::Refused(refusal)) => {
                    failed.insert(subject, Ok(ResponseBody::Refused(refusal)));
                }
                // What is no answer to a proof must not pass for one to what was to follow.
                Ok(_) => {
                    failed.insert(subject, Ok(ResponseBody::Refused(Refusal::Unsupported)));
                }
                Err(error) => {
                    failed.insert(subject, Err(error));
                }
            }
        }
        failed
    }

    /// Asks for a window after each row's cursor; see [`Line::ask`].
    pub(super) async fn windows(
        &self,
        readings: &[Reading],
        count: u16,
        ask: Ask,
    ) -> Vec<Result<ResponseBody, LinkError>> {
        join_all(self.ask(readings, count, ask).await).await
    }

    /// Proves what is needed, then asks for a window after each row's cursor, all at once; the relay takes the requests in the order
    /// of what is returned. Each answer comes by itself.
    ///
    /// The first window of a link begins with what was taken last, if that is still there: something else under its number was stored by
    /// a relay that had lost it (INB-03). Of a queue it would be deleted unread with the acknowledgement; of a log it would look as if that
    /// had been read to its end.
    pub(super) async fn ask(
        &self,
        readings: &[Reading],
        count: u16,
        ask: Ask,
    ) -> Vec<impl Future<Output = Result<ResponseBody, LinkError>>> {
        let keys: Vec<Option<Proof>> = readings.iter().map(read_proof).collect();
        let proofs: Vec<&Proof> = keys.iter().flatten().collect();
        let refused = self.prove(&proofs).await;
        let requests = readings.iter().zip(&keys).map(|(Reading { mailbox, row }, key)| {
            let refusal = match key {
                Some(key) => refused.get(&key.subject()).cloned(),
                None => Some(Err(LinkError::Malformed)),
            };
            let is_shown = self.state().shown.contains(mailbox);
            let after = if is_shown { row.cursor } else { row.cursor.before() };
            let read = Read { mailbox: *mailbox, after, count };
            // Of a log nothing is deleted with an acknowledgement: where what was taken last cannot be read any more, it is left out, or nobody
            // could write to the log again.
            let without = (row.kind == MailboxKind::Log && after < row.cursor).then_some(Read {
                mailbox: *mailbox,
                after: row.cursor,
                count,
            });
            let is_told = ask == Ask::Read || self.is_subscribed(mailbox);
            let request = move |read| {
                let body = if is_told { RequestBody::Read(read) } else { RequestBody::Subscribe(read) };
                self.link.request(body)
            };
            async move {
                if let Some(refusal) = refusal {
                    return refusal;
                }
                match (request(read).await, without) {
                    (Ok(ResponseBody::Refused(Refusal::Busy)), Some(without)) => request(without).await,
                    (answer, _) => answer,
                }
            }
        });
        requests.collect()
    }

    /// A window was taken: what the relay has continues what was taken before, and may be acknowledged.
    pub(super) fn shown(&self, mailbox: &MailboxId) {
        self.state().shown.insert(*mailbox);
    }

    /// The window that a subscription began with is taken: what is told of the mailbox from now on continues it. Not before: a window
    /// that was answered and dropped would leave a gap before what is told, and what lies in it would be acknowledged with that.
    pub(super) fn subscribed(&self, mailbox: &MailboxId) {
        self.state().subscribed.insert(*mailbox);
    }

    /// Acknowledges all at once what was not acknowledged on this link before, of mailboxes that were shown on it. An
    /// acknowledgement that is lost is repeated on the next link.
    pub(super) async fn acknowledge(&self, taken: Vec<(MailboxId, Seq)>) -> Result<(), LinkError> {
        let due = taken.into_iter().filter(|(mailbox, upto)| {
            let state = self.state();
            let is_known = state.acknowledged.get(mailbox).is_some_and(|last| last >= upto);
            *upto > Seq::START && state.shown.contains(mailbox) && !is_known
        });
        let due: Vec<(MailboxId, Seq)> = due.collect();
        let answers = due.into_iter().map(|(mailbox, upto)| async move {
            let ack = Ack { mailbox, upto, also: Vec::new() };
            if let ResponseBody::Done = self.link.request(RequestBody::Ack(ack)).await? {
                self.state().acknowledged.insert(mailbox, upto);
            }
            Ok(())
        });
        join_all(answers).await.into_iter().collect()
    }

    /// The relay forgot: what was said of this mailbox on this link must be said again.
    pub(super) fn forget(&self, mailbox: &MailboxId) {
        let mut state = self.state();
        state.acknowledged.remove(mailbox);
        state.shown.remove(mailbox);
        state.subscribed.remove(mailbox);
    }
}

fn read_proof(Reading { mailbox, row }: &Reading) -> Option<Proof> {
    let seed = <[u8; 32]>::try_from(row.read.as_ref()?.as_slice()).ok()?;
    Some(Proof::Read(*mailbox, SecretKey::from_seed(seed)))
}

//! A link and what was proved and subscribed on it.

use std::{collections::HashSet, sync::Arc};

use futures_util::future::try_join_all;
use lapwing_wire::{
    capability::{SecretKey, Subject},
    frame::{Ack, Read, RequestBody, ResponseBody},
    ids::MailboxId,
};

use crate::{
    engine::Proof,
    net::{Link, LinkError},
    store::{MailboxRow, OpId},
};

/// An operation, ready to be sent.
pub(super) struct Work {
    pub(super) op: OpId,
    pub(super) proofs: Vec<Proof>,
    pub(super) body: RequestBody,
}

pub(super) struct Line {
    pub(super) link: Arc<dyn Link>,
    proven: HashSet<Subject>,
    subscribed: HashSet<MailboxId>,
}

impl Line {
    pub(super) fn new(link: Arc<dyn Link>) -> Self {
        Self { link, proven: HashSet::new(), subscribed: HashSet::new() }
    }

    pub(super) fn is_subscribed(&self, mailbox: &MailboxId) -> bool {
        self.subscribed.contains(mailbox)
    }

    /// Sends all operations at once and answers their answers, in order. An operation whose right was refused gets
    /// that refusal as its answer.
    pub(super) async fn carry_out(
        &mut self,
        batch: Vec<Work>,
    ) -> Result<Vec<(OpId, ResponseBody)>, LinkError> {
        let mut answers: Vec<(OpId, ResponseBody)> = Vec::new();
        let mut sent = Vec::new();
        for Work { op, proofs, body } in batch {
            match self.prove_all(&proofs).await? {
                Some(refusal) => answers.push((op, refusal)),
                None => sent.push((op, body)),
            }
        }
        let link = &self.link;
        let requests = sent.into_iter().map(|(op, body)| async move { Ok((op, link.request(body).await?)) });
        answers.extend(try_join_all(requests).await?);
        answers.sort_by_key(|(op, _)| *op);
        Ok(answers)
    }

    async fn prove_all(&mut self, proofs: &[Proof]) -> Result<Option<ResponseBody>, LinkError> {
        for proof in proofs {
            let subject = proof.subject();
            if self.proven.contains(&subject) {
                continue;
            }
            match self.link.request(proof.request(&self.link.binding())).await? {
                ResponseBody::Done => {
                    self.proven.insert(subject);
                }
                refusal => return Ok(Some(refusal)),
            }
        }
        Ok(None)
    }

    /// Reads a window after the row's cursor.
    pub(super) async fn read(
        &mut self,
        mailbox: &MailboxId,
        row: &MailboxRow,
        count: u16,
    ) -> Result<ResponseBody, LinkError> {
        self.window(mailbox, row, count, RequestBody::Read).await
    }

    /// Reads a window and asks for what comes after it.
    pub(super) async fn subscribe(
        &mut self,
        mailbox: &MailboxId,
        row: &MailboxRow,
        count: u16,
    ) -> Result<ResponseBody, LinkError> {
        let answer = self.window(mailbox, row, count, RequestBody::Subscribe).await?;
        // A refused mailbox is not asked for again on this link.
        self.subscribed.insert(*mailbox);
        Ok(answer)
    }

    async fn window(
        &mut self,
        mailbox: &MailboxId,
        row: &MailboxRow,
        count: u16,
        ask: fn(Read) -> RequestBody,
    ) -> Result<ResponseBody, LinkError> {
        let Some(seed) = row.read.as_ref().and_then(|seed| <[u8; 32]>::try_from(seed.as_slice()).ok()) else {
            return Err(LinkError::Malformed);
        };
        if let Some(refusal) = self.prove_all(&[Proof::Read(*mailbox, SecretKey::from_seed(seed))]).await? {
            return Ok(refusal);
        }
        self.link.request(ask(Read { mailbox: *mailbox, after: row.cursor, count })).await
    }

    /// Acknowledges. A lost acknowledgement is repeated by the next one.
    pub(super) async fn acknowledge(&mut self, ack: Ack) {
        let _ = self.link.request(RequestBody::Ack(ack)).await;
    }
}

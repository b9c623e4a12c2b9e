//! Anchors: who may ask for what, and what is answered.

use lapwing_wire::{
    capability::Subject,
    frame::{AnchorAnswer, AnchorRequest, Refusal, ResponseBody},
    ids::AnchorId,
    oprf::Blinded,
    time::Timestamp,
};

use super::{ConnectionState, Service, busy};
use crate::store::{AnchorChange, AnchorOutcome, Mutation, Outcome};

impl Service {
    pub(super) async fn anchor(
        &self,
        connection: &ConnectionState,
        request: AnchorRequest,
        now: Timestamp,
    ) -> Result<ResponseBody, Refusal> {
        match request {
            AnchorRequest::Create(make) => {
                require(connection, Subject::Anchor(make.owner))?;
                let charge = self.charge(connection, make.access)?;
                if !make.is_acceptable() {
                    return Err(Refusal::TooLarge);
                }
                self.change_anchor(AnchorChange::Create { make: Box::new(make), charge }, now).await
            }
            AnchorRequest::Set(set) => {
                require(connection, Subject::Anchor(set.owner))?;
                self.change_anchor(AnchorChange::Set(Box::new(set)), now).await
            }
            AnchorRequest::Remove(remove) => {
                require(connection, Subject::Anchor(remove.owner))?;
                self.change_anchor(AnchorChange::Remove(remove.owner), now).await
            }
            AnchorRequest::Evaluate(asked) => {
                // What cannot be evaluated is not counted.
                if !asked.blinded.is_element() {
                    return Err(Refusal::NotAllowed);
                }
                let blinded = asked.blinded;
                self.evaluate(AnchorChange::Evaluate(asked), &blinded, now).await
            }
            AnchorRequest::Prove(shown) => {
                let (anchor, proof) = (shown.anchor, shown.proof.clone());
                let answer = self.change_anchor(AnchorChange::Prove(shown), now).await?;
                let limit = self.limits().proofs_per_connection;
                // The deed is done, whether or not this connection may hold one more proof.
                if connection.keep_entry(anchor, proof, limit) { Ok(answer) } else { Err(Refusal::Busy) }
            }
            AnchorRequest::Stage(stage) => {
                let proof = session(connection, &stage.anchor)?;
                self.change_anchor(AnchorChange::Stage { proof, stage: Box::new(stage) }, now).await
            }
            AnchorRequest::Commit(settle) => {
                let proof = session(connection, &settle.anchor)?;
                self.change_anchor(AnchorChange::Commit { proof, settle }, now).await
            }
            AnchorRequest::Abort(settle) => {
                let proof = session(connection, &settle.anchor)?;
                self.change_anchor(AnchorChange::Abort { proof, settle }, now).await
            }
            AnchorRequest::Add(add) => {
                let proof = session(connection, &add.anchor)?;
                self.change_anchor(AnchorChange::Add { proof, add: Box::new(add) }, now).await
            }
            AnchorRequest::Thaw(raise) => {
                require(connection, Subject::Thaw(raise.key))?;
                self.change_anchor(AnchorChange::Thaw(raise), now).await
            }
        }
    }

    /// ANC-04: the counting is on disk before anything is computed.
    async fn evaluate(
        &self,
        change: AnchorChange,
        blinded: &Blinded,
        now: Timestamp,
    ) -> Result<ResponseBody, Refusal> {
        match self.apply_anchor(change, now).await? {
            AnchorOutcome::Evaluate(key) => {
                let evaluated = key.evaluate(blinded).map_err(|_| Refusal::NotAllowed)?;
                Ok(ResponseBody::Anchor(AnchorAnswer::Evaluated(evaluated)))
            }
            AnchorOutcome::Refused(refusal) => Err(refusal),
            AnchorOutcome::Done | AnchorOutcome::Released(_) => Err(Refusal::Busy),
        }
    }

    async fn change_anchor(&self, change: AnchorChange, now: Timestamp) -> Result<ResponseBody, Refusal> {
        match self.apply_anchor(change, now).await? {
            AnchorOutcome::Done => Ok(ResponseBody::Done),
            AnchorOutcome::Released(release) => Ok(ResponseBody::Anchor(AnchorAnswer::Released(*release))),
            AnchorOutcome::Refused(refusal) => Err(refusal),
            AnchorOutcome::Evaluate(_) => Err(Refusal::Busy),
        }
    }

    async fn apply_anchor(&self, change: AnchorChange, now: Timestamp) -> Result<AnchorOutcome, Refusal> {
        let change = Mutation::Anchor { change, filler: self.filler() };
        match self.apply(change, now).await.map_err(busy)? {
            Outcome::Anchor { outcome, appended, .. } => {
                self.publish(&appended);
                Ok(outcome)
            }
            Outcome::Refused(refusal) => Err(refusal),
            _ => Err(Refusal::Busy),
        }
    }
}

fn require(connection: &ConnectionState, subject: Subject) -> Result<(), Refusal> {
    if connection.has_proven(&subject) { Ok(()) } else { Err(Refusal::NotAllowed) }
}

/// The proof that was right on this connection: without it these requests would be guesses that nobody counts.
fn session(connection: &ConnectionState, anchor: &AnchorId) -> Result<lapwing_wire::anchor::Proof, Refusal> {
    connection.entry(anchor).ok_or(Refusal::NotAllowed)
}

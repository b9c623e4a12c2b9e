//! Tripwires: arm, disarm, token, voice.

use lapwing_wire::{
    capability::{PublicKey, Subject, TripwireOwner},
    frame::{Arm, RaiseTrigger, Refusal, ResponseBody},
    limits::MAX_TOKEN_RECORDS,
    time::Timestamp,
    tripwire::{RECORD_LENGTH, Status},
};

use super::{ConnectionState, Service, busy};
use crate::store::{Mutation, Outcome};

impl Service {
    pub(super) async fn arm(
        &self,
        connection: &ConnectionState,
        arm: Arm,
        now: Timestamp,
    ) -> Result<ResponseBody, Refusal> {
        let Arm { owner, access, serial, records, token_list, causes } = arm;
        if !connection.is_owner(&owner) {
            return Err(Refusal::NotAllowed);
        }
        let charge = self.charge(connection, access)?;
        if records.len() > MAX_TOKEN_RECORDS
            || records.iter().any(|record| record.sealed.len() != RECORD_LENGTH)
            || !token_list.is_acceptable()
            || causes.check().is_err()
        {
            return Err(Refusal::TooLarge);
        }
        self.change(
            Mutation::Arm { owner, serial, records, list: token_list, causes: Box::new(causes), charge },
            now,
        )
        .await
    }

    pub(super) async fn disarm(
        &self,
        connection: &ConnectionState,
        owner: PublicKey<TripwireOwner>,
        now: Timestamp,
    ) -> Result<ResponseBody, Refusal> {
        if !connection.is_owner(&owner) {
            return Err(Refusal::NotAllowed);
        }
        self.change(Mutation::Disarm { owner }, now).await
    }

    /// TRP-02, TRP-05: one path and one answer, whatever the token means.
    pub(super) async fn present(&self, mutation: Mutation, now: Timestamp) -> Result<ResponseBody, Refusal> {
        let Outcome::Token { status, appended, is_whole, .. } =
            self.apply(mutation, now).await.map_err(busy)?
        else {
            return Err(Refusal::Busy);
        };
        self.publish(&appended);
        if !is_whole {
            return Err(Refusal::Busy);
        }
        let mut rng = self.rng();
        Ok(ResponseBody::Token(match status {
            Some((said, key)) => Status::seal(said, &key, &mut *rng),
            None => Status::random(&mut *rng),
        }))
    }

    /// TRP-16: one answer, whatever the voice means.
    pub(super) async fn trigger(
        &self,
        connection: &ConnectionState,
        raise: RaiseTrigger,
        now: Timestamp,
    ) -> Result<ResponseBody, Refusal> {
        if !connection.has_proven(&Subject::Trigger(raise.key)) {
            return Err(Refusal::NotAllowed);
        }
        let change = Mutation::Trigger { raise, filler: self.filler() };
        let Outcome::Triggered { appended, is_whole, .. } = self.apply(change, now).await.map_err(busy)?
        else {
            return Err(Refusal::Busy);
        };
        self.publish(&appended);
        if is_whole { Ok(ResponseBody::Done) } else { Err(Refusal::Busy) }
    }
}

//! What sets off a tripwire beside its tokens: deadlines and voices, on any store.

use lapwing_wire::{
    capability::{PublicKey, SecretKey, Trigger, TripwireOwner},
    frame::RaiseTrigger,
    ids::TripwireId,
    sharing,
    tripwire::{Causes, Deadline, Quorum},
};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
/// Minutes of the shortest deadline, with the one that is added to each.
pub(super) const SHORTEST: u64 = 11;

/// Somebody whose tripwire alerts.
pub(super) struct Watched {
    pub(super) owner: SecretKey<TripwireOwner>,
    pub(super) token: Token,
    pub(super) alerts: Owner,
}

impl Watched {
    pub(super) fn new(byte: u8) -> Self {
        let owner = SecretKey::from_seed([byte; 32]);
        Self { owner, token: Token::from_bytes([byte; 32]), alerts: Owner::new(byte) }
    }

    pub(super) fn id(&self) -> TripwireId {
        TripwireId::of_owner(&self.owner.public())
    }

    pub(super) fn alert(&self, number: u64) -> Action {
        Action::append(self.alerts.id(), envelope(number, 1024), &self.alerts.write)
    }

    pub(super) fn arm(&self, serial: u64, causes: Causes) -> Result<Mutation, Violation> {
        let mut rng = StdRng::seed_from_u64(serial);
        let renew = OpenRecord {
            tripwire: self.id(),
            meaning: Meaning::Renew,
            list_key: ListKey::generate(&mut rng),
            status_key: StatusKey::generate(&mut rng),
        };
        let list = SealedList::seal(&[], &self.id(), &renew.list_key, &mut rng)
            .map_err(|_| Violation("no action fits".into()))?;
        Ok(Mutation::Arm {
            owner: self.owner.public(),
            serial,
            records: vec![TokenRecord::seal(&self.token, &renew, &mut rng)],
            list,
            causes: Box::new(causes),
            charge: Charge::Open,
        })
    }

    pub(super) async fn renew(&self, store: &dyn MailboxStore) -> Result<(), Violation> {
        let told = renewed(store, &self.token).await?;
        ensure(told.is_some(), "the owner's token is known")
    }
}

/// Lets minutes pass; the mailboxes that have something new.
pub(super) async fn pass(store: &dyn MailboxStore, minutes: u64) -> Result<usize, Violation> {
    let mut looks: Vec<Duration> = (0..minutes).map(|_| MINUTE).collect();
    let mut came = 0;
    while !looks.is_empty() {
        let changes =
            looks.drain(..).map(|elapsed| apply(store, Mutation::Watch { elapsed, filler: [4; 32] }, 1));
        let mut is_more = false;
        for outcome in together(changes).await {
            let Outcome::Watched { appended, has_more, .. } = outcome? else {
                return Err(Violation("a look at the deadlines is answered as one".into()));
            };
            came += appended.len();
            is_more = has_more;
        }
        looks.extend(is_more.then_some(Duration::ZERO));
    }
    Ok(came)
}

/// TRP-10, TRP-12, TRP-13, TRP-16 on any store.
pub(super) async fn check(store: &dyn MailboxStore) -> Result<(), Violation> {
    deadlines(store).await?;
    many_deadlines(store).await?;
    voices(store).await
}

async fn deadlines(store: &dyn MailboxStore) -> Result<(), Violation> {
    let watched = Watched::new(40);
    done(store, watched.alerts.create(MailboxKind::Queue, Charge::Open), "created").await?;
    let deadline = || Causes {
        alerting: Some(Deadline { after_s: 600, actions: vec![watched.alert(1)] }),
        ..Causes::default()
    };
    ensure(pass(store, 2).await? == 0, "nothing comes where nothing waits")?;
    done(store, watched.arm(1, deadline())?, "armed").await?;
    ensure(pass(store, SHORTEST - 1).await? == 0, "a deadline does not come early")?;
    for _ in 0..3 {
        watched.renew(store).await?;
        ensure(pass(store, SHORTEST - 1).await? == 0, "the owner's token puts it off")?;
    }
    done(store, watched.arm(2, deadline())?, "armed again").await?;
    ensure(pass(store, SHORTEST - 1).await? == 0, "arming begins anew")?;
    ensure(pass(store, 1).await? == 1, "it comes when its time has come")?;
    watched.renew(store).await?;
    ensure(pass(store, 2 * SHORTEST).await? == 0, "and once")?;
    ensure(numbers(store, &watched.alerts, 0).await? == [1], "what it did is there")?;
    done(store, watched.arm(3, deadline())?, "armed once more").await?;
    done(store, Mutation::Disarm { owner: watched.owner.public() }, "disarmed").await?;
    ensure(pass(store, 2 * SHORTEST).await? == 0, "what was disarmed does not come")
}

/// More at one time than one change does.
async fn many_deadlines(store: &dyn MailboxStore) -> Result<(), Violation> {
    const COUNT: u8 = 70;
    let alerts = Owner::new(41);
    done(store, alerts.create(MailboxKind::Queue, Charge::Open), "created").await?;
    let mut arms = Vec::new();
    for byte in 0..COUNT {
        let watched = Watched { alerts: Owner::new(41), ..Watched::new(byte) };
        let actions = vec![watched.alert(u64::from(byte))];
        let causes = Causes { alerting: Some(Deadline { after_s: 600, actions }), ..Causes::default() };
        arms.push(watched.arm(9, causes)?);
    }
    for armed in together(arms.into_iter().map(|arm| apply(store, arm, 1))).await {
        ensure(matches!(armed?, Outcome::Done), "armed")?;
    }
    ensure(pass(store, SHORTEST).await? == usize::from(COUNT), "all that have come come")?;
    ensure(pass(store, 2 * SHORTEST).await? == 0, "each once")?;
    ensure(numbers(store, &alerts, 0).await?.len() == usize::from(COUNT), "what they did is there")
}

async fn voices(store: &dyn MailboxStore) -> Result<(), Violation> {
    let watched = Watched::new(200);
    done(store, watched.alerts.create(MailboxKind::Queue, Charge::Open), "created").await?;
    let mut rng = StdRng::seed_from_u64(6);
    let key = ListKey::generate(&mut rng);
    let shares = sharing::split(&key, 2, 3, &mut rng).map_err(|_| Violation("a key is shared".into()))?;
    let keys: Vec<PublicKey<Trigger>> = (0..3).map(|byte| PublicKey::from_bytes([byte; 32])).collect();
    let voices: Vec<_> = keys.iter().copied().zip(shares.iter().cloned()).collect();
    let quorum = Quorum::seal(&watched.id(), &key, 2, &voices, &[watched.alert(1)], &mut rng)
        .map_err(|_| Violation("a quorum is made".into()))?;
    done(store, watched.arm(1, Causes { quorum: Some(quorum), ..Causes::default() })?, "armed").await?;
    let raise = async |voice: usize, share: usize, day: u32| -> Result<usize, Violation> {
        let (Some(key), Some(share)) = (keys.get(voice), shares.get(share)) else {
            return Err(Violation("there are three".into()));
        };
        let raise = RaiseTrigger { tripwire: watched.id(), key: *key, share: share.clone() };
        match apply(store, Mutation::Trigger { raise, filler: [5; 32] }, day).await? {
            Outcome::Triggered { appended, .. } => Ok(appended.len()),
            _ => Err(Violation("a voice is answered as a voice".into())),
        }
    };
    ensure(raise(0, 0, 1).await? == 0, "one voice is too few")?;
    ensure(raise(0, 0, 1).await? == 0, "also twice")?;
    ensure(raise(1, 2, 1).await? == 0, "and with another's share")?;
    ensure(raise(1, 1, 9).await? == 0, "a voice that is too old does not count")?;
    ensure(raise(2, 2, 9).await? == 1, "two are enough")?;
    ensure(raise(0, 0, 9).await? == 0, "once")?;
    ensure(numbers(store, &watched.alerts, 0).await? == [1], "what it did is there")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        EngineName, StoreOptions,
        engine::Engine,
        fjall::Fjall,
        record::{Cause, list_key},
        tables::{Space, Tables, Writes},
    };

    /// One list that the disk has spoilt keeps nobody else's deadline from coming.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_list_keeps_no_other_deadline_from_coming() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::at(dir.path().join("store"));
        let (spoilt, whole) = (Watched::new(40), Watched::new(41));
        let store = EngineName::Fjall.open(&options).unwrap();
        for (watched, after_s) in [(&spoilt, 600), (&whole, 660)] {
            done(&*store, watched.alerts.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
            let alerting = Some(Deadline { after_s, actions: vec![watched.alert(1)] });
            let causes = Causes { alerting, ..Causes::default() };
            done(&*store, watched.arm(1, causes).unwrap(), "armed").await.unwrap();
        }
        store.close().await;
        drop(store);
        let engine = Fjall::open(&options.path, options.memory).unwrap();
        let name = list_key(&spoilt.id(), Cause::Alerting);
        let mut value = engine.direct().load(Space::Bulk, &name).unwrap().unwrap();
        value[100] ^= 1;
        value.truncate(200);
        engine.write(&Writes::from([(name, Some(value))]), &Writes::new()).unwrap();
        drop(engine);
        let store = EngineName::Fjall.open(&options).unwrap();
        for _ in 0..2 * SHORTEST {
            pass(&*store, 1).await.ok();
        }
        let came = numbers(&*store, &whole.alerts, 0).await.unwrap();
        store.close().await;
        assert_eq!(came, [1], "nobody was alerted, since somebody else's list is damaged");
    }
}

//! Anything, in any order, on a bad network, over several seeds: in the end everybody agrees, everybody who was a member
//! has every message exactly once, and nobody else has any.

#![expect(clippy::unwrap_used, reason = "scenario tests")]

use std::collections::{BTreeMap, BTreeSet};

use lapwing::{
    engine::{
        Command,
        group::{GroupCommand, group_view},
        view::ChatState,
    },
    store::OpRow,
};
use lapwing_tests::world::{Crash, Faults, Person, World, calm, introduce};
use rand_core::RngCore;

const GROUP: &str = "soak";
const PEOPLE: [&str; 5] = ["ana", "ben", "cem", "dia", "eva"];

/// Seeds of one run, and what each does.
const SEEDS: u64 = 12;
const STEPS: usize = 60;

struct Soak {
    world: World,
    people: Vec<Person>,
    /// Who is in the group; the first one owns it.
    members: BTreeSet<usize>,
    /// Every text, its author, and who must have it.
    texts: BTreeMap<String, (usize, BTreeSet<usize>)>,
    /// Direct texts: to whom.
    direct: Vec<(usize, usize, String)>,
    rng: rand_chacha::ChaCha20Rng,
}

impl Soak {
    async fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let (a, b) = (world.relay().await, world.relay().await);
        let both = [a, b];
        let mut people: Vec<Person> = Vec::new();
        for (number, name) in PEOPLE.iter().enumerate() {
            people.push(world.person(name, if number % 2 == 0 { &both } else { &both[1..] }));
        }
        let (first, others) = people.split_first_mut().unwrap();
        for other in others {
            introduce(first, other).await;
        }
        first.group(GroupCommand::Create { name: GROUP.into(), alias: PEOPLE[0].into(), relay: None });
        let rng = world.rng();
        let mut soak = Self {
            world,
            people,
            members: BTreeSet::from([0]),
            texts: BTreeMap::new(),
            direct: Vec::new(),
            rng,
        };
        soak.add(1).await;
        soak.add(2).await;
        soak
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.next_u64() % u64::try_from(bound).unwrap()).unwrap()
    }

    /// Nothing goes wrong until everybody has everything.
    async fn calm(&mut self) {
        for person in &mut self.people {
            person.restart();
        }
        self.world.net.set_faults(Faults::default());
        calm(&mut self.people.iter_mut().collect::<Vec<_>>()).await;
    }

    async fn add(&mut self, who: usize) {
        self.calm().await;
        let chat = PEOPLE[who];
        // Of an earlier membership.
        for old in 0..20 {
            let name = if old == 0 { GROUP.to_owned() } else { format!("{GROUP} {old}") };
            let known = self.people[who].look(|unit| lapwing::engine::view::chat(unit, &name));
            if known.is_ok_and(|known| known.state == ChatState::Ended) {
                let to = format!("ended {}", self.rng.next_u64());
                self.people[who].must(Command::Rename { chat: name, name: to });
            }
        }
        self.people[0].group(GroupCommand::Invite { group: GROUP.into(), chat: chat.into() });
        self.calm().await;
        let approve = GroupCommand::Approve { what: GROUP.into(), alias: chat.into(), name: None };
        self.people[who].group(approve);
        self.calm().await;
        self.members.insert(who);
    }

    async fn remove(&mut self, who: usize) {
        // What was said before is known to everybody, so that who must have it is known to the test.
        self.calm().await;
        self.people[0].group(GroupCommand::Remove { group: GROUP.into(), member: PEOPLE[who].into() });
        // From here on the log says so: who writes after it writes for those who remain.
        self.people[0].sync().await;
        self.members.remove(&who);
        self.world.net.set_faults(Faults::BAD);
    }

    /// A message to the group. Who writes while a removal is on its way writes for those who remain.
    fn say(&mut self, who: usize) {
        let text = format!("{} {}", PEOPLE[who], self.texts.len());
        let sent = self.people[who].command(Command::Send { chat: GROUP.into(), text: text.clone() });
        self.revive(who);
        // A process that died may have written it before.
        let is_written = sent.is_ok() || self.people[who].lines(GROUP).iter().any(|line| line.text == text);
        if is_written && self.members.contains(&who) {
            self.texts.insert(text, (who, self.members.clone()));
        }
    }

    /// A process that died begins anew.
    fn revive(&mut self, who: usize) {
        if self.people[who].base().is_dead() {
            self.people[who].restart();
        }
    }

    async fn step(&mut self) {
        let who = self.below(PEOPLE.len());
        match self.below(20) {
            0..=7 if self.members.contains(&who) => self.say(who),
            8..=13 => {
                self.people[who].settle().await;
                self.revive(who);
            }
            14 => {
                self.people[who].restart();
                let crash =
                    Crash { at: 1 + self.rng.next_u64() % 12, kept: self.rng.next_u32().is_multiple_of(2) };
                self.people[who].base().crash_at(crash);
            }
            15 | 16 => {
                let other = if who == 0 { 1 + self.below(PEOPLE.len() - 1) } else { 0 };
                let text = format!("direct {}", self.direct.len());
                let chat = PEOPLE[other];
                let sent = self.people[who].command(Command::Send { chat: chat.into(), text: text.clone() });
                self.revive(who);
                if sent.is_ok() || self.people[who].lines(chat).iter().any(|line| line.text == text) {
                    self.direct.push((who, other, text));
                }
            }
            17 => self.world.clock.advance(std::time::Duration::from_secs(3600)),
            18 if who != 0 && self.members.len() > 2 && self.members.contains(&who) => self.remove(who).await,
            19 if !self.members.contains(&who) => {
                self.add(who).await;
                self.world.net.set_faults(Faults::BAD);
            }
            _ => {}
        }
    }

    fn check(&self, seed: u64) {
        let owner = self.view(0);
        let names: BTreeSet<&str> = self.members.iter().map(|who| PEOPLE[*who]).collect();
        for (who, name) in PEOPLE.iter().enumerate() {
            if self.members.contains(&who) {
                let (head, roster) = self.view(who);
                assert_eq!(head, owner.0, "seed {seed}: {}", name);
                assert_eq!(roster.iter().map(String::as_str).collect::<BTreeSet<_>>(), names, "seed {seed}");
            }
            assert!(self.people[who].rows::<OpRow>().is_empty(), "seed {seed}: {}", name);
        }
        for (who, name) in PEOPLE.iter().enumerate() {
            let chats = self.people[who].look(lapwing::engine::view::chats).unwrap();
            let mut heard: BTreeMap<String, usize> = BTreeMap::new();
            for chat in chats.iter().filter(|chat| chat.kind == lapwing::store::ChatKind::Group) {
                for text in self.people[who].heard(&chat.name) {
                    *heard.entry(text).or_default() += 1;
                }
            }
            for (text, (author, readers)) in &self.texts {
                let wanted = usize::from(readers.contains(&who) && *author != who);
                let had = heard.get(text).copied().unwrap_or(0);
                assert_eq!(had, wanted, "seed {seed}: {} and {text:?}", name);
            }
        }
        for (from, to, text) in &self.direct {
            let had = self.people[*to].heard(PEOPLE[*from]).iter().filter(|heard| *heard == text).count();
            assert_eq!(had, 1, "seed {seed}: {text:?} to {}", PEOPLE[*to]);
        }
    }

    fn view(&self, who: usize) -> (String, BTreeSet<String>) {
        let person = &self.people[who];
        let id = person.chat(GROUP).id;
        let view = person.look(|unit| group_view(unit, &id)).unwrap();
        (view.head, view.members.into_iter().map(|member| member.name.into_exposed()).collect())
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_everybody_ends_with_the_same_group_and_every_message_once() {
    // More of them, or other ones, where somebody looks for a defect.
    let wanted = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = wanted("LAPWING_SOAK_FIRST").unwrap_or(0);
    for seed in first..first + wanted("LAPWING_SOAK_SEEDS").unwrap_or(SEEDS) {
        let mut soak = Soak::new(30_000 + seed).await;
        soak.world.net.set_faults(Faults::BAD);
        for _ in 0..STEPS {
            soak.step().await;
        }
        soak.calm().await;
        soak.check(30_000 + seed);
    }
}

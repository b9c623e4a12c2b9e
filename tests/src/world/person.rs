//! One client: a driver, the engine, and records that outlive both.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use lapwing::{
    driver::{Clock, Compartment, Driver, Report},
    engine::{
        Command, DEFAULT_VALIDITY, Effect, Fault, Reply,
        group::{GroupCommand, GroupReply},
        view::{self, Span, WriterView},
    },
    net::Transport,
    store::{Base, ChatId, MailboxRow, MemoryBase, MessageState, Order, Purpose, Row, Unit},
};
use lapwing_wire::{
    address::RelayKey,
    ids::MailboxId,
    tripwire::{Status, Token},
};
use rand_chacha::ChaCha20Rng;

use super::{ManualClock, World, crash::CrashBase, network::Network, relay::RelayNumber};

/// Longest that one settling may take, in paused time.
const BUDGET: Duration = Duration::from_secs(600);

/// A line of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Who wrote it: `me`, `peer`, a member's name, or `program`.
    pub writer: String,
    /// What.
    pub text: String,
    /// Where it is.
    pub state: MessageState,
}

/// Somebody with a client.
pub struct Person {
    /// What others call them.
    pub name: String,
    /// The client's number in the network's scripts.
    pub client: usize,
    /// Whether a test makes relays contradict themselves; where it does not, none may seem to.
    pub relays_lie: bool,
    /// What the client told since it was last asked.
    pub effects: Vec<Effect>,
    base: Arc<CrashBase>,
    driver: Driver,
    transport: Arc<dyn Transport>,
    clock: ManualClock,
    net: Arc<Network>,
    rng: ChaCha20Rng,
    ended_commits: u64,
}

impl Person {
    pub(super) fn new(world: &mut World, name: &str) -> Self {
        Self::with_records(world, name, Arc::new(MemoryBase::default()))
    }

    /// A client over records that are already there: a thief's copy of a disk, or the same person later.
    pub fn with_records(world: &mut World, name: &str, disk: Arc<MemoryBase>) -> Self {
        let (client, transport) = world.net.client();
        let rng = world.rng();
        let clock = world.clock.clone();
        let driver = driver(&transport, &clock, &rng, 0);
        Self {
            name: name.to_owned(),
            client,
            relays_lie: false,
            effects: Vec::new(),
            base: Arc::new(CrashBase::over(disk)),
            driver,
            transport,
            clock,
            net: Arc::clone(&world.net),
            rng,
            ended_commits: 0,
        }
    }

    /// The records as they are now, for [`Person::with_records`].
    #[must_use]
    pub fn copy_of_records(&self) -> Arc<MemoryBase> {
        Arc::new(self.base.disk().snapshot())
    }

    /// The records.
    #[must_use]
    pub fn base(&self) -> Arc<CrashBase> {
        Arc::clone(&self.base)
    }

    /// The process ends and another begins: connections are gone, records are what was committed.
    pub fn restart(&mut self) {
        self.ended_commits += self.base.commits();
        self.base = Arc::new(CrashBase::over(self.base.disk()));
        self.driver = driver(&self.transport, &self.clock, &self.rng, self.ended_commits + 1);
    }

    /// Commits over all processes.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.ended_commits + self.base.commits()
    }

    /// Does what a person asks.
    ///
    /// # Errors
    /// What the engine says.
    pub fn command(&mut self, command: Command) -> Result<Reply, Fault> {
        let compartment = self.compartment();
        self.driver.command(&compartment, command)
    }

    /// As [`Person::command`], where nothing may go wrong.
    pub fn must(&mut self, command: Command) -> Reply {
        self.command(command).unwrap_or_else(|fault| panic!("{} could not do it: {fault}", self.name))
    }

    /// As [`Person::must`], for groups.
    pub fn group(&mut self, command: GroupCommand) -> GroupReply {
        match self.must(Command::Group(command)) {
            Reply::Group(reply) => reply,
            other => panic!("not a group's answer: {other:?}"),
        }
    }

    /// Sends and receives until nothing more happens; the engine must find no defect in itself.
    pub async fn sync(&mut self) -> Report {
        let report = self.settle().await;
        assert!(report.faults.is_empty(), "{}: {:?}", self.name, report.faults);
        let contradicted = self.effects.iter().any(|effect| matches!(effect, Effect::Inconsistent));
        assert!(self.relays_lie || !contradicted, "{}: a relay contradicts itself", self.name);
        report
    }

    /// Sends and receives until nothing more happens.
    pub async fn settle(&mut self) -> Report {
        let compartment = self.compartment();
        let mut report = self.driver.settle(&[compartment], BUDGET).await;
        self.effects.extend(report.effects.drain(..).map(|(_, effect)| effect));
        report
    }

    /// The driver, for what a test does with it directly.
    pub fn driver(&mut self) -> (&mut Driver, Compartment) {
        let compartment = self.compartment();
        (&mut self.driver, compartment)
    }

    fn compartment(&self) -> Compartment {
        let base: Arc<dyn Base + Send + Sync> = Arc::<CrashBase>::clone(&self.base);
        let mut place = [0; 16];
        place.iter_mut().zip(self.name.bytes()).for_each(|(to, byte)| *to = byte);
        Compartment { name: "main".to_owned(), place, base }
    }

    /// Looks at the records.
    pub fn look<T>(&self, look: impl FnOnce(&Unit<'_>) -> T) -> T {
        look(&Unit::new(&*self.base))
    }

    /// All records of a kind.
    #[must_use]
    pub fn rows<R: Row>(&self) -> Vec<(R::Key, R)> {
        self.look(|unit| unit.scan::<R>(&[]).expect("records"))
    }

    /// Uses a relay from now on.
    pub fn add_relay(&mut self, world: &World, relay: RelayNumber) {
        let ticket = world.net.with_relay(relay, |relay| relay.access_ticket());
        self.must(Command::AddRelay { ticket });
    }

    /// Makes a ticket; the chat gets this name.
    pub fn invite(&mut self, name: &str) -> String {
        let command = Command::Invite { name: name.to_owned(), relay: None, validity: DEFAULT_VALIDITY };
        match self.must(command) {
            Reply::Ticket { text, .. } => text,
            other => panic!("not a ticket: {other:?}"),
        }
    }

    /// Takes a ticket; the chat gets this name.
    pub fn join(&mut self, ticket: &str, name: &str) -> ChatId {
        match self.must(Command::Join { ticket: ticket.to_owned(), name: name.to_owned() }) {
            Reply::Chat(chat) => chat,
            other => panic!("not a chat: {other:?}"),
        }
    }

    /// Writes a message.
    pub fn say(&mut self, chat: &str, text: &str) -> Order {
        match self.must(Command::Send { chat: chat.to_owned(), text: text.to_owned() }) {
            Reply::Message { order, .. } => order,
            other => panic!("not a message: {other:?}"),
        }
    }

    /// A chat in the list.
    #[must_use]
    pub fn chat(&self, name: &str) -> view::ChatView {
        self.look(|unit| view::chat(unit, name))
            .unwrap_or_else(|fault| panic!("{}: {name}: {fault}", self.name))
    }

    /// All lines of a chat, oldest first.
    #[must_use]
    pub fn lines(&self, chat: &str) -> Vec<Line> {
        let id = self.chat(chat).id;
        let messages = self.look(|unit| view::messages(unit, &id, Span::Last(usize::MAX))).expect("messages");
        messages
            .into_iter()
            .map(|message| Line {
                writer: match message.writer {
                    WriterView::Me => "me".to_owned(),
                    WriterView::Peer => "peer".to_owned(),
                    WriterView::Member(name) => name.into_exposed(),
                    WriterView::Program => "program".to_owned(),
                },
                text: message.text.map(|text| text.into_exposed()).unwrap_or_default(),
                state: message.state,
            })
            .collect()
    }

    /// What others wrote in a chat.
    #[must_use]
    pub fn heard(&self, chat: &str) -> Vec<String> {
        let lines = self.lines(chat).into_iter();
        lines.filter(|line| line.writer != "me" && line.writer != "program").map(|line| line.text).collect()
    }

    /// What the program itself wrote in a chat.
    #[must_use]
    pub fn notes(&self, chat: &str) -> Vec<String> {
        self.lines(chat).into_iter().filter(|line| line.writer == "program").map(|line| line.text).collect()
    }

    /// What we wrote in a chat that the relay does not have.
    #[must_use]
    pub fn unsent(&self, chat: &str) -> Vec<String> {
        let lines = self.lines(chat).into_iter();
        lines
            .filter(|line| line.writer == "me" && line.state != MessageState::Sent)
            .map(|line| line.text)
            .collect()
    }

    /// Mailboxes and what they are for.
    #[must_use]
    pub fn mailboxes(&self) -> Vec<(MailboxId, MailboxRow)> {
        self.rows::<MailboxRow>()
    }

    /// The mailboxes that are read for this purpose.
    pub fn mailboxes_for(&self, wanted: impl Fn(Purpose) -> bool) -> Vec<MailboxId> {
        self.mailboxes().into_iter().filter(|(_, row)| wanted(row.purpose)).map(|(id, _)| id).collect()
    }

    /// The log that a group's chat writes to.
    #[must_use]
    pub fn log(&self, chat: &str) -> MailboxId {
        let id = self.chat(chat).id;
        let row =
            self.look(|unit| unit.get::<lapwing::store::GroupRow>(&id)).expect("records").expect("a group");
        row.epoch.expect("an epoch").mailbox
    }

    /// Presents tokens as an unlock does, and hands the answers to the engine.
    pub async fn present(&mut self, tokens: &[(RelayNumber, Token)]) -> BTreeMap<RelayKey, Status> {
        let tokens: Vec<_> =
            tokens.iter().map(|(relay, token)| (self.net.address(*relay), token.clone())).collect();
        let answers = self.driver.present(&tokens, Duration::from_secs(4)).await;
        for (relay, status) in &answers {
            let token = tokens.iter().find(|(known, _)| known.key() == relay).map(|(_, token)| token.clone());
            let token = token.expect("an answer to a token");
            self.must(Command::TokenPresented { relay: *relay, token, status: status.clone() });
        }
        answers.into_iter().collect()
    }
}

fn driver(
    transport: &Arc<dyn Transport>,
    clock: &ManualClock,
    rng: &ChaCha20Rng,
    incarnation: u64,
) -> Driver {
    let clock = clock.clone();
    let clock: Clock = Arc::new(move || clock.now());
    let mut rng = rng.clone();
    // Another stream for each process, as the system's generator would give.
    rng.set_stream(incarnation + 1);
    Driver::new(Arc::clone(transport), clock, Box::new(rng))
}

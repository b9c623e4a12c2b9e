//! One vault with two compartments: chats that go from one to the other.

use std::sync::Arc;

use lapwing::{
    engine::{Command, Fault, view},
    store::{ArrivalRow, DepartureRow, MemoryBase, StagedRow},
};

use super::{
    Person, RelayNumber, World, calm,
    records::{assert_in_order, holds},
};

/// Two compartments of one vault, each with a driver of its own for what comes and goes.
pub struct Vault {
    /// The first.
    pub main: Person,
    /// The second.
    pub other: Person,
}

impl Vault {
    /// Moves a chat from `main` to `other`.
    ///
    /// # Errors
    /// What the engine says.
    pub fn move_chat(&mut self, chat: &str) -> Result<(), Fault> {
        let (_, to) = self.other.driver();
        let (driver, from) = self.main.driver();
        driver.move_chat(&from, &to, chat, None)
    }

    /// And back.
    ///
    /// # Errors
    /// What the engine says.
    pub fn move_back(&mut self, chat: &str) -> Result<(), Fault> {
        std::mem::swap(&mut self.main, &mut self.other);
        let moved = self.move_chat(chat);
        std::mem::swap(&mut self.main, &mut self.other);
        moved
    }

    /// What every unlock does first.
    ///
    /// # Errors
    /// What the engine says.
    pub fn unlock(&mut self) -> Result<(), Fault> {
        let (_, to) = self.other.driver();
        let (driver, from) = self.main.driver();
        driver.sweep(&from)?;
        driver.sweep(&to)?;
        driver.finish_moves(&[from, to])
    }

    /// The process ends; another one unlocks.
    ///
    /// # Panics
    /// It finds records that it cannot go on with.
    pub fn restart(&mut self) {
        for person in [&mut self.main, &mut self.other] {
            person.restart();
        }
        self.unlock().expect("what was left can be finished");
    }

    /// Nothing of a move is left to be done, and the source has nothing of the chat: no record names it, none has a text, a
    /// key, or a mailbox of it.
    ///
    /// # Panics
    /// Something is left.
    pub fn assert_clean(&self, traces: &[Vec<u8>], what: &str) {
        for person in [&self.main, &self.other] {
            assert!(person.rows::<ArrivalRow>().is_empty(), "{what}");
            assert!(person.rows::<DepartureRow>().is_empty(), "{what}");
            assert!(person.rows::<StagedRow>().is_empty(), "{what}");
            assert_in_order(person, what);
        }
        for trace in traces {
            assert!(!holds(&self.main, trace), "{what}: the source still has {trace:x?}");
        }
    }

    /// In how many chats bob is, in either.
    #[must_use]
    pub fn places(&self) -> (usize, usize) {
        let has = |person: &Person| {
            person
                .look(view::chats)
                .expect("records")
                .iter()
                .filter(|chat| chat.name.starts_with("bob"))
                .count()
        };
        (has(&self.main), has(&self.other))
    }
}

/// Alice with two compartments, and bob, whom she knows in the first.
pub async fn friends(world: &mut World) -> (Vault, Person) {
    let (mut main, mut bob) = world.acquainted().await;
    let mut other = Person::with_records(world, "other", Arc::new(MemoryBase::default()));
    other.add_relay(world, RelayNumber(0));
    other.sync().await;
    main.say("bob", "before");
    bob.say("alice", "before too");
    calm(&mut [&mut main, &mut bob]).await;
    for (person, chat) in [(&mut main, "bob"), (&mut bob, "alice")] {
        person.must(Command::Verify { chat: chat.to_owned(), equal: true });
    }
    (Vault { main, other }, bob)
}

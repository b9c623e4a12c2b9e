//! Erasing where the table of keys is damaged, or the disk refuses.

use std::{sync::atomic::Ordering, time::Duration};

use lapwing::{
    cli::prompt::Answer,
    engine::{Command, Fault, keys_without_answer, view},
    store::{DoomedKeyRow, MessageRow},
};
use lapwing_tests::{
    CHEAP,
    transcript::Stage,
    world::{Person, World},
};
use lapwing_vault::{Container, FileBackend, Passphrase, testing::key_unit_offsets};

use super::{Canary, HOUR, NAME, Owner, delete, story};

/// One unit of the table of keys rots, each in turn: what falls due is erased all the same, and a deletion leaves no key,
/// neither in the units that open nor in the one that did not. That one is overwritten if the key may lie in it, else never.
#[tokio::test(start_paused = true)]
async fn vlt_64_a_damaged_unit_of_keys_keeps_nothing_from_being_erased() {
    let mut world = World::new(176);
    let (story, _bob) = story(&mut world).await;
    world.clock.advance(8 * 24 * HOUR);
    let units = {
        let owner = Owner::unlock(&mut world, story.image.clone(), None);
        key_unit_offsets(&owner.session, owner.volume)
    };
    let mut closed = 0;
    for unit in units {
        let at = usize::try_from(unit).unwrap();
        let mut rotten = story.image.clone();
        [at + 60, at + 4096 + 60].into_iter().for_each(|at| rotten[at] ^= 1);
        let mut owner = Owner::unlock(&mut world, rotten.clone(), None);
        let texts = owner.look(|unit| {
            let id = view::chat(unit, NAME).unwrap().id;
            view::messages(unit, &id, view::Span::Last(100)).unwrap()
        });
        let is_closed = texts.iter().any(|message| message.text.is_none());
        assert_eq!(owner.look(|unit| keys_without_answer(unit).unwrap()), usize::from(is_closed));
        closed += usize::from(is_closed);
        owner.sweep();
        let left = owner.look(|unit| unit.scan::<MessageRow>(&[])).unwrap();
        assert_eq!(left.iter().filter(|(_, row)| row.lives.is_some()).count(), 1, "unit at {unit}");
        // Writing goes on, under a new key where the old one does not open.
        owner.must(Command::Draft { chat: NAME.to_owned(), text: "written beside it".to_owned() });
        owner.must(delete());
        assert!(owner.look(|unit| unit.scan::<DoomedKeyRow>(&[])).unwrap().is_empty());
        owner.scrub();
        assert_eq!(owner.base.base.volume().keys().damaged_units().unwrap(), usize::from(!is_closed));
        // The mailbox waits for its relay, which is down; nothing else of the chat is there.
        let waits = ["id of the chat", "key of the mailbox"];
        let (_, gone): (Vec<&Canary>, Vec<&Canary>) =
            story.canaries.iter().partition(|canary| waits.iter().any(|what| canary.what.starts_with(what)));
        for canary in gone {
            assert_eq!(owner.found(canary), 0, "the {} is still in the file", canary.what);
        }
        // Whoever repairs the bits that rotted, or reads past the tag, finds nothing there either.
        let mut repaired = owner.backend.image();
        let touched = repaired[at..at + 8192] != rotten[at..at + 8192];
        assert_eq!(touched, is_closed, "whether the unit at {unit} was overwritten");
        [at + 60, at + 4096 + 60].into_iter().for_each(|at| repaired[at] ^= 1);
        let repaired = Owner::unlock(&mut world, repaired, None);
        for canary in story.canaries.iter().filter(|canary| canary.what.starts_with("key of texts")) {
            assert_eq!(repaired.found(canary), 0, "{}", canary.what);
        }
    }
    assert_eq!(closed, 1, "the texts lie under one key");
}

/// The disk refuses to destroy keys: messages go when they are due, no command says that it has erased, and the next one
/// makes up for it.
#[tokio::test(start_paused = true)]
async fn era_07_keys_that_cannot_be_destroyed_are_told_and_keep_nothing_else() {
    let mut world = World::new(177);
    let (story, _bob) = story(&mut world).await;
    world.clock.advance(8 * 24 * HOUR);
    let mut owner = Owner::unlock(&mut world, story.image.clone(), None);
    let compartment = owner.compartment();
    owner.base.refuses.store(true, Ordering::Relaxed);
    let clear = Command::Clear { chat: NAME.to_owned(), older: None };
    let cleared = owner.driver.command(&compartment, clear);
    assert!(matches!(cleared, Err(Fault::NotErased(_))), "{cleared:?}");
    assert!(!owner.look(|unit| unit.scan::<DoomedKeyRow>(&[])).unwrap().is_empty());
    // What was decided is removed, and so is what fell due: keys are all that is left.
    let left = owner.look(|unit| unit.scan::<MessageRow>(&[])).unwrap();
    assert!(left.len() <= 1, "{} messages", left.len());
    let swept = owner.driver.sweep(&compartment);
    assert!(matches!(swept, Err(Fault::NotErased(_))), "{swept:?}");
    let report = owner.driver.settle(std::slice::from_ref(&compartment), Duration::from_secs(60)).await;
    assert!(report.faults.iter().any(|fault| matches!(fault, Fault::NotErased(_))), "{:?}", report.faults);
    owner.base.refuses.store(false, Ordering::Relaxed);
    owner.sweep();
    assert!(owner.look(|unit| unit.scan::<DoomedKeyRow>(&[])).unwrap().is_empty());
    for canary in story.canaries.iter().filter(|canary| canary.what.starts_with("key of texts")) {
        assert_eq!(owner.found(canary), 0, "{}", canary.what);
    }
}

/// A vault with two chats, each with a text, seen through the commands alone; and where its table of keys lies.
struct Told {
    stage: Stage,
    units: Vec<usize>,
    whole: Vec<u8>,
}

fn ana(stage: &mut Stage) -> &mut Person {
    &mut stage.ana
}

fn bo(stage: &mut Stage) -> &mut Person {
    &mut stage.bo
}

impl Told {
    async fn of(seed: u64) -> Self {
        let mut stage = Stage::new(seed).await;
        let first = Answer::passphrase(&stage.passphrase);
        assert_eq!(stage.answers(&["init", "--size", "8MiB"], [first]).await.code, 0);
        let access = stage.access();
        stage.must(&["relay", "add", &access]).await;
        stage.meets(ana, "main").await;
        stage.meets(bo, "main").await;
        stage.must(&["send", "ana", "the ford, at six"]).await;
        stage.must(&["send", "bo", "the mill, at nine"]).await;
        let backend = FileBackend::open(stage.beside("").as_ref()).unwrap();
        let passphrase = Passphrase::new(stage.passphrase.as_str());
        let locked = Container::open(backend).unwrap();
        let session = locked.unlock(&passphrase, CHEAP, &mut stage.world.rng(), Duration::ZERO).unwrap();
        let offsets = key_unit_offsets(&session, session.volumes()[0]);
        drop(session);
        let units = offsets.into_iter().map(|at| usize::try_from(at).unwrap()).collect();
        let whole = std::fs::read(stage.beside("")).unwrap();
        Self { stage, units, whole }
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.stage.beside("")).unwrap()
    }

    /// In both copies of this unit a bit is another.
    #[expect(clippy::disallowed_methods, reason = "a disk that goes bad, in the place of the vault's own")]
    fn flip(&self, mut image: Vec<u8>, units: &[usize]) -> Vec<u8> {
        for at in units.iter().flat_map(|at| [at + 60, at + 4096 + 60]) {
            image[at] ^= 1;
        }
        std::fs::write(self.stage.beside(""), &image).unwrap();
        image
    }

    async fn read(&mut self, chat: &str) -> String {
        self.stage.must(&["-q", "read", chat, "--last", "20", "--offline"]).await.stdout
    }

    /// Rots the unit in which the key of this text lies.
    async fn rot_key_of(&mut self, chat: &str, text: &str) -> usize {
        for unit in self.units.clone() {
            self.flip(self.whole.clone(), &[unit]);
            if !self.read(chat).await.contains(text) {
                self.flip(self.whole.clone(), &[unit]);
                return unit;
            }
        }
        unreachable!("the key lies in one of the units")
    }
}

#[tokio::test(start_paused = true)]
async fn vlt_64_keys_that_do_not_open_are_told_by_every_command_and_left_alone_by_erasing_what_is_elsewhere()
{
    let mut told = Told::of(178).await;
    assert!(!told.stage.must(&["status", "--offline"]).await.stderr.contains("do not open"));
    let unit = told.rot_key_of("ana", "the ford").await;
    let warning = "warning: some keys of main do not open any more";
    for words in [["-q", "chat", "list"].as_slice(), &["-q", "status"], &["--json", "status"], &["doctor"]] {
        let played = told.stage.types(words).await;
        assert!(played.stderr.contains(warning), "{played}");
        let says = match *words.last().unwrap() {
            "status" if words[0] == "--json" => "\"damaged_keys\":1,\"lost_keys\":",
            "status" => "some keys of main do not open any more; what to do: lapwing doctor",
            "doctor" => "1 part(s) of the table of keys of main do not open",
            _ => "",
        };
        assert!(played.stdout.contains(says), "{played}");
        assert!(words[0] != "doctor" || played.code == 1, "{played}");
    }
    let shown = told.read("ana").await;
    assert!(shown.contains("(key damaged)") && !shown.contains("the ford"), "{shown}");
    // A draft of another day, and one of the same: kept, changed and erased beside it.
    let damaged = told.bytes();
    told.stage.must(&["draft", "ana", "of the same day", "--offline"]).await;
    assert_eq!(told.stage.must(&["-q", "draft", "ana", "--offline"]).await.stdout.trim(), "of the same day");
    told.stage.world.clock.advance(25 * HOUR);
    for text in ["of another day", "and another"] {
        told.stage.must(&["draft", "bo", text, "--offline"]).await;
    }
    told.stage.must(&["draft", "bo", "--delete", "--offline"]).await;
    let after = told.bytes();
    assert!(after[unit..unit + 8192] == damaged[unit..unit + 8192], "the unit was overwritten");
    // It can be read again: nothing is lost, neither what was there nor what came meanwhile.
    told.flip(after.clone(), &[unit]);
    let shown = told.read("ana").await;
    assert!(shown.contains("the ford") && !shown.contains("(key damaged)"), "{shown}");
    assert_eq!(told.stage.must(&["-q", "draft", "ana", "--offline"]).await.stdout.trim(), "of the same day");
    assert!(!told.stage.must(&["-q", "status"]).await.stderr.contains("do not open"));
    // Erasing what lies in it overwrites it, under whichever name the day has its keys now.
    told.flip(after.clone(), &[]);
    told.stage.must(&["chat", "delete", "ana", "--yes", "--offline"]).await;
    assert!(told.bytes()[unit..unit + 8192] != after[unit..unit + 8192], "the unit was left");
    assert!(!told.stage.must(&["-q", "status"]).await.stderr.contains("do not open"));
}

#[tokio::test(start_paused = true)]
async fn vlt_64_keys_that_were_given_up_are_told_as_long_as_there_are_texts_under_them() {
    let mut told = Told::of(179).await;
    let units = told.units.clone();
    told.flip(told.whole.clone(), &units);
    let grown = told.stage.types(&["-q", "grow", "--size", "9MiB", "--yes"]).await;
    assert!(grown.stderr.contains("warning: not carried over: the keys of main"), "{grown}");
    told.flip(told.whole.clone(), &units);
    // All of them are overwritten: any may have the keys of this chat.
    told.stage.must(&["chat", "delete", "bo", "--yes", "--offline"]).await;
    for words in [["status"].as_slice(), &["--json", "status"], &["doctor"]] {
        let played = told.stage.types(words).await;
        assert!(!played.stderr.contains("do not open"), "{played}");
        let says = match (words[0], *words.last().unwrap()) {
            ("--json", _) => "\"damaged_keys\":0,\"lost_keys\":1",
            (_, "status") => "1 keys of main are lost, and the texts under them; see: lapwing doctor",
            _ => "1 key(s) of main are lost: the table of keys was damaged",
        };
        assert!(played.stdout.contains(says), "{played}");
    }
    let shown = told.read("ana").await;
    assert!(shown.contains("(key damaged)") && !shown.contains("the ford"), "{shown}");
    // What comes later is read beside it, and with the last of what is lost the word of it goes.
    told.stage.must(&["send", "ana", "the bridge, at ten", "--offline"]).await;
    assert!(told.read("ana").await.contains("the bridge"));
    assert!(told.stage.must(&["-q", "status"]).await.stdout.contains("keys of main are lost"));
    told.stage.must(&["chat", "delete", "ana", "--yes", "--offline"]).await;
    assert!(!told.stage.must(&["-q", "status"]).await.stdout.contains("lost"));
}

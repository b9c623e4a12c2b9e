//! The examiner at the end of a real story: with an SOS passphrase, every version of every block, all memory that bo's
//! processes left, his terminal and his home folder, it finds nothing of what the cover does not show.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use lapwing_tests::{
    CHEAP,
    examiner::{
        Blocks, Canary, Report, Search, examine,
        story::{self, DESTROY, ERASED, HIDE, PRIVATE, REAL, REMOVED, SHOWN, SHOWN_ERASED, Story},
    },
};
use lapwing_vault::primitives;

fn cheap() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lapwing-cheap"))
}

fn with(blocks: &Blocks, passphrase: &str, words: &[&str], more: &[(String, Vec<u8>)]) -> Report {
    examine(blocks, &[passphrase.as_bytes().to_vec()], CHEAP, &story::canaries(words), more).0
}

/// Of these words, those that were not found.
fn missing<'a>(report: &Report, words: &[&'a str]) -> Vec<&'a str> {
    words.iter().copied().filter(|word| !report.names().contains(word)).collect()
}

fn nothing(report: &Report) {
    assert!(report.found.is_empty(), "{report}\n{:#?}", report.found);
}

fn private_is_not_found_and_shown_is(forced: &str) -> Story {
    let story = story::tell(cheap(), forced);
    let more = story.found_with_bo(forced);
    let unseen = [&PRIVATE[..], &ERASED, &[REAL, HIDE, DESTROY, REMOVED]].concat();
    nothing(&with(&story.blocks, forced, &unseen, &more));
    // It had something to look at, and looked with eyes that see.
    let report = with(&story.blocks, forced, &SHOWN, &more);
    assert_eq!(report.names().len(), SHOWN.len(), "{report}");
    assert!(report.headers > 40 && report.pages > 100 && report.volumes == 1, "{report}");
    everywhere_it_looked_it_sees(&story);
    // With the real passphrase and everything there ever was, all of it is found: so it was there to be found.
    let all = [&PRIVATE[..], &ERASED, &SHOWN_ERASED].concat();
    let report = with(&story.blocks, REAL, &all, &[]);
    assert_eq!(missing(&report, &all), Vec::<&str>::new(), "{report}");
    // An image from before is enough for that, but not for what had been erased.
    let before = Blocks::of_image(&story.before).unwrap();
    let report = with(&before, REAL, &PRIVATE, &[]);
    assert!(report.names().len() >= 8, "{report}");
    nothing(&with(&before, REAL, &[&ERASED[..], &SHOWN_ERASED].concat(), &[]));
    assert!(with(&before, REMOVED, &PRIVATE, &[]).payloads.is_empty());
    // Of the image from after, the real passphrase opens what was hidden, and nothing of what was destroyed.
    let after = Blocks::of_image(&story.after).unwrap();
    let report = with(&after, REAL, &PRIVATE, &[]);
    let opens = forced == HIDE;
    assert_eq!((!report.payloads.is_empty(), report.names().len() >= 8), (opens, opens), "{report}");
    // What was erased in the cover is not even there for who opens the cover.
    let report = with(&after, forced, &[&SHOWN[..], &SHOWN_ERASED].concat(), &[]);
    assert_eq!(missing(&report, &SHOWN), Vec::<&str>::new(), "{report}");
    assert_eq!(missing(&report, &SHOWN_ERASED), SHOWN_ERASED, "{report}\n{:#?}", report.found);
    story
}

/// One word that has to be there is found in every place; nothing lies where nobody put it.
fn everywhere_it_looked_it_sees(story: &Story) {
    for control in story.controls() {
        assert_ne!(control.found, Some(false), "{control:?}");
        // Core files are another program's on some systems; everything else is always there.
        assert!(control.found.is_some() || control.place.starts_with("core"), "{control:?}");
    }
    assert_eq!(story.strays, Vec::<String>::new());
    assert_eq!(story.core, [], "a crash leaves no core file");
}

#[test]
fn an_examiner_with_the_destroying_passphrase_and_every_block_finds_nothing_private() {
    let _ = private_is_not_found_and_shown_is(DESTROY);
}

/// And a process that ended has left no passphrase, no key and no message in its memory.
#[test]
fn an_examiner_with_the_hiding_passphrase_every_block_and_all_memory_finds_nothing_private() {
    let story = private_is_not_found_and_shown_is(HIDE);
    no_process_left_a_passphrase_a_key_or_a_message(&story);
}

/// What no process may leave in memory: what was typed at the prompt, what came on standard input, every key.
fn no_process_left_a_passphrase_a_key_or_a_message(story: &Story) {
    let (_, opened) = examine(&story.blocks, &[REAL.as_bytes().to_vec()], CHEAP, &[], &[]);
    let texts = [&PRIVATE[..], &SHOWN, &ERASED, &SHOWN_ERASED, &[REAL, HIDE, DESTROY, REMOVED]].concat();
    let mut canaries = story::canaries(&texts);
    let mut key = |name: String, bytes: &[u8; 32]| canaries.push(Canary::Bytes(name, bytes.to_vec()));
    for (region, volume) in &opened.volumes {
        key(format!("key of volume {region}"), volume);
        primitives::volume_keys(volume)
            .iter()
            .for_each(|sub| key(format!("key from that of volume {region}"), sub));
    }
    for payload in &opened.payloads {
        key("header key".to_owned(), &payload.header_key);
        primitives::header_keys(&payload.header_key)
            .iter()
            .for_each(|sub| key("key of headers".to_owned(), sub));
    }
    opened.body_keys.values().flatten().for_each(|body| key("key of messages".to_owned(), body));
    opened.records.iter().flat_map(|(_, records)| &records.payloads).for_each(|record| {
        record.keys.iter().for_each(|slot| key("key of a slot".to_owned(), slot));
    });
    assert!(canaries.len() > 40, "{}", canaries.len());
    let search = Search::new(&canaries);
    for (_, command, memory) in &story.memories {
        assert!(memory.len() > 1 << 20, "{command}");
        // The command line itself is the system's to keep: it lies on the stack from the first moment on.
        let words = |name: &str| command.contains(name);
        for span in &memory.spans {
            for hit in search.hits(&span.bytes) {
                let name = canaries[hit.canary].name();
                let own_words = span.name == "[stack]" && words(name);
                assert!(own_words, "{command}: {name} ({}) is left in {}", hit.form, span.name);
            }
        }
    }
    // The eyes see: the command line is found where it lies.
    let (_, command, memory) =
        story.memories.iter().find(|(_, command, _)| command.contains(PRIVATE[1])).unwrap();
    assert!(!memory.find(PRIVATE[1].as_bytes()).is_empty(), "{command}");
}

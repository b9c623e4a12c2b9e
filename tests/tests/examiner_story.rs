//! The examiner at the end of a real story: with an SOS passphrase, every version of every block, all memory that bo's
//! processes left, his terminal and his home folder, it finds nothing of what the cover does not show.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use lapwing_tests::{
    CHEAP,
    examiner::{
        Blocks, Canary, Report, Search, examine,
        story::{self, DESTROY, HIDE, PRIVATE, REAL, SHOWN},
    },
};
use lapwing_vault::primitives;

fn cheap() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lapwing-cheap"))
}

fn with(blocks: &Blocks, passphrase: &str, words: &[&str], more: &[(String, Vec<u8>)]) -> Report {
    examine(blocks, &[passphrase.as_bytes().to_vec()], CHEAP, &story::canaries(words), more).0
}

fn private_is_not_found_and_shown_is(forced: &str) {
    let story = story::tell(cheap(), forced);
    let more = story.found_with_bo(forced);
    let report = with(&story.blocks, forced, &PRIVATE, &more);
    assert!(report.found.is_empty(), "{report}\n{:#?}", report.found);
    // It had something to look at, and looked with eyes that see.
    let report = with(&story.blocks, forced, &SHOWN, &more);
    assert_eq!(report.names().len(), SHOWN.len(), "{report}");
    assert!(report.headers > 40 && report.pages > 100 && report.volumes == 1, "{report}");
    // With the real passphrase and everything there ever was, all of it is found: so it was there to be found.
    let report = with(&story.blocks, REAL, &PRIVATE, &[]);
    let missing: Vec<&&str> = PRIVATE.iter().filter(|word| !report.names().contains(word)).collect();
    assert!(missing.is_empty(), "{missing:?}\n{report}");
    // An image from before is enough for that.
    let report = with(&Blocks::of_image(&story.before).unwrap(), REAL, &PRIVATE, &[]);
    assert!(report.names().len() >= 8, "{report}");
    // Of the image from after, the real passphrase opens what was hidden, and nothing of what was destroyed.
    let report = with(&Blocks::of_image(&story.after).unwrap(), REAL, &PRIVATE, &[]);
    let opens = forced == HIDE;
    assert_eq!((!report.payloads.is_empty(), report.names().len() >= 8), (opens, opens), "{report}");
}

#[test]
fn an_examiner_with_the_destroying_passphrase_and_every_block_finds_nothing_private() {
    private_is_not_found_and_shown_is(DESTROY);
}

#[test]
fn an_examiner_with_the_hiding_passphrase_and_every_block_finds_nothing_private() {
    private_is_not_found_and_shown_is(HIDE);
}

/// What no process may leave in memory: what was typed at the prompt, what came on standard input, every key.
#[test]
fn a_process_that_ended_has_left_no_passphrase_no_key_and_no_message_in_its_memory() {
    let story = story::tell(cheap(), HIDE);
    let (_, opened) = examine(&story.blocks, &[REAL.as_bytes().to_vec()], CHEAP, &[], &[]);
    let texts = [&PRIVATE[..], &SHOWN[..], &[REAL, HIDE, DESTROY]].concat();
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

//! What the other side may do to us: hostile text comes out inert; a blocked chat is silent, and says so.

use lapwing_tests::scenario::{Outcome, Pair};

/// Clears the screen, sets the title, fills the clipboard, hides, turns the text around, rings, fakes a line.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}]52;c;bGFwd2luZw==\u{7}\u{9b}31m\u{202e}txet\u{202c}\u{200b}\u{7f}\rover\n12:00  ana: fake";

/// Nothing that a terminal acts on but line breaks.
fn assert_inert(outcome: &Outcome) {
    for text in [&outcome.stdout, &outcome.stderr] {
        let acting = text.chars().find(|c| {
            (c.is_control() && *c != '\n')
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        });
        assert_eq!(acting, None, "{outcome:?}");
    }
}

#[test]
fn hostile_text_comes_out_inert_wherever_it_is_shown() {
    let Pair { relay: _relay, ana, bo, folder: _folder } = Pair::meet();
    let _ = bo.pipes(HOSTILE.as_bytes(), &["send", "ana", "-"]).done();
    let shown = ana.reads(&["read", "bo"]).done();
    assert_inert(&shown);
    assert!(shown.stdout.contains("\\u{1b}[2J") && shown.stdout.contains("\\u{202e}txet"), "{shown:?}");
    let lines: Vec<&str> = shown.stdout.lines().collect();
    assert!(
        lines.iter().filter(|line| !line.starts_with(' ')).count() == 1,
        "one message, one line of its own: {shown:?}"
    );
    // Names that would act cannot be given; names that only look like something else are shown as what they are.
    for words in
        [["group", "create", "a\u{1b}[31mb", "--as", "ana"], ["group", "create", "march", "--as", "a\nna"]]
    {
        let refused = ana.runs(&words);
        assert_eq!(refused.failed(5), "refused");
        assert_inert(&refused);
    }
    let _ = ana.runs(&["group", "create", "ma\u{202e}hcr", "--as", "a\u{200b}na\u{2066}"]).done();
    let _ = ana.runs(&["group", "invite", "ma\u{202e}hcr", "bo"]).done();
    let invited = bo.reads(&["group", "info"]).done();
    assert_inert(&invited);
    assert!(invited.stdout.contains("ma\\u{202e}hcr"), "{invited:?}");
    let _ = bo.runs(&["group", "approve", "ana", "--as", "bo", "--name", "march"]).done();
    let _ = ana.runs(&["sync"]).done();
    let members = bo.reads(&["group", "members", "march"]).done();
    assert_inert(&members);
    assert!(members.stdout.contains("a\\u{200b}na"), "{members:?}");
    let unknown = ana.reads(&["read", "\u{1b}]0;x\u{7}"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert_inert(&unknown);
}

#[test]
fn a_blocked_chat_takes_nothing_and_the_sender_is_told() {
    let Pair { relay: _relay, ana, bo, folder: _folder } = Pair::meet();
    let _ = ana.runs(&["send", "bo", "before"]).done();
    let _ = ana.runs(&["chat", "block", "bo"]).done();
    assert_eq!(ana.chats()[0]["state"], "blocked");
    assert_eq!(ana.runs(&["send", "bo", "never"]).failed(5), "refused");
    let sent = bo.runs(&["send", "ana", "while blocked"]);
    assert_eq!(sent.failed(5), "refused");
    assert_eq!(sent.one("sent")["state"], "failed");
    let read = bo.reads(&["read", "ana"]).done();
    assert!(read.stdout.contains("while blocked  [not delivered]"), "{read:?}");
    assert!(!ana.runs(&["read", "bo"]).done().stdout.contains("while blocked"));
    let _ = ana.runs(&["chat", "unblock", "bo"]).done();
    assert_eq!(ana.chats()[0]["state"], "open");
    // The other side is told of the new mailbox, and both write again; what was refused stays refused.
    let _ = bo.runs(&["sync"]).done();
    assert_eq!(bo.runs(&["send", "ana", "after"]).done().text("sent", "state"), "sent");
    assert_eq!(ana.runs(&["send", "bo", "welcome back"]).done().text("sent", "state"), "sent");
    assert_eq!(ana.runs(&["read", "bo"]).done().messages_from("bo"), ["after"]);
    assert_eq!(bo.runs(&["read", "ana"]).done().messages_from("ana"), ["before", "welcome back"]);
}

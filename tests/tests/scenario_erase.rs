//! Real processes: drafts, messages that disappear, chats that are deleted.

#![expect(clippy::unwrap_used, reason = "scenario tests")]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use lapwing::{
    cli::prompt::TypedPassphrase,
    client::{Client, World},
    clock,
    net::{ConnectError, Link, Transport},
};
use lapwing_tests::scenario::{Pair, Person};
use lapwing_vault::Cost;
use lapwing_wire::address::RelayAddress;
use serde_json::{Value, json};
use zeroize::Zeroizing;

struct NoNetwork;

#[async_trait]
impl Transport for NoNetwork {
    async fn connect(&self, _relay: &RelayAddress) -> Result<Arc<dyn Link>, ConnectError> {
        Err(ConnectError::Unreachable)
    }
}

/// The vault is unlocked and locked again, so much later, somewhere without network.
async fn visit_later(person: &Person, later: Duration) {
    let world = World {
        cost: Cost::FORMAT_1,
        transport: Arc::new(NoNetwork),
        clock: Arc::new(move || clock::now().plus(later)),
        offline: true,
    };
    let typed = TypedPassphrase::new(Zeroizing::new(person.passphrase.clone())).unwrap();
    Client::unlock(&world, &person.vault, &typed).await.unwrap().close().await.unwrap();
}

fn texts(person: &Person, chat: &str) -> Vec<String> {
    let shown = person.runs(&["--offline", "read", chat, "--last", "50"]).done().of("message");
    let of_people = shown.iter().filter(|message| message["from"] != "lapwing");
    of_people.map(|message| message["text"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_disappears_and_what_is_deleted_is_shown_no_more() {
    let Pair { relay: _relay, ana, bo, folder: _folder } = Pair::meet();

    // A draft is kept, shown, and sent once.
    assert_eq!(ana.runs(&["draft", "bo"]).failed(1), "no_draft");
    let _ = ana.pipes(b"the ford, at six", &["draft", "bo", "-"]).done();
    assert_eq!(ana.runs(&["draft", "bo"]).done().text("draft", "text"), "the ford, at six");
    assert_eq!(ana.chats()[0]["draft"], true);
    assert_eq!(ana.runs(&["send", "bo", "--draft"]).done().text("sent", "state"), "sent");
    assert_eq!(ana.runs(&["send", "bo", "--draft"]).failed(1), "no_draft");

    // A timer, told to the other side, for what comes from now on.
    assert_eq!(ana.runs(&["chat", "timer", "bo", "4m"]).failed(2), "usage");
    let timer = ana.runs(&["chat", "timer", "bo", "5m"]).done().one("timer");
    assert_eq!(
        (&timer["seconds"], &timer["ours"], &timer["theirs"]),
        (&json!(300), &json!(300), &Value::Null)
    );
    let _ = ana.runs(&["send", "bo", "gone in five minutes"]).done();
    let read = bo.runs(&["read", "ana"]).done();
    assert_eq!(read.messages_from("ana"), ["the ford, at six", "gone in five minutes"]);
    assert!(
        read.messages_from("lapwing").iter().any(|line| line.contains("disappear 5 minutes")),
        "{read:?}"
    );
    assert_eq!(bo.chats()[0]["timer"], 300);
    let shown = bo.runs(&["--offline", "read", "ana", "--last", "1"]).done().one("message");
    assert!(shown["disappears"].is_string(), "{shown}");
    for person in [&ana, &bo] {
        visit_later(person, Duration::from_secs(301)).await;
    }
    assert_eq!(texts(&ana, "bo"), ["the ford, at six"]);
    assert_eq!(texts(&bo, "ana"), ["the ford, at six"]);

    // One message by its number.
    let numbered = bo.reads(&["--offline", "read", "ana", "--last", "50", "--numbers"]).done();
    let line = numbered.stdout.lines().find(|line| line.contains("the ford")).unwrap().trim().to_owned();
    let number = line.split(' ').next().unwrap();
    assert_eq!(bo.runs(&["chat", "erase", "ana", number, "987654"]).failed(1), "unknown_message");
    let erased = bo.runs(&["chat", "erase", "ana", number]).done().one("erased");
    assert_eq!((&erased["messages"], &erased["withdrawn"]), (&json!(1), &json!(0)));
    assert!(texts(&bo, "ana").is_empty());

    // The whole chat. The other side is told with its next message, and no earlier.
    assert_eq!(bo.runs(&["chat", "delete", "ana"]).failed(2), "no_terminal");
    let _ = bo.runs(&["chat", "delete", "ana", "--yes"]).done();
    assert_eq!(bo.chats(), json!([]));
    assert_eq!(bo.runs(&["chat", "delete", "ana", "--yes"]).failed(1), "unknown_chat");
    assert_eq!(ana.runs(&["send", "bo", "are you there"]).failed(5), "refused");
    let _ = ana.runs(&["chat", "clear", "bo", "--yes"]).done();
    assert!(texts(&ana, "bo").is_empty());
}

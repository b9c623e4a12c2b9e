//! SIGKILL of a real relay with an anchor.

use lapwing_wire::{
    address::AccessTicket,
    capability::{Right, Subject},
    frame::*,
    limits::MAX_FAILURES,
    oprf::Blinding,
    tripwire::Action,
};

use crate::{
    anchor::{Anchored, COVER, REAL},
    support::{
        Client, Keys, envelope,
        process::{Process, run_json},
    },
    tripwire::Plan,
};

#[tokio::test(flavor = "multi_thread")]
async fn anc_04_what_was_evaluated_is_counted_whenever_the_relay_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    run_json(dir.path(), &["init", "--host", "127.0.0.1", "--port", "0"]);
    let mut relay = Process::start(dir.path());
    let issued = run_json(dir.path(), &["access", "issue"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    let anchored = Anchored::new();
    let connect = async |relay: &Process| Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    let mut owner = connect(&relay).await;
    owner.prove_access(ticket.secret()).await;
    owner.prove(Subject::Anchor(anchored.owner.public()), &anchored.owner).await;
    let create = anchored.create(Some(ticket.secret()), None);
    assert_eq!(owner.anchor(AnchorRequest::Create(create)).await, ResponseBody::Done);
    let mut answered = 0u8;
    for round in 0u8..40 {
        let mut thief = connect(&relay).await;
        // Several under way, one or none of them answered before the end.
        for guess in 0..3u8 {
            let (_, blinded) = Blinding::begin(&[round, guess], &mut rand::rng()).unwrap();
            let evaluate = AnchorRequest::Evaluate(Evaluate { anchor: anchored.id(), blinded });
            thief.send(RequestBody::Anchor(evaluate)).await.unwrap();
        }
        let mut is_frozen = false;
        for _ in 0..round % 3 {
            match thief.receive().await.unwrap().body {
                ResponseBody::Anchor(AnchorAnswer::Evaluated(_)) => answered += 1,
                ResponseBody::Refused(Refusal::Frozen) => is_frozen = true,
                other => panic!("{other:?}"),
            }
        }
        relay.kill();
        relay = Process::start(dir.path());
        assert!(answered <= MAX_FAILURES, "no more guesses than are counted");
        if is_frozen {
            let mut owner = connect(&relay).await;
            assert_eq!(owner.evaluate(anchored.id(), REAL).await.unwrap_err(), Refusal::Frozen);
            relay.kill();
            return;
        }
    }
    panic!("it never froze");
}

#[tokio::test(flavor = "multi_thread")]
async fn anc_06_a_deed_is_done_whole_or_not_at_all_when_the_relay_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    run_json(dir.path(), &["init", "--host", "127.0.0.1", "--port", "0"]);
    let mut relay = Process::start(dir.path());
    let issued = run_json(dir.path(), &["access", "issue"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    let connect = async |relay: &Process| Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    for round in 0..4u8 {
        let (plan, anchored, alerts) = (Plan::new(), Anchored::new(), Keys::of_byte(30 + round));
        let mut owner = connect(&relay).await;
        owner.prove_access(ticket.secret()).await;
        owner.prove(Subject::Anchor(anchored.owner.public()), &anchored.owner).await;
        owner.prove(Subject::Tripwire(plan.owner.public()), &plan.owner).await;
        let create = alerts.create(MailboxKind::Queue, Some(ticket.secret().public()), &owner.binding);
        assert_eq!(owner.ask(RequestBody::Create(create)).await, ResponseBody::Done);
        let actions = [Action::append(alerts.id(), envelope(911), &alerts.write)];
        owner.ask(RequestBody::Arm(plan.arm_with(Some(ticket.secret().public()), 1, &actions))).await;
        let create = anchored.create(Some(ticket.secret()), Some(plan.duress.clone()));
        assert_eq!(owner.anchor(AnchorRequest::Create(create)).await, ResponseBody::Done);

        let mut client = connect(&relay).await;
        let (keys, blinded) = client.evaluate(anchored.id(), COVER).await.unwrap();
        let prove = ProveEntry { anchor: anchored.id(), blinded, proof: keys.proof().clone() };
        client.send(RequestBody::Anchor(AnchorRequest::Prove(prove))).await.unwrap();
        let is_answered = round % 2 == 1;
        if is_answered {
            client.receive().await.unwrap();
        } else {
            drop(connect(&relay).await);
        }
        relay.kill();
        relay = Process::start(dir.path());

        let mut client = connect(&relay).await;
        client.prove(Subject::Mailbox(alerts.id(), Right::Read), &alerts.read).await;
        let fired = client.window(alerts.id(), 0).await.items.len();
        let opens = client.unlock(anchored.id(), REAL).await.is_ok();
        assert!((fired == 1) != opens, "the alert and the destruction are one: {fired} {opens}");
        assert!(fired == 1 || !is_answered, "answered means done");
    }
    relay.kill();
}

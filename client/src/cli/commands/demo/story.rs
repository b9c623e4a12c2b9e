//! What happens in the demo.

use std::path::Path;

use super::{
    people::{Outcome, Person},
    relay::DemoRelay,
};
use crate::{
    cli::{args::DemoArgs, exit::Exit, output::Output, shell::Shell},
    client::World,
    clock,
    error::Error,
};

const ANA: &str = "heron orbit velvet candle morning";
const BO: &str = "copper lantern seven rivers apart";
const BO_SOS: &str = "granny bakes plum cake on sundays";
const CY: &str = "tundra pencil whistle amber gate";
const WORK: &str = "work";
const BEFORE: &str = "the meeting is at the old mill";
const AFTER: &str = "the meeting has moved to the boathouse";
const HARMLESS: &str = "bring the plum jam on sunday";

/// Tells the story, checks every step.
pub(super) async fn tell(shell: &mut Shell, args: &DemoArgs, folder: &Path) -> Result<usize, Error> {
    let mut stage = Stage { output: &shell.output, world: shell.world.clone(), steps: 0 };
    let relay = DemoRelay::start(folder, args.relay.as_deref())?;
    stage.step("a relay runs on this computer; it stores ciphertext only", true)?;

    let ana = Person::new("ana", folder, ANA);
    let bo = Person::new("bo", folder, BO);
    let cy = Person::new("cy", folder, CY);
    vaults(&mut stage, &relay, [&ana, &bo, &cy]).await?;
    contacts(&mut stage, &ana, &bo, "bo", "ana").await?;
    contacts(&mut stage, &ana, &cy, "cy", "ana").await?;
    safety_numbers(&mut stage, &ana, &bo).await?;
    group(&mut stage, &ana, &bo, &cy).await?;
    plan(&mut stage, &ana, &bo).await?;

    // The police make an image of the disk before they ask for anything.
    let image = folder.join("image-of-bo");
    std::fs::copy(&bo.vault, &image)
        .map_err(|_| Error::refused("the vault cannot be copied", "check the disk"))?;
    stage.say(
        "Bo is arrested. The police copy the disk, then force bo to unlock. Bo types the SOS passphrase.",
    );

    arrest(&mut stage, &bo).await?;
    answer(&mut stage, &ana, &cy).await?;
    proofs(&mut stage, &bo, &image).await?;
    drop(relay);
    Ok(stage.steps)
}

struct Stage<'a> {
    output: &'a Output,
    world: World,
    steps: usize,
}

impl Stage<'_> {
    fn say(&self, text: &str) {
        self.output.talk(format_args!("\n{text}"));
    }

    /// Counts a step, or ends the demo.
    fn step(&mut self, what: &str, held: bool) -> Result<(), Error> {
        if !held {
            return Err(Error::refused(
                format!("the demo failed at: {what}"),
                "run it again with --keep and report what it prints",
            ));
        }
        self.steps += 1;
        self.output.talk(format_args!("  ok  {what}"));
        Ok(())
    }

    /// A command that must succeed.
    async fn types(&self, who: &Person, words: &[&str]) -> Result<Outcome, Error> {
        self.sets(who, None, words).await
    }

    /// A command that sets a passphrase, and must succeed.
    async fn sets(&self, who: &Person, new: Option<&'static str>, words: &[&str]) -> Result<Outcome, Error> {
        let outcome = self.tries(who, new, words).await?;
        if outcome.exit == Exit::Done {
            return Ok(outcome);
        }
        let said = outcome.text("message").unwrap_or_default();
        Err(Error::refused(
            format!("the demo failed: {} could not do that: {said}", who.name),
            "run: lapwing doctor",
        ))
    }

    /// A command that may fail.
    async fn tries(&self, who: &Person, new: Option<&'static str>, words: &[&str]) -> Result<Outcome, Error> {
        self.output.talk(format_args!("{:>4}$ lapwing {}", who.name, shown(words)));
        who.types(&self.world, new, words).await
    }
}

/// A command line as it would be typed; long tickets are cut.
fn shown(words: &[&str]) -> String {
    let word = |word: &&str| match word.char_indices().nth(28) {
        Some((cut, _)) if word.starts_with("lapwing") => format!("{}...", &word[..cut]),
        _ if word.contains(' ') => format!("'{word}'"),
        _ => (*word).to_owned(),
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

async fn vaults(stage: &mut Stage<'_>, relay: &DemoRelay, people: [&Person; 3]) -> Result<(), Error> {
    stage.say("Ana, Bo and Cy each make a vault, and get access to the relay.");
    for person in people {
        stage.types(person, &["init", "--size", "16MiB"]).await?;
        stage.types(person, &["relay", "add", &relay.access]).await?;
    }
    let bo = people[1];
    stage.say(
        "Bo keeps what matters in one compartment, called work, and makes a new main for the harmless rest.",
    );
    stage.types(bo, &["compartment", "rename", "main", WORK]).await?;
    stage.types(bo, &["compartment", "create", "main"]).await?;
    stage.types(bo, &["relay", "add", &relay.access, "--compartment", "main"]).await?;
    stage.step("three vaults, one relay", true)
}

async fn contacts(
    stage: &mut Stage<'_>,
    ana: &Person,
    other: &Person,
    theirs: &str,
    ours: &str,
) -> Result<(), Error> {
    stage.say(&format!("Ana gives {} a ticket.", other.name));
    let ticket = stage.types(ana, &["invite", theirs]).await?.text("ticket").unwrap_or_default();
    stage.types(other, &["join", &ticket, "--name", ours]).await?;
    stage.types(ana, &["sync"]).await?;
    stage.types(other, &["send", ours, HARMLESS]).await?;
    let read = stage.types(ana, &["read", theirs]).await?;
    let arrived = read.messages().iter().any(|text| text == HARMLESS);
    stage.step(&format!("ana and {} write to each other, end-to-end encrypted", other.name), arrived)
}

async fn safety_numbers(stage: &mut Stage<'_>, ana: &Person, bo: &Person) -> Result<(), Error> {
    let one = stage.types(ana, &["verify", "bo"]).await?.text("number");
    let other = stage.types(bo, &["verify", "ana"]).await?.text("number");
    stage.step("both see the same safety number", one.is_some() && one == other)
}

async fn group(stage: &mut Stage<'_>, ana: &Person, bo: &Person, cy: &Person) -> Result<(), Error> {
    stage.say("Ana founds a group and invites both.");
    stage.types(ana, &["group", "create", "march", "--as", "ana"]).await?;
    stage.types(ana, &["group", "invite", "march", "bo"]).await?;
    stage.types(ana, &["group", "invite", "march", "cy"]).await?;
    stage.types(bo, &["group", "approve", "march", "--as", "bo"]).await?;
    stage.types(cy, &["group", "approve", "march", "--as", "cy"]).await?;
    // Ana's program lets them in when their yes arrives.
    stage.types(ana, &["sync"]).await?;
    stage.types(ana, &["send", "march", BEFORE]).await?;
    for member in [bo, cy] {
        let read = stage.types(member, &["read", "march"]).await?;
        let arrived = read.messages().iter().any(|text| text == BEFORE);
        stage.step(&format!("{} reads the group's message", member.name), arrived)?;
    }
    Ok(())
}

async fn plan(stage: &mut Stage<'_>, ana: &Person, bo: &Person) -> Result<(), Error> {
    stage.say("Bo prepares for an arrest: a trusted contact, and an SOS passphrase that opens main only.");
    stage.types(bo, &["trust", "add", "ana"]).await?;
    stage.types(ana, &["trust", "accept", "bo"]).await?;
    let alert = "Bo was forced to unlock. Close the groups to Bo and call the lawyer.";
    let words = [
        "sos", "add", "--name", "arrest", "--show", "main", "--do", "destroy", "--alert", "ana", "--text",
        alert, "--yes",
    ];
    stage.sets(bo, Some(BO_SOS), &words).await?;
    let list = stage.types(bo, &["sos", "list"]).await?;
    stage.step("the alert lies sealed at the relay, armed", list.all().contains("\"armed\""))
}

async fn arrest(stage: &mut Stage<'_>, bo: &Person) -> Result<(), Error> {
    let forced = bo.with(&bo.vault, BO_SOS);
    let shown = stage.types(&forced, &["chat", "list"]).await?;
    let list = stage.types(&forced, &["compartment", "list"]).await?;
    let all = shown.all() + &list.all();
    let nothing = !all.contains("march") && !all.contains("ana") && !all.contains(WORK);
    stage.step("the police see an ordinary vault, and nothing of ana or the group", nothing)
}

async fn answer(stage: &mut Stage<'_>, ana: &Person, cy: &Person) -> Result<(), Error> {
    let begun = clock::now();
    let alerts = stage.types(ana, &["alert", "list"]).await?;
    let arrived =
        alerts.text("chat").as_deref() == Some("bo") && alerts.text("cause").as_deref() == Some("token");
    let took = clock::now().since(begun).as_millis();
    stage.step(&format!("ana's program shows the alert ({took} ms, unlocking included)"), arrived)?;
    stage.say("Ana closes the group to bo and writes on.");
    stage.types(ana, &["group", "remove", "march", "bo"]).await?;
    stage.types(ana, &["alert", "ack"]).await?;
    stage.types(ana, &["send", "march", AFTER]).await?;
    let read = stage.types(cy, &["read", "march"]).await?;
    stage.step("cy reads what ana writes after that", read.messages().iter().any(|text| text == AFTER))
}

async fn proofs(stage: &mut Stage<'_>, bo: &Person, image: &Path) -> Result<(), Error> {
    stage.say("What is left for the police?");
    let real = stage.tries(bo, None, &["chat", "list"]).await?;
    stage.step("bo's real passphrase opens nothing any more", real.exit == Exit::NotUnlocked)?;
    let forced = bo.with(&bo.vault, BO_SOS);
    let again = stage.types(&forced, &["chat", "list"]).await?;
    stage.step("the SOS passphrase still opens the harmless view", !again.all().contains("march"))?;
    stage.say("The image from before the arrest, with the real passphrase (suppose they got it out of bo):");
    let old = bo.with(image, BO);
    let read = stage.tries(&old, None, &["read", "march", "--last", "100"]).await?;
    let knows_before = read.messages().iter().any(|text| text == BEFORE);
    let knows_after = read.all().contains(AFTER);
    stage.step(
        "it shows what bo had seen before (said plainly: an unanchored vault cannot prevent that)",
        read.exit == Exit::Done && knows_before,
    )?;
    stage.step("but nothing that was sent after the removal", !knows_after)
}

//! `search`.

use std::{cmp::Reverse, fmt, thread};

use serde::Serialize;

use super::message::Message;
use crate::{
    cli::{args::SearchArgs, exit::Exit, output::Record, shell::Shell},
    clock::Zone,
    engine::search::Query,
    error::Error,
};

/// Threads that look, at most: each of them opens one text at a time.
const MAX_WORKERS: usize = 8;

/// A message that was found.
#[derive(Serialize)]
struct Found {
    compartment: String,
    #[serde(flatten)]
    message: Message,
}

impl Record for Found {
    const TYPE: &'static str = "found";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.message.chat())?;
        self.message.human(f)
    }
}

pub(super) async fn search(shell: &mut Shell, args: &SearchArgs) -> Result<Exit, Error> {
    let text = shell.argument(&args.text)?;
    let query = Query::new(&text)
        .ok_or_else(|| Error::usage("there is nothing to look for", "say a text: lapwing search TEXT"))?;
    let last = usize::try_from(args.last).unwrap_or(usize::MAX);
    let client = shell.unlock().await?;
    let numbers = match (&shell.compartment, &args.chat) {
        (named, Some(chat)) => vec![client.compartment_of_chat(named.as_deref(), chat)?],
        (Some(named), None) => vec![client.compartment(Some(named))?],
        (None, None) => (0..client.compartments().len()).collect(),
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
    let now = (shell.world.clock)();
    let mut hits = Vec::new();
    for number in numbers {
        let found = client.search(number, &query, args.chat.as_deref(), last, workers)?;
        let name = &client.compartments()[number].name;
        let there = found.into_iter().filter(|hit| hit.message.is_there(now));
        hits.extend(there.map(|hit| (name.clone(), hit)));
    }
    // In a compartment the order counts, which no clock changes; between compartments there is only the time.
    hits.sort_by_key(|(_, hit)| Reverse(hit.message.stored));
    hits.truncate(last);
    shell.close(client).await;
    let zone = Zone::of_system();
    for (compartment, hit) in &hits {
        let message = Message::of(&hit.name, &hit.message, &zone);
        shell.output.emit(&Found { compartment: compartment.clone(), message })?;
    }
    if hits.is_empty() {
        return Err(Error::negative(
            "no message holds that text",
            "try one word, or a part of it; messages that were erased are found no more",
        )
        .with_code("not_found"));
    }
    if hits.len() == last {
        shell.output.talk(format_args!("These are the newest {last}; older ones may match too: see --last."));
    }
    Ok(Exit::Done)
}

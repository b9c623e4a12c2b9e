//! `rotate-key`: another key, for which the old one vouches.

use serde_json::json;

use super::{
    CliError,
    access::{ask, unexpected},
    output::Output,
};
use crate::{
    operator::{Ask, Reply},
    place::Place,
};

pub(super) async fn run(place: &Place, output: &Output) -> Result<(), CliError> {
    match ask(place, output, Ask::RotateKey).await? {
        Reply::Rotated { address } => {
            let mut text = "The relay has a new key, and the old one is destroyed.\n".to_owned();
            match &address {
                Some(address) => text.push_str(&format!("\nIts address is now:\n{address}\n")),
                None => text.push_str(
                    "\nIts port is chosen at each start: `lapwing-relay serve` prints its address.\n",
                ),
            }
            text.push_str(
                "\nPeople's programs follow by themselves; tickets that were handed out stay good.\n\
                 Next: make a new backup and destroy the older ones. A relay that comes back with an earlier key is refused\n\
                 by everybody who has followed",
            );
            output.result("rotated", json!({ "address": address }), &text);
            Ok(())
        }
        other => Err(unexpected(other)),
    }
}

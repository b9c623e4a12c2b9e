//! `doctor`.

use super::{CliError, output::Output};
use crate::{
    config::Config,
    doctor::{self, Level},
    operator::{self, Ask, Reply},
    place::Place,
};

pub(super) async fn run(place: &Place, output: &Output) -> Result<(), CliError> {
    let (config, unknown) = Config::parse(&place.config_text()?)?;
    let status = match operator::ask(&place.control(), &Ask::Status).await {
        Ok(Some((Reply::Status(status), _))) => Some(status),
        _ => None,
    };
    let found = doctor::examine(place, &config, &unknown, status.as_ref()).await;
    for finding in &found {
        let mark = match finding.level {
            Level::Fine => "ok  ",
            Level::Note => "note",
            Level::Care => "CARE",
        };
        let mut text = format!("{mark}  {:<13}  {}", finding.check, finding.message);
        if let Some(advice) = &finding.advice {
            text.push_str(&format!("\n                     -> {advice}"));
        }
        output.result("finding", serde_json::to_value(finding).unwrap_or_default(), &text);
    }
    if found.iter().any(|finding| finding.level == Level::Care) { Err(CliError::NeedsCare) } else { Ok(()) }
}

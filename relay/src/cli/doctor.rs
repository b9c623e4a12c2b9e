//! `doctor`.

use super::{CliError, output::Output};
use crate::{
    config::Config,
    doctor::{self, Answer, Level, Read},
    operator::{self, Ask, Reply},
    place::{Place, PlaceError},
};

pub(super) async fn run(place: &Place, output: &Output) -> Result<(), CliError> {
    if place.is_empty()? {
        return Err(PlaceError::Absent(place.dir().to_path_buf()).into());
    }
    let answer = match operator::ask(&place.control(), &Ask::Status).await {
        Ok(None) => Answer::NotRunning,
        Ok(Some((Reply::Status(status), _))) => Answer::Status(status),
        Ok(Some((Reply::Failed { message, hint: _ }, _))) => Answer::None(message),
        Ok(Some(_)) => Answer::None("it answered something else".into()),
        Err(error) => Answer::None(error.to_string()),
    };
    let found = doctor::examine(place, &read(place), &answer).await;
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

fn read(place: &Place) -> Read {
    let text = place.config_text().map_err(|error| error.to_string());
    let read = text.and_then(|text| {
        let (config, unknown) = Config::parse(&text).map_err(|error| error.to_string())?;
        Ok((config, unknown, Config::names_host(&text)))
    });
    match read {
        Ok((config, unknown, names_host)) => Read::Config { config: Box::new(config), unknown, names_host },
        Err(error) => Read::Unusable(error),
    }
}

//! Bars for work that takes seconds, on standard error, where somebody watches it.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::Output;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// A piece of work under way. Invisible with `--json`, with `-q`, and where standard error is no terminal. Dropping it
/// takes it off the screen.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Work of known size: `total` units of any kind.
    pub fn bar(output: &Output, what: &'static str, total: u64) -> Self {
        Self::new(output, what, Some(total), "{msg} [{bar:30}] {percent}%")
    }

    /// Work of unknown size.
    pub fn spinner(output: &Output, what: &'static str) -> Self {
        let this = Self::new(output, what, None, "{spinner} {msg}");
        if !this.bar.is_hidden() {
            this.bar.enable_steady_tick(TICK);
        }
        this
    }

    fn new(output: &Output, what: &'static str, total: Option<u64>, template: &str) -> Self {
        let target =
            if output.is_watched() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target);
        // The templates are ours; the default style is only plainer.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        Self { bar }
    }

    /// So many units are done.
    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// How many units are done.
    pub fn done(&self) -> u64 {
        self.bar.position()
    }

    /// Whether nobody sees it.
    pub fn is_hidden(&self) -> bool {
        self.bar.is_hidden()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;

    #[test]
    fn nothing_is_drawn_where_nobody_watches() {
        for (format, quiet) in [(Format::Json, false), (Format::Human, true), (Format::Human, false)] {
            let (output, captured) = Output::captured(format, quiet);
            let progress = Progress::bar(&output, "writing", 10);
            progress.set(7);
            assert!(progress.is_hidden());
            assert_eq!(progress.done(), 7);
            assert!(Progress::spinner(&output, "deriving").is_hidden());
            assert_eq!(captured.stderr() + &captured.stdout(), "");
        }
        assert!(Progress::bar(&Output::process(Format::Json, false), "writing", 10).is_hidden());
    }
}

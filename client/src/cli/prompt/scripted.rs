//! Answers known in advance: for tests, and for programs that run commands inside themselves.

use std::collections::VecDeque;

use zeroize::Zeroizing;

use super::{Prompt, PromptError, Question, TypedPassphrase};

/// An answer to one question.
#[derive(Clone)]
pub enum Answer {
    /// To [`Prompt::passphrase`] or [`Prompt::new_passphrase`].
    Passphrase(Zeroizing<String>),
    /// To [`Prompt::confirm`].
    Confirm(bool),
    /// To [`Prompt::choose`].
    Choose(usize),
    /// To [`Prompt::text`].
    Text(String),
    /// The person says stop, at whatever question.
    Stop,
}

impl Answer {
    /// A passphrase.
    pub fn passphrase(text: &str) -> Self {
        Self::Passphrase(Zeroizing::new(text.to_owned()))
    }
}

/// Gives its answers in order and keeps the questions. A question that its next answer does not fit, or that comes
/// after the last, ends as at a machine without a terminal.
#[derive(Default)]
pub struct Scripted {
    answers: VecDeque<Answer>,
    asked: Vec<String>,
}

impl Scripted {
    /// Answers in the order in which the questions come.
    pub fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self { answers: answers.into_iter().collect(), asked: Vec::new() }
    }

    /// What was asked.
    pub fn asked(&self) -> &[String] {
        &self.asked
    }

    /// Whether every answer was used.
    pub fn is_used_up(&self) -> bool {
        self.answers.is_empty()
    }

    fn answer<T>(
        &mut self,
        asked: &str,
        flag: &str,
        fit: impl FnOnce(Answer) -> Option<T>,
    ) -> Result<T, PromptError> {
        self.asked.push(asked.to_owned());
        match self.answers.pop_front() {
            Some(Answer::Stop) => Err(PromptError::Interrupted),
            Some(answer) => fit(answer).ok_or_else(|| PromptError::GaveUp { flag: flag.to_owned() }),
            None => Err(PromptError::NoTerminal { flag: flag.to_owned() }),
        }
    }

    fn secret(&mut self, what: &str, flag: &str) -> Result<TypedPassphrase, PromptError> {
        let text = self.answer(what, flag, |answer| match answer {
            Answer::Passphrase(text) => Some(text),
            _ => None,
        })?;
        Ok(TypedPassphrase::new(text)?)
    }
}

impl Prompt for Scripted {
    fn passphrase(&mut self, what: &str) -> Result<TypedPassphrase, PromptError> {
        self.secret(what, "--passphrase-fd")
    }

    fn new_passphrase(&mut self, what: &str) -> Result<TypedPassphrase, PromptError> {
        self.secret(what, "--new-passphrase-fd")
    }

    fn confirm(&mut self, question: Question<'_>) -> Result<bool, PromptError> {
        self.answer(question.text(), question.flag(), |answer| match answer {
            Answer::Confirm(yes) => Some(yes),
            _ => None,
        })
    }

    fn choose(&mut self, question: Question<'_>, options: &[&str]) -> Result<usize, PromptError> {
        self.answer(question.text(), question.flag(), |answer| match answer {
            Answer::Choose(index) if index < options.len() => Some(index),
            _ => None,
        })
    }

    fn text(&mut self, question: Question<'_>) -> Result<String, PromptError> {
        self.answer(question.text(), question.flag(), |answer| match answer {
            Answer::Text(text) => Some(text.trim().to_owned()),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_order_and_must_fit() {
        let mut prompt = Scripted::new([
            Answer::passphrase("one"),
            Answer::Confirm(true),
            Answer::Choose(2),
            Answer::Text(" hi ".into()),
            Answer::Confirm(true),
            Answer::Choose(9),
            Answer::Stop,
        ]);
        let question = Question::new("sure?", "--yes");
        let gave_up = PromptError::GaveUp { flag: "--yes".into() };
        assert_eq!(prompt.passphrase("passphrase").unwrap().expose(), "one");
        assert!(prompt.confirm(question).unwrap());
        assert_eq!(prompt.choose(question, &["a", "b", "c"]).unwrap(), 2);
        assert_eq!(prompt.text(question).unwrap(), "hi");
        assert_eq!(prompt.text(question).unwrap_err(), gave_up);
        assert_eq!(prompt.choose(question, &["a"]).unwrap_err(), gave_up);
        assert_eq!(prompt.new_passphrase("new passphrase").unwrap_err(), PromptError::Interrupted);
        assert!(prompt.is_used_up());
        assert_eq!(prompt.confirm(question).unwrap_err(), PromptError::NoTerminal { flag: "--yes".into() });
        assert_eq!(prompt.asked()[0], "passphrase");
        assert_eq!(prompt.asked().len(), 8);
    }
}

//! Parses the command line: flags, options with one value, and positional words.

use std::collections::VecDeque;
use std::str::FromStr;
use std::time::Duration;

use crate::Failure;

/// The words of the command line that are not parsed yet. Each method removes the words that it parses.
pub(crate) struct Arguments {
    words: VecDeque<String>,
}

impl Arguments {
    pub(crate) fn new(words: impl Iterator<Item = String>) -> Self {
        Self { words: words.collect() }
    }

    /// Whether the next word is `word`.
    pub(crate) fn word(&mut self, word: &str) -> bool {
        let is = self.words.front().is_some_and(|front| front == word);
        if is {
            self.words.pop_front();
        }
        is
    }

    /// Whether `--name` is given.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let position = self.words.iter().position(|word| word == name);
        position.and_then(|position| self.words.remove(position)).is_some()
    }

    /// The value after `--name`, if it is given.
    pub(crate) fn option<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Failure> {
        let Some(position) = self.words.iter().position(|word| word == name) else {
            return Ok(None);
        };
        self.words.remove(position);
        let value = self.words.remove(position).ok_or_else(|| format!("{name} needs a value"))?;
        let parsed = value.parse().map_err(|_| format!("{name} {value}: not understood"))?;
        Ok(Some(parsed))
    }

    /// The value after `--name`, an integer of at least 1. `otherwise` if it is not given.
    pub(crate) fn count(&mut self, name: &str, otherwise: usize) -> Result<usize, Failure> {
        match self.option(name)?.unwrap_or(otherwise) {
            0 => Err(format!("{name} must be at least 1").into()),
            count => Ok(count),
        }
    }

    /// The value after `--name`, in seconds, from 0 to 3600. `otherwise` if it is not given.
    pub(crate) fn seconds(&mut self, name: &str, otherwise: f64) -> Result<Duration, Failure> {
        let seconds: f64 = self.option(name)?.unwrap_or(otherwise);
        if (0.0..=3600.0).contains(&seconds) {
            Ok(Duration::from_secs_f64(seconds))
        } else {
            Err(format!("{name} must lie between 0 and 3600").into())
        }
    }

    /// The only word that is left after all flags and options. `what` names it in an error.
    pub(crate) fn last(&mut self, what: &str) -> Result<String, Failure> {
        let word = self.words.pop_front().ok_or_else(|| format!("{what} is missing"))?;
        match self.words.front() {
            Some(extra) => Err(format!("{extra}: not understood").into()),
            None if word.starts_with('-') => Err(format!("{word}: not understood").into()),
            None => Ok(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Arguments {
        Arguments::new(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_may_precede_or_follow_the_address() {
        let mut arguments = arguments("--size 7 127.0.0.1:1 --json");
        assert!(arguments.flag("--json"));
        assert_eq!(arguments.option("--size").unwrap(), Some(7));
        assert_eq!(arguments.option::<usize>("--depth").unwrap(), None);
        assert_eq!(arguments.last("address").unwrap(), "127.0.0.1:1");
    }

    #[test]
    fn invalid_arguments_are_refused() {
        assert!(arguments("--size").option::<usize>("--size").is_err());
        assert!(arguments("--size x").option::<usize>("--size").is_err());
        assert!(arguments("--depth 0").count("--depth", 1).is_err());
        assert!(arguments("--keep -1").seconds("--keep", 1.0).is_err());
        assert!(arguments("a b").last("address").is_err());
        assert!(arguments("--what").last("address").is_err());
        assert!(arguments("").last("address").is_err());
    }
}

//! Options of a command line: `--name value`, `--name=value` and `--name`, in any order.

use std::str::FromStr;
use std::time::Duration;

/// What is left of a command line.
pub(crate) struct Options(Vec<String>);

impl Options {
    pub(crate) fn new(arguments: &[String]) -> Self {
        Self(arguments.to_vec())
    }

    /// Whether a switch is there.
    pub(crate) fn switch(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|argument| argument != name);
        self.0.len() < before
    }

    /// The values of an option that may come several times.
    pub(crate) fn values(&mut self, name: &str) -> Result<Vec<String>, String> {
        let mut values = Vec::new();
        let mut rest = Vec::new();
        let mut arguments = std::mem::take(&mut self.0).into_iter();
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix(name) {
                Some("") => values.push(arguments.next().ok_or_else(|| format!("{name} needs a value"))?),
                Some(value) if value.starts_with('=') => values.push(value[1..].to_owned()),
                _ => rest.push(argument),
            }
        }
        self.0 = rest;
        Ok(values)
    }

    /// The value of an option; the last one counts.
    pub(crate) fn value<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        let text = self.values(name)?.pop();
        text.map(|text| text.parse().map_err(|_| format!("{name} {text}: not understood"))).transpose()
    }

    /// The value of an option in seconds.
    pub(crate) fn seconds(&mut self, name: &str) -> Result<Option<Duration>, String> {
        let Some(seconds) = self.value::<f64>(name)? else { return Ok(None) };
        Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| format!("{name} {seconds}: not a time"))
    }

    /// What is no option.
    pub(crate) fn rest(self) -> Result<Vec<String>, String> {
        match self.0.iter().find(|argument| argument.starts_with('-')) {
            Some(unknown) => Err(format!("{unknown}: no such option")),
            None => Ok(self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Options {
        Options::new(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_come_in_any_order_and_form() {
        let mut options = options("url --seconds 1.5 --count=3 --loop --user a --user=b");
        assert!(options.switch("--loop") && !options.switch("--loop"));
        assert_eq!(options.seconds("--seconds"), Ok(Some(Duration::from_millis(1_500))));
        assert_eq!(options.value::<usize>("--count"), Ok(Some(3)));
        assert_eq!(options.values("--user"), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(options.rest(), Ok(vec!["url".to_owned()]));
    }

    #[test]
    fn a_mistake_is_named() {
        assert_eq!(options("--count x").value::<usize>("--count"), Err("--count x: not understood".to_owned()));
        assert_eq!(options("--count").value::<usize>("--count"), Err("--count needs a value".to_owned()));
        assert_eq!(options("--seconds -1").seconds("--seconds"), Err("--seconds -1: not a time".to_owned()));
        assert_eq!(options("--novel").rest(), Err("--novel: no such option".to_owned()));
    }
}

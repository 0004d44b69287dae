//! Go's flag syntax (`-x v`, `-x=v`, `--x v`, `-flag=false`) rewritten as the `--x=v` that pico-args reads.

use std::ffi::OsString;

use super::UsageError;
use super::flags::{FLAGS, Flag, Value};

/// Rewrites `arguments` (without the program's name). Flags end at the first free argument or at `--`, as in Go; of a
/// flag given twice the last one counts.
///
/// # Errors
/// An unknown flag, a flag without its value, or text that is not UTF-8.
pub(super) fn normalise(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, UsageError> {
    let mut arguments = arguments.into_iter().map(|argument| {
        argument.into_string().map_err(|bad| UsageError(format!("argument {bad:?} is not valid UTF-8: retype it")))
    });
    let mut flags: Vec<(&Flag, String)> = Vec::new();
    let mut free = Vec::new();
    while let Some(argument) = arguments.next().transpose()? {
        if argument == "--" {
            break;
        }
        let Some(body) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')).filter(|b| !b.is_empty())
        else {
            free.push(argument);
            break;
        };
        let (name, value) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value.to_owned())));
        let name = if name == "h" { "help" } else { name };
        let flag = FLAGS.iter().find(|flag| flag.name == name).ok_or_else(|| UsageError::unknown(name))?;
        let value = match (value, flag.value) {
            (Some(value), _) => value,
            (None, Value::Bool) => "true".into(),
            (None, Value::One(what) | Value::Many(what)) => arguments
                .next()
                .transpose()?
                .ok_or_else(|| UsageError(format!("-{name} needs a value: write -{name} {what}")))?,
        };
        if !matches!(flag.value, Value::Many(_)) {
            flags.retain(|(earlier, _)| earlier.name != flag.name);
        }
        flags.push((flag, value));
    }
    for argument in arguments {
        free.push(argument?);
    }
    let flags = flags.into_iter().map(|(flag, value)| format!("--{}={value}", flag.name));
    Ok(flags.chain(free).map(OsString::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(arguments: &[&str]) -> Result<Vec<String>, String> {
        normalise(arguments.iter().map(OsString::from))
            .map(|all| all.into_iter().map(|one| one.into_string().unwrap()).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn gos_ways_of_writing_a_flag_are_one() {
        for way in [&["-sip", "sip:a@b"][..], &["-sip=sip:a@b"], &["--sip", "sip:a@b"], &["--sip=sip:a@b"]] {
            assert_eq!(normal(way).unwrap(), ["--sip=sip:a@b"]);
        }
        assert_eq!(normal(&["-debug", "-insecure=false", "u"]).unwrap(), ["--debug=true", "--insecure=false", "u"]);
    }

    #[test]
    fn the_last_of_several_counts_but_a_list_keeps_all() {
        assert_eq!(normal(&["-username", "a", "-username=b"]).unwrap(), ["--username=b"]);
        let list = normal(&["-sip-allow", "10.0.0.1", "-sip-allow", "10.0.0.2"]).unwrap();
        assert_eq!(list, ["--sip-allow=10.0.0.1", "--sip-allow=10.0.0.2"]);
    }

    #[test]
    fn flags_end_at_the_first_free_argument() {
        assert_eq!(normal(&["url", "-debug"]).unwrap(), ["url", "-debug"]);
        assert_eq!(normal(&["-debug", "--", "-x"]).unwrap(), ["--debug=true", "-x"]);
    }

    #[test]
    fn a_mistake_names_the_flag() {
        assert!(normal(&["-usrname", "a"]).unwrap_err().contains("-username"));
        assert!(normal(&["-sip"]).unwrap_err().contains("-sip ADDRESS"));
    }
}

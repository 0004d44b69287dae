//! The small words of RFC 3261 §25.1: tokens, lists that respect quotes and angle brackets, bounded numbers.
//!
//! All of it works on unfolded lines: linear white space is blanks and tabs only.

use crate::wire::uri::Parameters;

/// Parameters of one header value: real ones have fewer than ten.
pub(super) const MAX_PARAMETERS: usize = 64;

pub(super) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

pub(super) const fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t')
}

pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(is_blank)
}

/// A number of seconds or the like: digits only, and what is too large for 32 bits is the largest (RFC 3261 §20.19).
pub(super) fn parse_saturating(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u32::MAX))
}

/// A quoted string or an angle bracket that is never closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unbalanced;

/// The parts of `text` between the `separator`s that stand outside of quotes and angle brackets, trimmed.
pub(super) struct Split<'a> {
    rest: Option<&'a str>,
    separator: u8,
}

pub(super) const fn split(text: &str, separator: u8) -> Split<'_> {
    Split { rest: Some(text), separator }
}

impl<'a> Iterator for Split<'a> {
    type Item = Result<&'a str, Unbalanced>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.rest.take()?;
        match find_outside(text, self.separator) {
            Err(Unbalanced) => Some(Err(Unbalanced)),
            Ok(None) => Some(Ok(trim(text))),
            Ok(Some(at)) => {
                self.rest = Some(&text[at + 1..]);
                Some(Ok(trim(&text[..at])))
            }
        }
    }
}

/// Where `wanted` first stands outside of quotes and angle brackets.
pub(super) fn find_outside(text: &str, wanted: u8) -> Result<Option<usize>, Unbalanced> {
    let (mut in_quotes, mut in_angles, mut is_escaped) = (false, false, false);
    for (at, byte) in text.bytes().enumerate() {
        if is_escaped {
            is_escaped = false;
        } else if in_quotes {
            match byte {
                b'\\' => is_escaped = true,
                b'"' => in_quotes = false,
                _ => {}
            }
        } else if byte == wanted && !in_angles {
            return Ok(Some(at));
        } else {
            match byte {
                b'"' if !in_angles => in_quotes = true,
                b'<' => in_angles = true,
                b'>' => in_angles = false,
                _ => {}
            }
        }
    }
    if in_quotes || in_angles { Err(Unbalanced) } else { Ok(None) }
}

/// Reads `;name=value;name` with blanks anywhere around the signs. `text` starts with the semicolon or is empty.
pub(super) fn parse_parameters(text: &str) -> Result<Parameters, &'static str> {
    let text = trim(text);
    if text.is_empty() {
        return Ok(Parameters::new());
    }
    let list = text.strip_prefix(';').ok_or("something before the parameters")?;
    parse_parameter_list(list, b';')
}

/// Reads `name=value` pairs between `separator`s.
pub(super) fn parse_parameter_list(list: &str, separator: u8) -> Result<Parameters, &'static str> {
    let mut parameters = Parameters::new();
    for part in split(list, separator) {
        let part = part.map_err(|Unbalanced| "unbalanced quotes")?;
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end_matches(is_blank), Some(value.trim_start_matches(is_blank))),
            None => (part, None),
        };
        if !is_token(name) {
            return Err("a parameter without a proper name");
        }
        if value.is_some_and(|value| !is_parameter_value(value)) {
            return Err("a parameter with a bad value");
        }
        if parameters.len() == MAX_PARAMETERS {
            return Err("too many parameters");
        }
        parameters.push(name, value.map(str::to_owned));
    }
    Ok(parameters)
}

/// A token, a host or a quoted string. More is let through than the grammar says (`/`, `=`, `@` …: instance
/// identifiers and base64 come unquoted), but nothing that would end the value early; an empty one is tolerated.
fn is_parameter_value(value: &str) -> bool {
    if value.starts_with('"') {
        return is_quoted_string(value);
    }
    value.bytes().all(|byte| byte > b' ' && byte != 0x7f && !b"\",;<>\\".contains(&byte))
}

/// Whether `text` is one quoted string from its first to its last character.
pub(super) fn is_quoted_string(text: &str) -> bool {
    quoted_string_length(text) == Some(text.len())
}

/// How many bytes the quoted string takes that `text` begins with.
pub(super) fn quoted_string_length(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate();
    bytes.next().filter(|&(_, byte)| byte == b'"')?;
    let mut is_escaped = false;
    for (at, byte) in bytes {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<Result<&str, Unbalanced>> {
        split(text, b',').collect()
    }

    #[test]
    fn commas_in_quotes_and_angle_brackets_do_not_split() {
        assert_eq!(parts(r#""a, \"b" <sip:x,y@z> , c"#), [Ok(r#""a, \"b" <sip:x,y@z>"#), Ok("c")]);
        assert_eq!(parts(",,"), [Ok(""), Ok(""), Ok("")]);
        assert_eq!(parts(r#"a, "b"#), [Ok("a"), Err(Unbalanced)]);
        assert_eq!(parts("<a, b"), [Err(Unbalanced)]);
    }

    #[test]
    fn parameters_may_have_blanks_around_every_sign() {
        let parameters = parse_parameters(" ; tag = 98 ; x=\"a;b\" ;lr").unwrap();
        assert_eq!(parameters.to_string(), r#";tag=98;x="a;b";lr"#);
        assert!(parse_parameters("").unwrap().is_empty());
        for bad in ["x", ";", ";;", ";=1", ";a b", ";a=\"b", ";a=\"b\"c", ";a=b c", ";a=<b>"] {
            assert!(parse_parameters(bad).is_err(), "{bad}");
        }
        assert!(parse_parameters(&";p".repeat(MAX_PARAMETERS + 1)).is_err());
    }

    #[test]
    fn numbers_saturate_and_are_nothing_but_digits() {
        assert_eq!(parse_saturating("0068"), Some(68));
        assert_eq!(parse_saturating(&"9".repeat(100)), Some(u32::MAX));
        for bad in ["", "-1", "+1", "1 ", "1.0"] {
            assert_eq!(parse_saturating(bad), None, "{bad}");
        }
    }
}

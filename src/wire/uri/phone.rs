//! Telephone numbers in URIs (RFC 3966, RFC 3261 §19.1.6).

use super::Uri;

/// What people write between digits and nobody dials.
const VISUAL_SEPARATORS: [char; 4] = ['-', '.', '(', ')'];

impl Uri {
    /// The telephone number that a `tel:` URI names, or a SIP URI with `user=phone`: without separators, context and
    /// extension. `None` for other URIs.
    pub fn phone_number(&self) -> Option<String> {
        let is_number = match self {
            Self::Tel(_) => true,
            Self::Sip(uri) => uri.parameters.value("user").is_some_and(|value| value.eq_ignore_ascii_case("phone")),
            Self::Other(_) => false,
        };
        let user = self.user().filter(|_| is_number)?;
        let number = user.split(';').next().unwrap_or_default();
        let number: String = number.chars().filter(|character| !VISUAL_SEPARATORS.contains(character)).collect();
        (!number.is_empty()).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_every_form() {
        for (uri, number) in [
            ("tel:+49-30-(0)123.45;ext=7", Some("+4930012345")),
            ("sip:+49-30-1;phone-context=example.com@h;user=phone", Some("+49301")),
            ("sip:030%3B1@h;user=PHONE", Some("030")),
            ("sip:bob-the.man@h", None),
            ("sip:;x@h;user=phone", None),
            ("mailto:a@b", None),
        ] {
            assert_eq!(Uri::parse(uri).unwrap().phone_number().as_deref(), number, "{uri}");
        }
    }
}

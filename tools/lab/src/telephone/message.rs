//! SIP messages as a telephone (and the laboratory's registrar) needs them: text in, text out.
//!
//! Owns: finding headers (compact names too), URIs, tags and list elements in them. Does not own: strictness; a telephone that
//! judges the gateway must not share its parser, nor refuse what a real telephone would take.
//! RFC: 3261 §7, §20.

/// One SIP message, its headers in the order they came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// The request line or the status line.
    pub(crate) start_line: String,
    /// Header names as written and their values, folded lines joined.
    pub(crate) headers: Vec<(String, String)>,
    /// What follows the empty line, cut to Content-Length where one is given.
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// Reads one datagram; `None` for anything that is no SIP message.
    pub(crate) fn parse(datagram: &[u8]) -> Option<Self> {
        let split = datagram.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&datagram[..split]).ok()?;
        let mut body = datagram[split + 4..].to_vec();
        let mut lines = head.split("\r\n");
        let start_line = lines.next()?.to_owned();
        if !start_line.starts_with("SIP/2.0 ") && !start_line.ends_with(" SIP/2.0") {
            return None;
        }
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            if line.starts_with([' ', '\t']) {
                let (_, value) = headers.last_mut()?;
                value.push(' ');
                value.push_str(line.trim());
            } else {
                let (name, value) = line.split_once(':')?;
                headers.push((long_name(name.trim()).to_owned(), value.trim().to_owned()));
            }
        }
        let message = Self { start_line, headers, body: Vec::new() };
        if let Some(length) = message.header("Content-Length").and_then(|value| value.parse().ok()) {
            body.truncate(length);
        }
        Some(Self { body, ..message })
    }

    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Every header line of that name, in order.
    pub(crate) fn headers_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Status and reason phrase of a response.
    pub(crate) fn status(&self) -> Option<(u16, &str)> {
        let rest = self.start_line.strip_prefix("SIP/2.0 ")?;
        let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        Some((code.parse().ok()?, reason))
    }

    /// The method of a request.
    pub(crate) fn method(&self) -> Option<&str> {
        if self.start_line.starts_with("SIP/2.0 ") { None } else { self.start_line.split(' ').next() }
    }

    /// Sequence number and method of CSeq.
    pub(crate) fn cseq(&self) -> Option<(u32, &str)> {
        let (number, method) = self.header("CSeq")?.split_once(' ')?;
        Some((number.parse().ok()?, method.trim()))
    }

    /// The branch of the top Via.
    pub(crate) fn branch(&self) -> Option<&str> {
        parameter(self.header("Via")?, "branch")
    }
}

/// The URI of a From, To, Contact or Record-Route value.
pub(crate) fn uri_of(value: &str) -> &str {
    match value.split_once('<').and_then(|(_, rest)| rest.split_once('>')) {
        Some((uri, _)) => uri,
        None => value.split(';').next().unwrap_or(value).trim(),
    }
}

/// A header parameter, looked for behind the URI so that the URI's own parameters do not count.
pub(crate) fn parameter<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let outside = value.rsplit_once('>').map_or(value, |(_, rest)| rest);
    outside.split(';').skip(1).find_map(|part| {
        let (key, found) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| found.trim().trim_matches('"'))
    })
}

/// The elements of a comma-separated value, as Contact and Authorization have them. Commas within quotes or angle
/// brackets separate nothing.
pub(crate) fn elements(value: &str) -> Vec<&str> {
    let (mut found, mut start) = (Vec::new(), 0);
    let (mut is_quoted, mut is_escaped, mut is_uri) = (false, false, false);
    for (index, character) in value.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '<' if !is_quoted => is_uri = true,
            '>' if !is_quoted => is_uri = false,
            ',' if !is_quoted && !is_uri => {
                found.push(value[start..index].trim());
                start = index + 1;
            }
            _ => (),
        }
    }
    found.push(value[start..].trim());
    found.retain(|element| !element.is_empty());
    found
}

fn long_name(name: &str) -> &str {
    match name {
        "i" => "Call-ID",
        "f" => "From",
        "t" => "To",
        "v" => "Via",
        "m" => "Contact",
        "l" => "Content-Length",
        "c" => "Content-Type",
        "k" => "Supported",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_with_compact_names_and_folding_is_read() {
        let text =
            b"SIP/2.0 486 Busy Here\r\nv: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK1;rport=9\r\nf: <sip:a@b>;tag=1\r\n\
            To: \"X;tag=no\" <sip:c@d;tag=neither>\r\n ;tag=yes\r\nCSeq: 7 INVITE\r\nl: 2\r\n\r\nabcd";
        let message = Message::parse(text).unwrap();
        assert_eq!(message.status(), Some((486, "Busy Here")));
        assert_eq!(message.cseq(), Some((7, "INVITE")));
        assert_eq!(message.branch(), Some("z9hG4bK1"));
        assert_eq!(parameter(message.header("to").unwrap(), "tag"), Some("yes"));
        assert_eq!(uri_of(message.header("To").unwrap()), "sip:c@d;tag=neither");
        assert_eq!(message.body, b"ab");
    }

    #[test]
    fn a_list_is_split_where_a_comma_separates() {
        assert_eq!(elements(r#""A, \"B,C" <sip:a,b@c>;q=1 , sip:d@e,"#), [r#""A, \"B,C" <sip:a,b@c>;q=1"#, "sip:d@e"]);
    }

    #[test]
    fn what_is_no_sip_is_refused() {
        assert_eq!(Message::parse(b"hello\r\n\r\n"), None);
        assert_eq!(Message::parse(b"\x80\x00\x00"), None);
    }
}

//! One datagram to one message (RFC 3261 §7, §18.3).

use super::grammar::{is_blank, is_token};
use super::headers::{Header, Headers, MAX_HEADERS};
use super::method::Method;
use super::typed::HeaderError;
use super::{MAX_MESSAGE_BYTES, Message, Request, Response};
use crate::wire::uri::Uri;

/// Why a datagram is no message, and what to answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status} {reason}")]
pub struct ParseError {
    /// The status for the sender of a request: 400, 505 or 513.
    pub status: u16,
    /// The reason phrase.
    pub reason: String,
    /// The response, complete but for the To tag and the marks of the source (`headers.mark_source`), where enough
    /// of a request could be read; to be sent to the source of the datagram if its Via is of no use. `None` for
    /// broken responses, an ACK, and what is no SIP at all.
    pub reply: Option<Box<Response>>,
}

impl ParseError {
    fn bad(reason: impl Into<String>) -> Self {
        Self { status: 400, reason: reason.into(), reply: None }
    }
}

impl From<HeaderError> for ParseError {
    fn from(error: HeaderError) -> Self {
        Self::bad(format!("Bad {error}"))
    }
}

/// Whether a datagram is a keep-alive: nothing, or nothing but line ends and zeros (RFC 5626 §3.5.1 and habit).
pub fn is_keep_alive(datagram: &[u8]) -> bool {
    datagram.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

enum StartLine {
    Request { method: Method, uri: Uri },
    Response { status: u16, reason: String },
}

pub(super) fn message(datagram: &[u8]) -> Result<Message, ParseError> {
    let start = datagram.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(datagram.len());
    let mut lines = Lines { rest: &datagram[start..] };
    let first = lines.next().unwrap_or_default();
    let start_line = parse_start_line(first);
    let (headers, error) = parse_headers(&mut lines);
    let result = if datagram.len() > MAX_MESSAGE_BYTES {
        Err(ParseError { status: 513, reason: "Message Too Large".to_owned(), reply: None })
    } else {
        start_line.and_then(|line| error.map_or(Ok(line), Err))
    };
    result.and_then(|line| assemble(line, &headers, lines.rest)).map_err(|error| with_reply(error, first, headers))
}

/// The head's lines without their ends; `rest` is the body once the empty line has been taken.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    /// Up to the next line end: CR LF, or the LF alone of a careless sender.
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|&byte| byte == b'\n')?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Whether the next line continues this one.
    fn is_folded(&self) -> bool {
        self.rest.first().is_some_and(|&byte| is_blank(char::from(byte)))
    }
}

fn parse_start_line(line: &[u8]) -> Result<StartLine, ParseError> {
    let line = String::from_utf8_lossy(line);
    let is_version = |text: &str| text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("SIP/"));
    if is_version(&line) {
        return parse_status_line(&line);
    }
    let mut words = line.split(' ');
    let (Some(method), Some(uri), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(ParseError::bad("Bad Request-Line"));
    };
    if !is_version(version) {
        return Err(ParseError::bad("Bad Request-Line"));
    }
    if !version.eq_ignore_ascii_case("SIP/2.0") {
        return Err(ParseError { status: 505, reason: "Version Not Supported".to_owned(), reply: None });
    }
    let method = Method::parse(method).ok_or_else(|| ParseError::bad("Bad method"))?;
    let uri = Uri::parse(uri).map_err(|error| ParseError::bad(format!("Bad Request-URI: {error}")))?;
    if uri.as_sip().is_some_and(|uri| !uri.headers.is_empty() || uri.parameters.has("method")) {
        // RFC 3261 §19.1.1, table 1.
        return Err(ParseError::bad("Headers or method in the Request-URI"));
    }
    Ok(StartLine::Request { method, uri })
}

fn parse_status_line(line: &str) -> Result<StartLine, ParseError> {
    let mut words = line.splitn(3, ' ');
    let (version, status, reason) = (words.next(), words.next(), words.next());
    let is_number = |text: &&str| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    let status = status.filter(is_number).and_then(|text| text.parse().ok()).filter(|code| (100..700).contains(code));
    match (version, status) {
        (Some(version), Some(status)) if version.eq_ignore_ascii_case("SIP/2.0") => {
            let reason = reason.unwrap_or_default();
            if reason.contains('\r') {
                return Err(ParseError::bad("Bad Status-Line"));
            }
            Ok(StartLine::Response { status, reason: reason.to_owned() })
        }
        _ => Err(ParseError::bad("Bad Status-Line")),
    }
}

/// Reads all the lines it can, so that even a broken request can be answered, and keeps the first error.
fn parse_headers(lines: &mut Lines<'_>) -> (Headers, Option<ParseError>) {
    let mut headers = Headers::new();
    let mut error = lines.is_folded().then(|| ParseError::bad("Folded start line"));
    loop {
        let Some(line) = lines.next() else {
            return (headers, error.or_else(|| Some(ParseError::bad("No empty line after the headers"))));
        };
        if line.is_empty() {
            return (headers, error);
        }
        let mut unfolded = line.to_vec();
        while lines.is_folded() {
            let Some(more) = lines.next() else { break };
            let text_at = more.iter().position(|&byte| !is_blank(char::from(byte))).unwrap_or(more.len());
            unfolded.push(b' ');
            unfolded.extend_from_slice(&more[text_at..]);
        }
        if headers.len() == MAX_HEADERS {
            return (headers, error.or_else(|| Some(ParseError::bad("Too many headers"))));
        }
        match parse_header(&unfolded) {
            Ok(header) => headers.push_header(header),
            Err(problem) => error = error.or_else(|| Some(ParseError::bad(problem))),
        }
    }
}

fn parse_header(line: &[u8]) -> Result<Header, &'static str> {
    let colon = line.iter().position(|&byte| byte == b':').ok_or("Header line without a colon")?;
    let name = std::str::from_utf8(&line[..colon]).map_err(|_| "Bad header name")?.trim_end_matches(is_blank);
    if !is_token(name) {
        return Err("Bad header name");
    }
    if line.contains(&b'\r') {
        return Err("Bare CR in a header");
    }
    Ok(Header::from_bytes(name, line[colon + 1..].to_vec()))
}

/// Puts the parts together and refuses what RFC 3261 §8.1.1 does not allow.
fn assemble(start_line: StartLine, headers: &Headers, rest: &[u8]) -> Result<Message, ParseError> {
    let body = rest[..content_length(headers, rest.len())?].to_vec();
    check_mandatory(headers)?;
    let mut headers = headers.clone();
    headers.remove("Content-Length");
    match start_line {
        StartLine::Request { method, uri } => {
            if headers.cseq()?.method != method {
                return Err(ParseError::bad("CSeq method is not that of the request"));
            }
            headers.max_forwards()?;
            headers.contacts()?;
            headers.routes()?;
            headers.record_routes()?;
            Ok(Message::Request(Request { method, uri, headers, body }))
        }
        StartLine::Response { status, reason } => Ok(Message::Response(Response { status, reason, headers, body })),
    }
}

/// The body's length: a shorter one than the datagram trims, a longer one is an error (RFC 3261 §18.3).
fn content_length(headers: &Headers, available: usize) -> Result<usize, ParseError> {
    let length = content_length_field(headers)?.unwrap_or(available);
    if length > available { Err(ParseError::bad("Content-Length beyond the datagram")) } else { Ok(length) }
}

/// What Content-Length says, if it is there. Several must agree (RFC 4475 §3.3.9).
fn content_length_field(headers: &Headers) -> Result<Option<usize>, ParseError> {
    let mut length = None;
    for header in headers.lines("Content-Length") {
        let value = header.value();
        let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let value = value.parse::<usize>().ok().filter(|_| is_number);
        let value = value.ok_or_else(|| ParseError::bad("Bad Content-Length"))?;
        if length.is_some_and(|other| other != value) {
            return Err(ParseError::bad("Content-Length given twice"));
        }
        length = Some(value);
    }
    Ok(length)
}

/// A message in a stream whose end is not known.
#[derive(Debug)]
pub(super) struct MissingOrBad;

/// The length of the body that follows `head`, a start line, header lines and an empty one.
pub(super) fn declared_length(head: &[u8]) -> Result<usize, MissingOrBad> {
    let mut lines = Lines { rest: head };
    lines.next();
    let (headers, _) = parse_headers(&mut lines);
    content_length_field(&headers).ok().flatten().ok_or(MissingOrBad)
}

fn check_mandatory(headers: &Headers) -> Result<(), HeaderError> {
    headers.vias()?;
    headers.via()?;
    headers.from()?;
    headers.to()?;
    headers.call_id()?;
    headers.cseq()?;
    Ok(())
}

/// Adds the response, if the datagram was a request other than ACK and says where the response belongs.
fn with_reply(mut error: ParseError, first_line: &[u8], headers: Headers) -> ParseError {
    let is_for = |kind: &[u8]| first_line.len() > kind.len() && first_line[..kind.len()].eq_ignore_ascii_case(kind);
    let is_answerable = !is_for(b"SIP/") && !is_for(b"ACK ") && headers.has("Via") && headers.has("CSeq");
    if is_answerable {
        error.reply = Some(Box::new(Response::to_headers(&headers, error.status, &error.reason)));
    }
    error
}

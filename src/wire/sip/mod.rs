//! SIP messages (RFC 3261 §7, §20, §25): bytes to values and back.
//!
//! Owns: start lines, header fields, their typed values, framing of a datagram and of a stream.
//! Does not own: what a message means in a transaction, dialog or registration (`sip`); session descriptions (`sdp`).
//! Flow: [`Message::parse`] checks what every answer depends on (Via, From, To, Call-ID, CSeq, the addresses of a
//! dialog, Content-Length), so that their accessors on [`Headers`] do not fail on a parsed message; other headers stay
//! raw until someone asks. Writing gives back an equal message: `Message::parse(&message.to_bytes()) == message`.

mod auth;
mod extensions;
mod grammar;
mod headers;
mod method;
mod name_addr;
mod parse;
mod status;
mod stream;
mod transport;
mod typed;
mod via;

pub use auth::Authentication;
pub use extensions::{RAck, ReferTo, Refresher, Replaces, SessionExpires};
pub use headers::{Header, Headers, MAX_HEADERS};
pub use method::{CSeq, Method};
pub use name_addr::{Contacts, NameAddr};
pub use parse::{ParseError, is_keep_alive};
pub use status::reason_phrase;
pub use stream::{Frame, FrameError, MessageStream};
pub use transport::Transport;
pub use typed::{HeaderError, MAX_ADDRESSES, MAX_VIAS, Warning};
pub use via::{BRANCH_COOKIE, Rport, Via};

use crate::wire::uri::Uri;

/// The largest message: what fits into one UDP datagram.
pub const MAX_MESSAGE_BYTES: usize = 65_535;

/// A request or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// What someone wants of us.
    Request(Request),
    /// What someone answers.
    Response(Response),
}

/// A request (RFC 3261 §7.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub method: Method,
    /// The Request-URI: whom it is asked of.
    pub uri: Uri,
    /// The header fields without Content-Length.
    pub headers: Headers,
    /// The body, whatever its type.
    pub body: Vec<u8>,
}

/// A response (RFC 3261 §7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 100 to 699.
    pub status: u16,
    /// The status in words, perhaps empty.
    pub reason: String,
    /// The header fields without Content-Length.
    pub headers: Headers,
    /// The body, whatever its type.
    pub body: Vec<u8>,
}

impl Message {
    /// Reads one datagram. What follows the message (a shorter Content-Length) is ignored.
    ///
    /// # Errors
    /// What is wrong, with a response where a broken request can be answered.
    pub fn parse(datagram: &[u8]) -> Result<Self, ParseError> {
        parse::message(datagram)
    }

    /// The message as it goes over the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Request(request) => request.to_bytes(),
            Self::Response(response) => response.to_bytes(),
        }
    }

    /// The header fields.
    pub const fn headers(&self) -> &Headers {
        match self {
            Self::Request(request) => &request.headers,
            Self::Response(response) => &response.headers,
        }
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        match self {
            Self::Request(request) => &request.body,
            Self::Response(response) => &response.body,
        }
    }
}

impl Request {
    /// A request without headers and body.
    pub fn new(method: Method, uri: impl Into<Uri>) -> Self {
        Self { method, uri: uri.into(), headers: Headers::new(), body: Vec::new() }
    }

    /// The same request with a header more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push(name, value.to_string());
        self
    }

    /// The same request with a body.
    #[must_use]
    pub fn with_body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.headers.set("Content-Type", content_type);
        self.body = body.into();
        self
    }

    /// The request as it goes over the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        write_message(&format!("{} {} SIP/2.0", self.method, self.uri), &self.headers, &self.body)
    }
}

impl Response {
    /// The response to `request` with the headers that RFC 3261 §8.2.6.2 takes over from it: Via, From, To, Call-ID,
    /// CSeq; Timestamp for a 100 (§8.2.6.1); Record-Route where a dialog may begin (§12.1.1). An empty `reason` means
    /// the usual one. The To tag is the caller's to add: [`Self::set_to_tag`].
    pub fn to_request(request: &Request, status: u16, reason: &str) -> Self {
        let mut response = Self::to_headers(&request.headers, status, reason);
        if (101..300).contains(&status) && request.method == Method::Invite {
            response.headers.copy("Record-Route", &request.headers);
        }
        response
    }

    fn to_headers(request: &Headers, status: u16, reason: &str) -> Self {
        let mut headers = Headers::new();
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            headers.copy(name, request);
        }
        if status == 100 {
            headers.copy("Timestamp", request);
        }
        let reason = if reason.is_empty() { reason_phrase(status) } else { reason };
        Self { status, reason: one_line(reason), headers, body: Vec::new() }
    }

    /// The same response with a header more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push(name, value.to_string());
        self
    }

    /// The same response with a body.
    #[must_use]
    pub fn with_body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.headers.set("Content-Type", content_type);
        self.body = body.into();
        self
    }

    /// Gives To a tag if it has none (RFC 3261 §8.2.6.2). An unreadable To stays as it is.
    pub fn set_to_tag(&mut self, tag: &str) {
        if let Ok(to) = self.headers.to()
            && to.tag().is_none()
        {
            // The raw value is kept: only the sender knows why he wrote it so.
            let value = match self.headers.get("To") {
                Some(raw) => format!("{raw};tag={tag}"),
                None => return,
            };
            self.headers.set("To", value);
        }
    }

    /// 1xx.
    pub const fn is_provisional(&self) -> bool {
        self.status < 200
    }

    /// 2xx.
    pub const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    /// The response as it goes over the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let start_line = format!("SIP/2.0 {} {}", self.status, one_line(&self.reason));
        write_message(&start_line, &self.headers, &self.body)
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

fn write_message(start_line: &str, headers: &Headers, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024 + body.len());
    out.extend_from_slice(start_line.as_bytes());
    out.extend_from_slice(b"\r\n");
    for header in headers.iter().filter(|header| header.name() != "Content-Length") {
        header.write(&mut out);
    }
    out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
mod tests;

//! The telephones: what they say, in the order that they should or in any other.
//!
//! Owns: the text of requests and responses, and what a telephone has learnt of its dialog. Does not own: when they speak.

use std::fmt::Write as _;
use std::net::SocketAddr;

use galene_sip::wire::sip::{Method, NameAddr, Request, Response};

use super::Choices;

/// How many there are.
pub(super) const PHONES: usize = 4;
/// Any session description.
pub(super) const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
/// Kinds of additional header fields.
pub(super) const EXTRAS: usize = 20;

/// Where a telephone is; the registrar is nobody of them.
pub(super) fn address(phone: usize) -> SocketAddr {
    ([192, 0, 2, 10 + phone as u8], 5060).into()
}

/// One telephone, which has one dialog.
#[derive(Clone, Debug)]
pub(super) struct Phone {
    index: usize,
    calls: u32,
    call_id: String,
    local_tag: String,
    remote_tag: String,
    branch: String,
    branches: u32,
    cseq: u32,
    invite_cseq: u32,
    rseq: String,
}

impl Phone {
    pub(super) fn new(index: usize) -> Self {
        let mut phone = Self {
            index,
            calls: 0,
            call_id: String::new(),
            local_tag: String::new(),
            remote_tag: String::new(),
            branch: String::new(),
            branches: 0,
            cseq: 1,
            invite_cseq: 1,
            rseq: "1".into(),
        };
        phone.forget();
        phone.new_branch();
        phone
    }

    /// What comes next is a new call.
    fn forget(&mut self) {
        self.calls += 1;
        self.call_id = format!("call-{}-{}", self.index, self.calls);
        self.local_tag = format!("tag-{}-{}", self.index, self.calls);
        self.remote_tag.clear();
        self.cseq = 1;
    }

    /// The INVITE of a new call.
    pub(super) fn begin(&mut self, extra: usize, has_offer: bool) -> Vec<u8> {
        self.forget();
        self.new_branch();
        self.invite_cseq = self.cseq;
        let extra = self.extra(extra, &self.clone(), "");
        self.write("INVITE", false, self.cseq, &extra, has_offer.then_some(SDP))
    }

    /// The ACK for a 2xx.
    pub(super) fn acknowledge(&mut self, has_answer: bool) -> Vec<u8> {
        self.new_branch();
        self.write("ACK", true, self.invite_cseq, "", has_answer.then_some(SDP))
    }

    /// REFER to somebody of the domain, by an address or by a name.
    pub(super) fn refer(&mut self, by_name: bool) -> Vec<u8> {
        self.new_branch();
        self.cseq = self.cseq.wrapping_add(1);
        let host = if by_name { "example.test" } else { "192.0.2.11" };
        let extra = format!("Refer-To: <sip:carol@{host}>\r\n");
        self.write("REFER", true, self.cseq, &extra, None)
    }

    /// Any request.
    pub(super) fn request(&mut self, choices: &mut Choices<'_>, other: &Self) -> Vec<u8> {
        const METHODS: [&str; 16] = [
            "INVITE",
            "ACK",
            "BYE",
            "CANCEL",
            "UPDATE",
            "PRACK",
            "REFER",
            "INFO",
            "OPTIONS",
            "INVITE",
            "ACK",
            "BYE",
            "MESSAGE",
            "NOTIFY",
            "SUBSCRIBE",
            "XYZZY",
        ];
        let (method, how) = (choices.pick(&METHODS), choices.byte());
        let repeats_invite = matches!(method, "ACK" | "CANCEL");
        if !matches!(method, "CANCEL") && how & 1 == 0 {
            self.new_branch();
        }
        match (how >> 1) & 7 {
            0..=4 if repeats_invite => {}
            0..=4 => self.cseq = self.cseq.wrapping_add(1),
            5 => self.cseq = self.cseq.wrapping_sub(1),
            6 => self.cseq = u32::MAX >> 1,
            _ => {}
        }
        if method == "INVITE" {
            self.invite_cseq = self.cseq;
        }
        let cseq = if repeats_invite { self.invite_cseq } else { self.cseq };
        let raw = if how & 16 == 0 { String::new() } else { choices.text() };
        let mut extra = self.extra(choices.below(2 * EXTRAS), other, &raw);
        if method == "PRACK" {
            let _ = write!(extra, "RAck: {} {} INVITE\r\n", self.rseq, self.invite_cseq);
        }
        let bodies = [Some(SDP), None, Some("Signal=5\r\nDuration=160\r\n"), Some("")];
        let body = choices.pick(&bodies);
        self.write(method, how & 32 == 0 && method != "CANCEL", cseq, &extra, body)
    }

    fn new_branch(&mut self) {
        self.branches += 1;
        self.branch = format!("z9hG4bK{}x{}", self.index, self.branches);
    }

    /// Some header fields more; none beyond [`EXTRAS`].
    fn extra(&self, which: usize, other: &Self, raw: &str) -> String {
        let replaces = format!("{};to-tag={};from-tag={}", other.call_id, other.remote_tag, other.local_tag);
        match which {
            1 => "Supported: 100rel, timer\r\n".into(),
            2 => "Require: 100rel\r\n".into(),
            3 => "Supported: timer\r\nSession-Expires: 90;refresher=uas\r\n".into(),
            4 => "Supported: timer\r\nSession-Expires: 90;refresher=uac\r\nAllow: UPDATE, INVITE\r\n".into(),
            5 => "Session-Expires: 10\r\nMin-SE: 5\r\n".into(),
            6 => "Expires: 3\r\n".into(),
            7 => format!("Replaces: {replaces}\r\n"),
            8 => format!("Replaces: {replaces};early-only\r\n"),
            9 => "Refer-To: <sip:carol@example.test>\r\n".into(),
            10 => "Refer-To: <sip:carol@192.0.2.11;transport=tcp>\r\nRefer-Sub: false\r\n".into(),
            11 => format!("Refer-To: <sip:carol@192.0.2.12?Replaces={}>\r\n", other.call_id),
            12 => "Require: odd\r\n".into(),
            13 => "Record-Route: <sip:proxy.test;lr>, <sip:192.0.2.13;lr>\r\n".into(),
            14 => "Max-Forwards: 0\r\nAccept: text/plain\r\n".into(),
            15 => "Content-Type: application/dtmf-relay\r\n".into(),
            16 => "Session-Expires: 4294967295\r\nSupported: timer\r\nExpires: 4294967295\r\n".into(),
            17 => {
                "Authorization: Digest username=\"gw\", realm=\"example.test\", nonce=\"x\", response=\"y\"\r\n".into()
            }
            18 => format!("{raw}\r\n"),
            19 => format!("X-Odd: {raw}\r\n"),
            _ => String::new(),
        }
    }

    fn write(&self, method: &str, is_in_dialog: bool, cseq: u32, extra: &str, body: Option<&str>) -> Vec<u8> {
        let Self { branch, call_id, local_tag, remote_tag, .. } = self;
        let host = address(self.index);
        let is_known = is_in_dialog && !remote_tag.is_empty();
        let to_tag = if is_known { format!(";tag={remote_tag}") } else { String::new() };
        let mut text = format!(
            "{method} sip:gw@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP {host};branch={branch}\r\nMax-Forwards: 70\r\n\
             From: \"Anna\" <sip:anna@example.test>;tag={local_tag}\r\nTo: <sip:gw@example.test>{to_tag}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContact: <sip:anna@{host}>\r\n{extra}"
        );
        if body.is_some() && !extra.contains("Content-Type") {
            let kind = if body == Some(SDP) { "application/sdp" } else { "application/dtmf-relay" };
            let _ = write!(text, "Content-Type: {kind}\r\n");
        }
        let body = body.unwrap_or_default();
        let _ = write!(text, "Content-Length: {}\r\n\r\n{body}", body.len());
        text.into_bytes()
    }

    /// Hears a response, perhaps to a request of its own.
    pub(super) fn learn(&mut self, response: &Response) {
        if response.headers.call_id().ok() != Some(self.call_id.as_str()) {
            return;
        }
        let tag = response.headers.to().ok().and_then(|to| to.tag().map(|tag| tag.into_owned()));
        if let Some(tag) = tag.filter(|_| self.remote_tag.is_empty() && (101..300).contains(&response.status)) {
            self.remote_tag = tag;
        }
        if let Some(rseq) = response.headers.get("RSeq") {
            self.rseq = rseq.to_owned();
        }
    }

    /// From now on its dialog is the one that this answer to an INVITE of ours begins.
    pub(super) fn take(&mut self, invite: &Request, answer: &Response) {
        let tag = |address: Option<NameAddr>| address.and_then(|one| one.tag().map(|tag| tag.into_owned()));
        self.call_id = invite.headers.call_id().unwrap_or_default().to_owned();
        self.remote_tag = tag(invite.headers.from().ok()).unwrap_or_default();
        self.local_tag = tag(answer.headers.to().ok()).unwrap_or_default();
        self.cseq = 1;
    }
}

/// An answer to a request of ours.
pub(super) fn response(request: &Request, status: u16, how: u8, phone: usize) -> Response {
    let mut response = Response::to_request(request, status, "");
    let has_tag = request.headers.to().is_ok_and(|to| to.tag().is_some());
    if status > 100 && !has_tag {
        response.set_to_tag(&format!("answer-{phone}-{}", how >> 6));
    }
    response.headers.push("Contact", format!("<sip:carol@{}>", address(phone)));
    if request.method == Method::Register {
        if let Some(contact) = request.headers.get("Contact").filter(|_| how & 2 == 0) {
            response.headers.set("Contact", format!("{contact};expires={}", u32::from(how) * 20));
        }
        response.headers.push("Expires", "60");
    }
    match status {
        401 => response.headers.push("WWW-Authenticate", "Digest realm=\"example.test\", nonce=\"n\", qop=\"auth\""),
        407 => response.headers.push("Proxy-Authenticate", "Digest realm=\"example.test\", nonce=\"n\""),
        422 => response.headers.push("Min-SE", (u32::from(how) * 100).to_string()),
        423 => response.headers.push("Min-Expires", (u32::from(how) * 100).to_string()),
        503 => response.headers.push("Retry-After", how.to_string()),
        _ => {}
    }
    if how & 4 == 0 && request.method == Method::Invite {
        return response.with_body("application/sdp", SDP);
    }
    if how & 8 != 0 {
        return response.with("Session-Expires", "90;refresher=uac").with("Require", "timer");
    }
    response
}

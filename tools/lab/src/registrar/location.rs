//! The bindings of one address of record, without socket and clock: request in, response out.
//!
//! Owns: bindings and their lifetimes, repetitions of the last request. RFC: 3261 §10.3, §17.2.2, §18.2; 3581 §4.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::digest::{Nonce, Verdict};
use super::{Account, RegistrarEventKind};
use crate::random::token;
use crate::telephone::message::{Message, elements, parameter, uri_of};

/// The lifetime for who asks for none (RFC 3261 §10.2.1.1), and the longest one granted.
const LONGEST_EXPIRES_S: u32 = 3600;

/// What the registrar does about a request.
#[derive(Debug)]
pub(super) struct Answer {
    /// The response, for where the request came from.
    pub(super) datagram: Vec<u8>,
    /// What has happened with it.
    pub(super) events: Vec<RegistrarEventKind>,
}

/// Where the account can be reached.
#[derive(Debug)]
pub(super) struct Location {
    account: Account,
    nonce: Nonce,
    bindings: Vec<Binding>,
    /// Branch and sender of the last request, and its response.
    last: Option<(String, SocketAddr, Vec<u8>)>,
}

#[derive(Debug)]
struct Binding {
    contact: String,
    expires_at: Instant,
    call_id: String,
    cseq: u32,
}

/// A status line's code and phrase.
type Status = &'static str;

impl Location {
    pub(super) fn new(account: Account) -> Self {
        Self { account, nonce: Nonce::new(), bindings: Vec::new(), last: None }
    }

    /// Answers one request; `None` for what is to be left without an answer.
    pub(super) fn handle_datagram(&mut self, now: Instant, datagram: &[u8], source: SocketAddr) -> Option<Answer> {
        let request = Message::parse(datagram)?;
        let (method, branch) = (request.method()?, request.branch()?);
        if method == "ACK" {
            return None;
        }
        let is_last = |last: &&(String, SocketAddr, Vec<u8>)| last.0 == branch && last.1 == source;
        if let Some((_, _, datagram)) = self.last.as_ref().filter(is_last) {
            return Some(Answer { datagram: datagram.clone(), events: Vec::new() });
        }
        let (status, headers, events) = match method {
            "REGISTER" => self.handle_register(now, &request),
            _ => ("404 Not Found", String::new(), Vec::new()),
        };
        let datagram = respond(&request, source, status, &headers);
        self.last = Some((branch.to_owned(), source, datagram.clone()));
        Some(Answer { datagram, events })
    }

    /// The response's status, its headers and what has happened.
    fn handle_register(&mut self, now: Instant, request: &Message) -> (Status, String, Vec<RegistrarEventKind>) {
        let request_uri = request.start_line.split(' ').nth(1).unwrap_or_default();
        let verdict = request
            .header("Authorization")
            .map(|credentials| self.nonce.judge(&self.account, "REGISTER", request_uri, credentials));
        let event = match verdict {
            Some(Verdict::Right) => return self.handle_authorized(now, request),
            Some(Verdict::Wrong) => RegistrarEventKind::Refused { why: "wrong credentials".to_owned() },
            Some(Verdict::Stale) | None => RegistrarEventKind::Challenged,
        };
        self.nonce = Nonce::new();
        let challenge = self.nonce.challenge(verdict == Some(Verdict::Stale));
        ("401 Unauthorized", format!("WWW-Authenticate: {challenge}\r\n"), vec![event])
    }

    fn handle_authorized(&mut self, now: Instant, request: &Message) -> (Status, String, Vec<RegistrarEventKind>) {
        self.bindings.retain(|binding| binding.expires_at > now);
        let events = match self.bind(now, request) {
            Ok(events) => events,
            Err(status) => {
                return (status, String::new(), vec![RegistrarEventKind::Refused { why: status.to_owned() }]);
            }
        };
        let contact = |binding: &Binding| {
            let left_s = binding.expires_at.saturating_duration_since(now).as_secs_f64().ceil();
            format!("Contact: <{}>;expires={left_s}\r\n", binding.contact)
        };
        ("200 OK", self.bindings.iter().map(contact).collect(), events)
    }

    /// Changes the bindings as the Contacts say: all of it or nothing.
    fn bind(&mut self, now: Instant, request: &Message) -> Result<Vec<RegistrarEventKind>, Status> {
        let bad = "400 Bad Request";
        let user = request.header("To").and_then(|to| uri_of(to).split_once(':')?.1.split_once('@'));
        if user.is_none_or(|(user, _)| user != self.account.user) {
            return Err("404 Not Found");
        }
        let (cseq, _) = request.cseq().ok_or(bad)?;
        let call_id = request.header("Call-ID").ok_or(bad)?;
        let contacts: Vec<&str> = request.headers_named("Contact").flat_map(elements).collect();
        let general_s: Option<u32> = request.header("Expires").and_then(|value| value.parse().ok());
        let is_all = contacts.contains(&"*");
        if is_all && (contacts.len() > 1 || general_s != Some(0)) {
            return Err(bad);
        }
        let wanted: Vec<(String, u32)> = if is_all {
            self.bindings.iter().map(|binding| (binding.contact.clone(), 0)).collect()
        } else {
            let expires_s = |contact| parameter(contact, "expires").and_then(|value| value.parse().ok()).or(general_s);
            let granted_s = |contact| expires_s(contact).unwrap_or(LONGEST_EXPIRES_S).min(LONGEST_EXPIRES_S);
            contacts.iter().map(|contact| (uri_of(contact).to_owned(), granted_s(contact))).collect()
        };
        let is_outdated = |binding: &Binding| {
            let is_named = wanted.iter().any(|(contact, _)| *contact == binding.contact);
            is_named && binding.call_id == call_id && binding.cseq >= cseq
        };
        if self.bindings.iter().any(is_outdated) {
            return Err("500 Server Internal Error");
        }
        let mut events = Vec::new();
        for (contact, expires_s) in wanted {
            let known = self.bindings.iter().position(|binding| binding.contact == contact);
            let was_bound = known.map(|index| self.bindings.remove(index)).is_some();
            if expires_s > 0 {
                let expires_at = now + Duration::from_secs(u64::from(expires_s));
                let call_id = call_id.to_owned();
                self.bindings.push(Binding { contact: contact.clone(), expires_at, call_id, cseq });
                events.push(RegistrarEventKind::Registered { contact, expires_s });
            } else if was_bound {
                events.push(RegistrarEventKind::Unregistered { contact });
            }
        }
        Ok(events)
    }
}

/// A response with what it takes over from its request.
fn respond(request: &Message, source: SocketAddr, status: Status, headers: &str) -> Vec<u8> {
    let mut text = format!("SIP/2.0 {status}\r\n");
    let mut is_top = true;
    for (name, value) in &request.headers {
        let is = |known: &str| known.eq_ignore_ascii_case(name);
        if is("Via") {
            let via = if std::mem::take(&mut is_top) { seen(value, source) } else { value.clone() };
            text.push_str(&format!("Via: {via}\r\n"));
        } else if is("To") && parameter(value, "tag").is_none() {
            text.push_str(&format!("To: {value};tag={}\r\n", token()));
        } else if ["From", "To", "Call-ID", "CSeq"].into_iter().any(is) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    text.push_str(headers);
    text.push_str("Content-Length: 0\r\n\r\n");
    text.into_bytes()
}

/// A Via header line whose top element says where its request came from: `received`, and `rport` where asked for.
fn seen(value: &str, source: SocketAddr) -> String {
    let (top, below) = value.split_at(value.find(',').unwrap_or(value.len()));
    let mut via = String::new();
    for part in top.split(';').map(str::trim) {
        let name = part.split('=').next().unwrap_or_default().trim();
        if name.eq_ignore_ascii_case("rport") {
            via.push_str(&format!("rport={};", source.port()));
        } else if !name.eq_ignore_ascii_case("received") {
            via.push_str(&format!("{part};"));
        }
    }
    format!("{via}received={}{below}", source.ip())
}

#[cfg(test)]
mod tests {
    use super::super::digest::tests::answer;
    use super::*;

    const URI: &str = "sip:127.0.0.1:1";

    struct Bench {
        location: Location,
        now: Instant,
        cseq: u32,
        nonce: String,
        count: u32,
    }

    impl Bench {
        fn new() -> Self {
            let registrar = "127.0.0.1:1".parse().unwrap();
            let account = Account { user: "room".into(), password: "p".into(), registrar };
            Self { location: Location::new(account), now: Instant::now(), cseq: 0, nonce: String::new(), count: 0 }
        }

        fn send(&mut self, method: &str, branch: &str, headers: &str) -> Option<(Message, Vec<RegistrarEventKind>)> {
            self.cseq += 1;
            let cseq = self.cseq;
            let text = format!(
                "{method} {URI} SIP/2.0\r\nv: SIP/2.0/UDP 10.0.0.1:5;rport;branch={branch}, SIP/2.0/UDP x\r\n\
                 From: <sip:room@h>;tag=f\r\nTo: <sip:room@h>\r\nCall-ID: i\r\nCSeq: {cseq} {method}\r\n{headers}\r\n"
            );
            let source = "127.0.0.9:99".parse().unwrap();
            let answer = self.location.handle_datagram(self.now, text.as_bytes(), source)?;
            let message = Message::parse(&answer.datagram).unwrap();
            if let Some(challenge) = message.header("WWW-Authenticate") {
                self.nonce = challenge.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
                self.count = 0;
            }
            Some((message, answer.events))
        }

        /// With the right answer to the last challenge.
        fn register(&mut self, headers: &str) -> (Message, Vec<RegistrarEventKind>) {
            self.count += 1;
            let credentials = answer(&self.nonce, self.count, URI, "room", "p");
            let branch = format!("z9hG4bK-{}", self.cseq);
            self.send("REGISTER", &branch, &format!("Authorization: {credentials}\r\n{headers}")).unwrap()
        }

        fn challenged() -> Self {
            let mut bench = Self::new();
            bench.send("REGISTER", "z9hG4bK-first", "").unwrap();
            bench
        }
    }

    fn registered(contact: &str, expires_s: u32) -> RegistrarEventKind {
        RegistrarEventKind::Registered { contact: contact.to_owned(), expires_s }
    }

    fn unregistered(contact: &str) -> RegistrarEventKind {
        RegistrarEventKind::Unregistered { contact: contact.to_owned() }
    }

    #[test]
    fn a_register_is_challenged_and_the_via_says_where_it_came_from() {
        let mut bench = Bench::new();
        let (message, events) = bench.send("REGISTER", "z9hG4bK1", "Contact: <sip:c@h>\r\n").unwrap();
        assert_eq!(message.status(), Some((401, "Unauthorized")));
        assert_eq!(events, [RegistrarEventKind::Challenged]);
        let via = "SIP/2.0/UDP 10.0.0.1:5;rport=99;branch=z9hG4bK1;received=127.0.0.9, SIP/2.0/UDP x";
        assert_eq!(message.header("Via"), Some(via));
        assert!(parameter(message.header("To").unwrap(), "tag").is_some());
        let earlier = bench.nonce.clone();
        bench.send("REGISTER", "z9hG4bK2", "").unwrap();
        assert_ne!(bench.nonce, earlier);
    }

    #[test]
    fn a_binding_is_kept_told_with_its_rest_and_removed() {
        let mut bench = Bench::challenged();
        let (message, events) = bench.register("Contact: <sip:c@h>;expires=60, <sip:d@h>\r\nExpires: 90\r\n");
        assert_eq!(events, [registered("sip:c@h", 60), registered("sip:d@h", 90)]);
        assert_eq!(message.status(), Some((200, "OK")));
        bench.now += Duration::from_secs(59);
        let (message, _) = bench.register("");
        let contacts: Vec<&str> = message.headers_named("Contact").collect();
        assert_eq!(contacts, ["<sip:c@h>;expires=1", "<sip:d@h>;expires=31"]);
        bench.now += Duration::from_secs(1);
        let (message, events) = bench.register("Contact: <sip:d@h>;expires=0\r\n");
        assert_eq!((message.header("Contact"), events), (None, vec![unregistered("sip:d@h")]));
    }

    #[test]
    fn a_star_removes_everything_but_only_with_expires_0() {
        let mut bench = Bench::challenged();
        bench.register("Contact: <sip:c@h>\r\n");
        assert_eq!(bench.register("Contact: *\r\n").0.status().unwrap().0, 400);
        assert_eq!(bench.register("Contact: *\r\nExpires: 0\r\n").1, [unregistered("sip:c@h")]);
    }

    #[test]
    fn a_repetition_gets_the_same_answer_and_is_no_event() {
        let mut bench = Bench::new();
        let (first, _) = bench.send("REGISTER", "z9hG4bK1", "").unwrap();
        assert_eq!(bench.send("REGISTER", "z9hG4bK1", "").unwrap(), (first, Vec::new()));
    }

    #[test]
    fn what_is_overtaken_changes_nothing() {
        let mut bench = Bench::challenged();
        bench.register("Contact: <sip:c@h>\r\n");
        bench.cseq = 0;
        assert_eq!(bench.register("Contact: <sip:c@h>;expires=0\r\n").0.status().unwrap().0, 500);
        assert_eq!(bench.location.bindings.len(), 1);
    }

    #[test]
    fn wrong_credentials_and_other_requests_are_refused() {
        let mut bench = Bench::challenged();
        let wrong = format!("Authorization: {}\r\n", answer(&bench.nonce, 1, URI, "room", "q"));
        let (message, events) = bench.send("REGISTER", "z9hG4bK2", &wrong).unwrap();
        assert_eq!(message.status().unwrap().0, 401);
        assert!(matches!(events[..], [RegistrarEventKind::Refused { .. }]), "{events:?}");
        assert_eq!(bench.send("INVITE", "z9hG4bK3", "").unwrap().0.status().unwrap().0, 404);
        assert!(bench.send("ACK", "z9hG4bK3", "").is_none());
        assert!(bench.location.handle_datagram(bench.now, b"\r\n\r\n", ([127, 0, 0, 1], 1).into()).is_none());
    }
}

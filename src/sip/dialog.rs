//! Dialogs, mostly the answering side (RFC 3261 §12).
//!
//! Owns: identifiers, route set, remote target, both CSeq numbers, and where requests to the peer go.
//! Does not own: the session that lives in the dialog (`call`).

use std::net::{IpAddr, SocketAddr};

use super::event::{Outbox, Path, Route, Target};
use crate::wire::sip::{Contacts, HeaderError, Method, NameAddr, Request, Response, Transport};
use crate::wire::uri::{Host, Uri};

/// The remaining hops of a request that has seen none yet.
pub(crate) const MAX_FORWARDS: u8 = 70;

/// A relation to one peer that an INVITE began.
#[derive(Debug)]
pub(crate) struct Dialog {
    call_id: String,
    local_tag: String,
    /// Empty for a peer from before RFC 3261, which sends none.
    remote_tag: String,
    /// The values of From and To in our requests.
    local: String,
    remote: String,
    remote_target: Uri,
    route_set: Vec<NameAddr>,
    local_cseq: u32,
    remote_cseq: u32,
    /// The way that the latest INVITE came.
    source: Path,
    next_hop: NextHop,
    /// We began it.
    is_caller: bool,
}

/// Where our requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NextHop {
    Known(Transport, SocketAddr),
    /// Being looked up; until then what the INVITE came from serves.
    Unresolved(Target),
}

/// A request that arrives out of order (RFC 3261 §12.2.2).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OutOfOrder;

impl Dialog {
    /// From an INVITE that came along `source` (RFC 3261 §12.1.1). `None` if it has no usable Contact.
    ///
    /// # Errors
    /// A header that cannot be read; a parsed message has none.
    pub(crate) fn from_invite(invite: &Request, local_tag: &str, source: Path) -> Result<Option<Self>, HeaderError> {
        let headers = &invite.headers;
        let (from, to) = (headers.from()?, headers.to()?);
        let contact = match headers.contacts()?.first() {
            Some(contact) => contact.clone(),
            // Before RFC 3261 there were no tags and Contact could be left out: From served.
            None if from.tag().is_none() => from.clone(),
            None => return Ok(None),
        };
        let mut dialog = Self {
            call_id: headers.call_id()?.to_owned(),
            local_tag: local_tag.to_owned(),
            remote_tag: from.tag().unwrap_or_default().into_owned(),
            local: to.with_tag(local_tag).to_string(),
            remote: headers.get("From").unwrap_or_default().to_owned(),
            remote_target: contact.uri,
            route_set: headers.record_routes()?,
            local_cseq: 0,
            remote_cseq: headers.cseq()?.number,
            source,
            next_hop: NextHop::Known(source.transport, source.remote),
            is_caller: false,
        };
        dialog.next_hop = dialog.find_next_hop(Some(invite));
        Ok(Some(dialog))
    }

    /// From the 2xx to an INVITE of ours that went along `path` (RFC 3261 §12.1.2). `None` without a usable Contact.
    pub(crate) fn from_answer(invite: &Request, response: &Response, path: Path) -> Option<Self> {
        let headers = &response.headers;
        let (from, to) = (headers.from().ok()?, headers.to().ok()?);
        let mut route_set = headers.record_routes().ok()?;
        route_set.reverse();
        let mut dialog = Self {
            call_id: headers.call_id().ok()?.to_owned(),
            local_tag: from.tag()?.into_owned(),
            remote_tag: to.tag().unwrap_or_default().into_owned(),
            local: headers.get("From")?.to_owned(),
            remote: headers.get("To")?.to_owned(),
            remote_target: headers.contacts().ok()?.first()?.uri.clone(),
            route_set,
            local_cseq: headers.cseq().ok()?.number,
            remote_cseq: 0,
            source: path,
            next_hop: NextHop::Known(path.transport, path.remote),
            is_caller: true,
        };
        dialog.next_hop = dialog.find_next_hop(None);
        // A name that we have just found an address for needs no second look.
        if invite.uri.host() == dialog.remote_target.host() && dialog.route_set.is_empty() {
            dialog.next_hop = NextHop::Known(path.transport, path.remote);
        }
        Some(dialog)
    }

    /// Whether we began it, so that the Call-ID is ours.
    pub(crate) const fn is_caller(&self) -> bool {
        self.is_caller
    }

    /// Whether a request with these identifiers belongs here.
    pub(crate) fn matches(&self, call_id: &str, local_tag: &str, remote_tag: &str) -> bool {
        self.call_id == call_id && self.local_tag == local_tag && self.remote_tag == remote_tag
    }

    /// Our tag.
    pub(crate) fn local_tag(&self) -> &str {
        &self.local_tag
    }

    /// Notes the place of a new request of the peer.
    ///
    /// # Errors
    /// It is older than one that we have seen.
    pub(crate) fn accept_cseq(&mut self, number: u32) -> Result<(), OutOfOrder> {
        if number < self.remote_cseq {
            return Err(OutOfOrder);
        }
        self.remote_cseq = number;
        Ok(())
    }

    /// A re-INVITE or UPDATE that came along `source` was accepted: its Contact is the remote target from now on (RFC 3261
    /// §12.2.2).
    pub(crate) fn refresh_target(&mut self, reinvite: &Request, source: Path, out: &mut Outbox) {
        let contacts = reinvite.headers.contacts();
        let Some(contact) = contacts.as_ref().ok().and_then(Contacts::first) else { return };
        if contact.uri != self.remote_target || source != self.source {
            self.source = source;
            self.remote_target = contact.uri.clone();
            self.next_hop = self.find_next_hop(Some(reinvite));
            self.look_up(out);
        }
    }

    /// A request of ours without Via (RFC 3261 §12.2.1.1).
    pub(crate) fn request(&mut self, method: Method) -> Request {
        self.local_cseq += 1;
        let (uri, routes) = self.route();
        let mut request = Request::new(method, uri)
            .with("Max-Forwards", MAX_FORWARDS)
            .with("From", &self.local)
            .with("To", &self.remote)
            .with("Call-ID", &self.call_id);
        let cseq = format!("{} {}", self.local_cseq, request.method);
        request.headers.push("CSeq", cseq);
        for route in routes {
            request.headers.push("Route", route);
        }
        request
    }

    /// The ACK for the 2xx to our INVITE of `cseq` without Via (RFC 3261 §13.2.2.4).
    pub(crate) fn ack(&mut self, cseq: u32) -> Request {
        let latest = std::mem::replace(&mut self.local_cseq, cseq.wrapping_sub(1));
        let ack = self.request(Method::Ack);
        self.local_cseq = latest;
        ack
    }

    /// The Request-URI and the Route values, for loose and strict routers.
    fn route(&self) -> (Uri, Vec<String>) {
        match self.route_set.first() {
            None => (self.remote_target.clone(), Vec::new()),
            Some(first) if first.uri.as_sip().is_none_or(|uri| uri.is_loose_router()) => {
                (self.remote_target.clone(), self.route_set.iter().map(route_value).collect())
            }
            Some(strict) => {
                let rest = self.route_set.iter().skip(1).map(route_value);
                let target = format!("<{}>", self.remote_target);
                (strict.uri.clone(), rest.chain([target]).collect())
            }
        }
    }

    /// The way of our next request: the connection that the INVITE came by, if it leads to the right host.
    pub(crate) fn path(&self) -> Path {
        let (transport, remote) = match &self.next_hop {
            NextHop::Known(transport, address) => (*transport, *address),
            NextHop::Unresolved(_) => (self.source.transport, self.source.remote),
        };
        let is_same_family = |local: &SocketAddr| local.is_ipv4() == remote.is_ipv4();
        let leads_there = remote.ip().to_canonical() == self.source.remote.ip().to_canonical();
        let connection = self.source.connection.filter(|_| leads_there);
        Path { transport, local: self.source.local.filter(is_same_family), remote, connection }
    }

    /// From now on our messages go from another address of ours, from which no connection leads there.
    pub(crate) fn move_to(&mut self, local: IpAddr) {
        self.source.local = self.source.local.map(|former| SocketAddr::new(local, former.port()));
        self.source.connection = None;
    }

    /// Asks for the next hop's address if it is a name.
    pub(crate) fn look_up(&self, out: &mut Outbox) {
        if let NextHop::Unresolved(target) = &self.next_hop {
            out.resolve(target.clone());
        }
    }

    /// The answer to [`Self::look_up`].
    pub(crate) fn handle_resolved(&mut self, target: &Target, route: Route) {
        if matches!(&self.next_hop, NextHop::Unresolved(asked) if asked == target) {
            self.next_hop = NextHop::Known(route.transport, route.remote);
        }
    }

    /// `request` is the peer's, whose Via shows a NAT.
    fn find_next_hop(&self, request: Option<&Request>) -> NextHop {
        let first = self.route_set.first().map_or(&self.remote_target, |route| &route.uri);
        let source = NextHop::Known(self.source.transport, self.source.remote);
        // Other schemes and transports are out of our reach; what sent us the INVITE knows better.
        let Some((uri, target)) = first.as_sip().and_then(|uri| Some((uri, Target::of(uri)?))) else { return source };
        let is_behind_nat = |request| is_behind_nat(request, &uri.host, self.source.remote);
        if self.route_set.is_empty() && request.is_some_and(is_behind_nat) {
            return source;
        }
        match target.literal() {
            Some((transport, address)) => NextHop::Known(transport, address),
            None => NextHop::Unresolved(target),
        }
    }
}

/// Whether the peer itself sent the INVITE and does not know the address that it is seen at: its Contact names the
/// same host as its Via, and the packet came from another. Then only the source address leads back to it.
fn is_behind_nat(invite: &Request, contact: &Host, source: SocketAddr) -> bool {
    invite.headers.via().is_ok_and(|via| via.host == *contact && via.host.address() != Some(source.ip().to_canonical()))
}

fn route_value(route: &NameAddr) -> String {
    route.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::event::{ConnectionKey, Output};
    use crate::wire::sip::Message;

    fn invite(via: &str, contact: &str, record_route: &str) -> Request {
        let text = format!(
            "INVITE sip:6002@10.0.0.2 SIP/2.0\r\nVia: SIP/2.0/UDP {via};branch=z9hG4bK1\r\n{record_route}\
             From: \"Bob\" <sip:bob@h>;tag=f\r\nTo: <sip:6002@h>\r\nCall-ID: c\r\nCSeq: 7 INVITE\r\n\
             Contact: {contact}\r\nContent-Length: 0\r\n\r\n"
        );
        match Message::parse(text.as_bytes()).unwrap() {
            Message::Request(request) => request,
            Message::Response(_) => panic!("a request"),
        }
    }

    fn dialog(invite: &Request) -> Dialog {
        let source = Path::udp(Some("10.0.0.2:5060".parse().unwrap()), "192.0.2.9:4000".parse().unwrap());
        Dialog::from_invite(invite, "t", source).unwrap().unwrap()
    }

    fn remote(dialog: &Dialog) -> String {
        dialog.path().remote.to_string()
    }

    #[test]
    fn requests_go_to_the_contact_with_our_own_cseq() {
        let mut dialog = dialog(&invite("192.0.2.8", "<sip:bob@192.0.2.8:5070>", ""));
        let bye = dialog.request(Method::Bye);
        assert_eq!(bye.uri.to_string(), "sip:bob@192.0.2.8:5070");
        assert_eq!(bye.headers.get("From"), Some("<sip:6002@h>;tag=t"));
        assert_eq!(bye.headers.get("To"), Some("\"Bob\" <sip:bob@h>;tag=f"));
        assert_eq!(bye.headers.get("CSeq"), Some("1 BYE"));
        assert_eq!(dialog.request(Method::Bye).headers.get("CSeq"), Some("2 BYE"));
    }

    #[test]
    fn a_peer_that_knows_its_address_is_reached_at_its_contact() {
        assert_eq!(remote(&dialog(&invite("192.0.2.9:4000", "<sip:bob@192.0.2.8>", ""))), "192.0.2.8:5060");
    }

    #[test]
    fn a_peer_behind_a_nat_is_reached_where_its_packets_come_from() {
        assert_eq!(remote(&dialog(&invite("10.1.1.1:5060", "<sip:bob@10.1.1.1:5060>", ""))), "192.0.2.9:4000");
    }

    #[test]
    fn the_route_set_keeps_the_order_of_record_route() {
        let routes = "Record-Route: <sip:192.0.2.1;lr>, <sip:p2.example.com;lr>\r\n";
        let mut dialog = dialog(&invite("192.0.2.1", "<sip:bob@10.1.1.1>", routes));
        let bye = dialog.request(Method::Bye);
        let values: Vec<_> = bye.headers.values("Route").collect();
        assert_eq!(values, ["<sip:192.0.2.1;lr>", "<sip:p2.example.com;lr>"]);
        assert_eq!(bye.uri.to_string(), "sip:bob@10.1.1.1");
        assert_eq!(remote(&dialog), "192.0.2.1:5060");
    }

    #[test]
    fn a_strict_router_takes_the_request_uri() {
        let routes = "Record-Route: <sip:192.0.2.1>, <sip:192.0.2.2;lr>\r\n";
        let bye = dialog(&invite("192.0.2.1", "<sip:bob@10.1.1.1>", routes)).request(Method::Bye);
        assert_eq!(bye.uri.to_string(), "sip:192.0.2.1");
        let values: Vec<_> = bye.headers.values("Route").collect();
        assert_eq!(values, ["<sip:192.0.2.2;lr>", "<sip:bob@10.1.1.1>"]);
    }

    #[test]
    fn a_name_is_looked_up_and_the_source_serves_meanwhile() {
        let mut dialog = dialog(&invite("192.0.2.9", "<sip:bob@pc33.example.com>", ""));
        let mut out = Outbox::default();
        dialog.look_up(&mut out);
        let target = Target { host: "pc33.example.com".into(), port: None, transport: None, is_secure: false };
        assert_eq!(out.pop(), Some(Output::Resolve(target.clone())));
        assert_eq!(remote(&dialog), "192.0.2.9:4000");
        let (remote_address, local) = ("192.0.2.7:5060".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let found = Route { transport: Transport::Udp, remote: remote_address, local };
        dialog.handle_resolved(&Target { port: Some(5070), ..target.clone() }, found);
        assert_eq!(remote(&dialog), "192.0.2.9:4000");
        dialog.handle_resolved(&target, found);
        assert_eq!(remote(&dialog), "192.0.2.7:5060");
    }

    #[test]
    fn older_requests_are_out_of_order_and_a_contact_is_needed() {
        let mut dialog = dialog(&invite("h", "<sip:bob@192.0.2.8>", ""));
        assert_eq!(dialog.accept_cseq(6), Err(OutOfOrder));
        assert_eq!((dialog.accept_cseq(9), dialog.accept_cseq(8)), (Ok(()), Err(OutOfOrder)));
        let mut bare = invite("h", "<sip:b@h>", "");
        bare.headers.remove("Contact");
        let source = Path::udp(None, "192.0.2.9:1".parse().unwrap());
        assert!(Dialog::from_invite(&bare, "t", source).unwrap().is_none());
    }

    #[test]
    fn a_new_contact_becomes_the_target() {
        let mut dialog = dialog(&invite("192.0.2.9", "<sip:bob@192.0.2.8>", ""));
        let source = dialog.source;
        dialog.refresh_target(&invite("192.0.2.9", "<sip:bob@192.0.2.3>", ""), source, &mut Outbox::default());
        assert_eq!(remote(&dialog), "192.0.2.3:5060");
        assert_eq!(dialog.request(Method::Bye).uri.to_string(), "sip:bob@192.0.2.3");
    }

    #[test]
    fn a_request_takes_the_connection_of_the_invite_where_that_leads_to_the_target() {
        let connection = Some(ConnectionKey::Theirs(3));
        let source =
            Path { transport: Transport::Tcp, local: None, remote: "192.0.2.9:5060".parse().unwrap(), connection };
        let path = |contact: &str, record_route: &str| {
            let invite = invite("192.0.2.9", contact, record_route);
            let path = Dialog::from_invite(&invite, "t", source).unwrap().unwrap().path();
            (path.transport, path.remote.to_string(), path.connection)
        };
        let contact = "<sip:bob@192.0.2.9:5070;transport=tcp>";
        assert_eq!(path(contact, ""), (Transport::Tcp, "192.0.2.9:5070".into(), connection));
        assert_eq!(path("<sips:bob@192.0.2.8>", ""), (Transport::Tls, "192.0.2.8:5061".into(), None));
        let route = "Record-Route: <sip:192.0.2.1;lr;transport=tcp>\r\n";
        assert_eq!(path(contact, route), (Transport::Tcp, "192.0.2.1:5060".into(), None));
        let unknown = "<sip:bob@192.0.2.8;transport=sctp>";
        assert_eq!(path(unknown, ""), (Transport::Tcp, "192.0.2.9:5060".into(), connection));
    }
}

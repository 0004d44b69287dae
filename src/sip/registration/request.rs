//! The REGISTER itself (RFC 3261 §10.2), and the address of ours that it names.

use std::net::SocketAddr;

use super::Registration;
use crate::sip::dialog::MAX_FORWARDS;
use crate::sip::event::{ConnectionKey, Path, Route, Target};
use crate::sip::layer::{Owner, TransactionLayer};
use crate::sip::reply::{ALLOW, SUPPORTED};
use crate::time::Instant;
use crate::wire::sip::{Method, NameAddr, Request, Response, Rport};
use crate::wire::uri::{Host, SipUri};

impl Registration {
    /// Sends a REGISTER for `contact`; a binding of another address is removed by it.
    pub(super) fn send(&mut self, now: Instant, contact: &SipUri, expires_s: u32, layer: &mut TransactionLayer) {
        let mut ours = format!("<{contact}>;expires={expires_s}");
        if let Some(instance) = &self.instance {
            ours += &format!(";+sip.instance=\"<{instance}>\"");
        }
        if self.sends_flow() {
            ours += ";reg-id=1";
        }
        let old = self.binding.as_ref().filter(|old| *old != contact).map(|old| format!("<{old}>;expires=0"));
        self.send_contacts(now, [ours].into_iter().chain(old), expires_s, layer);
    }

    /// Whether the registrar is asked to keep the flow itself (RFC 5626 §4.2).
    pub(super) fn sends_flow(&self) -> bool {
        self.instance.is_some() && !self.is_outbound_refused
    }

    /// Sends a REGISTER with these Contact values.
    pub(super) fn send_contacts(
        &mut self,
        now: Instant,
        contacts: impl IntoIterator<Item = String>,
        expires_s: u32,
        layer: &mut TransactionLayer,
    ) {
        let Some((path, own)) = self.servers.current().and_then(|route| self.way(route)) else { return };
        self.cseq += 1;
        let uri = self.domain();
        let address = NameAddr::new(self.account.uri.clone());
        let mut request = Request::new(Method::Register, uri.clone())
            .with("Max-Forwards", MAX_FORWARDS)
            .with("From", address.clone().with_tag(&self.from_tag))
            .with("To", address)
            .with("Call-ID", &self.call_id)
            .with("CSeq", format!("{} REGISTER", self.cseq));
        if let Some(proxy) = &self.registrar.proxy {
            request.headers.push("Route", format!("<{proxy}>"));
        }
        contacts.into_iter().for_each(|contact| request.headers.push("Contact", contact));
        request.headers.push("Expires", expires_s.to_string());
        request.headers.push("Allow", ALLOW);
        let outbound = if self.sends_flow() { ", outbound" } else { "" };
        let gruu = if self.wants_gruu { ", gruu" } else { "" };
        request.headers.push("Supported", format!("{SUPPORTED}{outbound}{gruu}"));
        if let Some(credentials) = &self.account.credentials {
            self.authorizers.iter_mut().flatten().for_each(|authorizer| {
                let value = authorizer.authorize(credentials, "REGISTER", &uri.to_string(), &[]);
                request.headers.push(authorizer.header_name(), value);
            });
        }
        layer.request(now, Owner::Registration, path, (own.ip().into(), own.port()), request);
    }

    /// The Request-URI: the domain of the account (RFC 3261 §10.2), or where we were sent instead.
    pub(super) fn domain(&self) -> SipUri {
        if let Some(uri) = self.redirect.uri() {
            return uri.clone();
        }
        match self.account.uri.as_sip() {
            Some(uri) => SipUri { is_secure: uri.is_secure, ..SipUri::new(None, uri.host.clone(), uri.port) },
            None => {
                let Target { host, port, .. } = &self.registrar.target;
                SipUri::new(None, Host::parse(host).unwrap_or_else(|_| Host::Name(String::new())), *port)
            }
        }
    }

    /// Our Contact as it should be.
    pub(super) fn contact(&self) -> SipUri {
        let way = self.servers.current().and_then(|route| self.way(route));
        let own = self.public.or_else(|| way.map(|(_, own)| own));
        let host = own.map_or_else(|| Host::Name("invalid".to_owned()), |own| own.ip().into());
        let mut contact = SipUri::new(Some(&self.token), host, own.map(|own| own.port()));
        contact.is_secure = self.account.uri.as_sip().is_some_and(|uri| uri.is_secure);
        if let Some((path, _)) = way.filter(|(path, _)| path.transport.is_reliable()) {
            contact.parameters.push("transport", Some(path.transport.parameter().to_owned()));
        }
        contact
    }

    /// The way to `route` and our own address on it; `None` if its connection is not open.
    pub(super) fn way(&self, route: Route) -> Option<(Path, SocketAddr)> {
        if !route.transport.is_reliable() {
            let path = self.datagram_path(route);
            return path.local.map(|own| (path, own));
        }
        let flow = self.flow.as_ref().filter(|flow| flow.route == route)?;
        Some((flow.path(), flow.local))
    }

    /// Whether this is its name.
    pub(crate) fn is_called(&self, host: &str) -> bool {
        self.registrar.target.host.eq_ignore_ascii_case(host)
    }

    /// The way to it.
    pub(crate) fn route(&self) -> Option<Route> {
        self.servers.current()
    }

    /// Our connection there, if that is the way.
    pub(crate) fn connection_to(&self, route: Route) -> Option<ConnectionKey> {
        self.flow.as_ref().filter(|flow| flow.route == route).map(|flow| flow.connection)
    }

    /// From the socket that datagrams to the registrar leave by.
    pub(super) fn datagram_path(&self, route: Route) -> Path {
        let is_same_family = |socket: &&SocketAddr| socket.is_ipv4() == route.local.is_ipv4();
        let socket = self.sockets.iter().find(is_same_family).or_else(|| self.sockets.first());
        let own = SocketAddr::new(route.local, socket.map_or(5060, SocketAddr::port));
        Path::udp(Some(own), route.remote)
    }

    pub(super) fn learn_public(&mut self, response: &Response) {
        let way = self.servers.current().and_then(|route| self.way(route));
        let (Some((path, own)), Ok(via)) = (way, response.headers.via()) else { return };
        // A long request may have gone by TCP, where we are seen at another port.
        if via.transport != path.transport.via() {
            return;
        }
        let port = match via.rport() {
            Rport::Port(port) => port,
            Rport::Asked | Rport::Absent => own.port(),
        };
        let seen = SocketAddr::new(via.received().unwrap_or_else(|| own.ip()), port);
        self.public = (seen != own).then_some(seen);
    }
}

//! What calls ask of the registration: who belongs to the registrar, which way leads there, and for whom it is.

use std::net::IpAddr;

use super::Registration;
use crate::sip::auth::Credentials;
use crate::sip::event::{ConnectionKey, Route};

impl Registration {
    /// Whether `address` is one of the registrar's.
    pub(crate) fn is_registrar(&self, address: IpAddr) -> bool {
        self.servers.has(address)
    }

    /// Whether it is our own connection to the registrar that something came by.
    pub(crate) fn is_flow(&self, connection: Option<ConnectionKey>) -> bool {
        connection.is_some() && self.flow.as_ref().map(|flow| flow.connection) == connection
    }

    /// Whether this is its name.
    pub(crate) fn is_called(&self, host: &str) -> bool {
        self.registrar.target.host.eq_ignore_ascii_case(host)
    }

    /// The way to it.
    pub(crate) fn route(&self) -> Option<Route> {
        self.servers.current()
    }

    /// What calls of ours by that way name as their route (RFC 3608 §6.1).
    pub(crate) fn service_route(&self) -> &[String] {
        &self.service_route
    }

    /// Our connection there, if that is the way.
    pub(crate) fn connection_to(&self, route: Route) -> Option<ConnectionKey> {
        self.flow.as_ref().filter(|flow| flow.route == route).map(|flow| flow.connection)
    }

    /// The credentials for a challenge to a call that we place: only for the realm in which the registrar asked us itself, and
    /// only along its own address.
    pub(crate) fn credentials_for(&self, realm: &str, next_hop: IpAddr) -> Option<&Credentials> {
        let is_known = self.authorizers.iter().flatten().any(|authorizer| authorizer.challenge().realm == realm);
        self.account.credentials.as_ref().filter(|_| is_known && self.is_registrar(next_hop))
    }
}

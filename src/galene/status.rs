//! A group's status: what `GET <group>/.status` answers (`galene-protocol.md`, "Before connecting").

use url::Url;

/// A group as its server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group's name, which `join` carries.
    pub name: String,
    /// A longer name for people.
    pub display_name: Option<String>,
    /// The group's own URL, as authorisation servers know it.
    pub location: Url,
    /// The WebSocket.
    pub endpoint: Url,
    /// Where a token is fetched with name and password.
    pub auth_server: Option<Url>,
    /// Where a person would be sent to log in.
    pub auth_portal: Option<Url>,
    /// Whether only operators are let in; groups that are not public do not tell.
    pub locked: bool,
    /// How many members there are; groups that are not public do not tell.
    pub client_count: Option<u32>,
}

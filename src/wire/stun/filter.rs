//! What the net thread lets through to signalling: checks for our ufrag that are signed with our password, and
//! responses to transactions of ours. Everything else on the socket costs one look and is dropped there.

use super::{Class, Message};

/// The test of one peer connection, for the thread that owns its socket. It changes with every ICE restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Our ICE user name fragment.
    pub ufrag: String,
    /// Our ICE password.
    pub password: String,
    /// The first bytes of all our transaction ids, to the peer and to servers: unguessable to those who do not see them.
    pub transaction_tags: [[u8; 4]; 2],
}

impl Filter {
    /// Whether signalling should see this datagram.
    pub fn accepts(&self, bytes: &[u8]) -> bool {
        let Ok(message) = Message::parse(bytes) else { return false };
        match message.class {
            Class::Request | Class::Indication => {
                addressed_to(&message, &self.ufrag) && message.verify(self.password.as_bytes())
            }
            // A response is signed with the peer's password, which only the agent holds: it looks again.
            Class::Success | Class::Error => {
                self.transaction_tags.iter().any(|tag| message.transaction_id.0.starts_with(tag))
            }
        }
    }
}

fn addressed_to(message: &Message<'_>, local_ufrag: &str) -> bool {
    let Some((ufrag, _)) = message.username.and_then(|name| name.split_once(':')) else { return false };
    ufrag == local_ufrag
}

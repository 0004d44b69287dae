//! A STUN and TURN server (RFC 8489, RFC 8656) that is strict: long-term credentials, one allocation a client, nothing to or
//! from a peer without permission, channels that stay with their peers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use galene_sip::rtc::turn::Credentials;
use galene_sip::time::Instant;
use galene_sip::wire::stun::{
    ALLOCATE, BINDING, Builder, CHANNEL_BIND, CHANNELS, CREATE_PERMISSION, ChannelData, Class, DATA, Message, REFRESH,
    SEND, TransactionId, long_term_key,
};

const USER: &str = "galene";
const PASSWORD: &str = "secret";
const REALM: &str = "networks.test";
/// UDP's number in IP.
const UDP: u8 = 17;
/// RFC 8656 §3.2, §9, §12.
const MAX_LIFETIME_S: u32 = 600;
const PERMISSION: Duration = Duration::from_secs(300);
const CHANNEL: Duration = Duration::from_secs(600);
/// RFC 8489 §9.2 has nonces expire, and clients take the next one.
const NONCE: Duration = Duration::from_secs(100);
const FIRST_RELAY_PORT: u16 = 49_152;

#[derive(Debug)]
struct Allocation {
    client: SocketAddr,
    /// How the client reaches us.
    server: SocketAddr,
    relayed: SocketAddr,
    /// The request that made it.
    asked_by: TransactionId,
    expires_at: Instant,
    permissions: BTreeMap<IpAddr, Instant>,
    channels: BTreeMap<u16, (SocketAddr, Instant)>,
}

impl Allocation {
    fn permits(&self, now: Instant, peer: SocketAddr) -> bool {
        self.permissions.get(&peer.ip()).is_some_and(|ends_at| now < *ends_at)
    }
}

/// From, to, and what.
type Sent = (SocketAddr, SocketAddr, Vec<u8>);

#[derive(Debug)]
pub(crate) struct TurnServer {
    address: SocketAddr,
    allocations: Vec<Allocation>,
    relays: u16,
}

impl TurnServer {
    pub(crate) const fn new(address: SocketAddr) -> Self {
        Self { address, allocations: Vec::new(), relays: 0 }
    }

    pub(crate) fn credentials() -> Credentials {
        Credentials { username: USER.into(), password: PASSWORD.into() }
    }

    pub(crate) fn is_at(&self, ip: IpAddr) -> bool {
        self.address.ip() == ip
    }

    /// A datagram that came to `to`, one of its addresses; what it sends upon it.
    pub(crate) fn handle_input(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Option<Sent> {
        self.allocations.retain(|allocation| now < allocation.expires_at);
        if to != self.address {
            return self.pass_to_client(now, from, to, bytes);
        }
        if let Some(ChannelData { channel, payload }) = ChannelData::parse(bytes) {
            let allocation = self.allocation_of(from)?;
            let (peer, _) = allocation.channels.get(&channel).filter(|(_, ends_at)| now < *ends_at)?;
            return allocation.permits(now, *peer).then(|| (allocation.relayed, *peer, payload.to_vec()));
        }
        let message = Message::parse(bytes).ok()?;
        match (message.class, message.method) {
            (Class::Request, BINDING) => {
                let answer = Builder::new(Class::Success, message.transaction_id).xor_mapped_address(from);
                Some((to, from, answer.finish_plain()))
            }
            (Class::Request, _) => Some((to, from, self.answer(now, from, to, &message))),
            (Class::Indication, SEND) => {
                let (peer, data) = (message.peer_address?, message.data?);
                let allocation = self.allocation_of(from)?;
                allocation.permits(now, peer).then(|| (allocation.relayed, peer, data.to_vec()))
            }
            (Class::Indication | Class::Success | Class::Error, _) => None,
        }
    }

    fn pass_to_client(&self, now: Instant, peer: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Option<Sent> {
        let allocation = self.allocations.iter().find(|allocation| allocation.relayed == to)?;
        if !allocation.permits(now, peer) {
            return None;
        }
        let bound = allocation.channels.iter().find(|(_, (bound, ends_at))| *bound == peer && now < *ends_at);
        let bytes = match bound {
            Some((channel, _)) => [&ChannelData::header(*channel, bytes.len() as u16)[..], bytes].concat(),
            None => {
                let id = TransactionId([7; 12]);
                Builder::of(DATA, Class::Indication, id).xor_peer_address(peer).data(bytes).finish_plain()
            }
        };
        Some((allocation.server, allocation.client, bytes))
    }

    fn allocation_of(&self, client: SocketAddr) -> Option<&Allocation> {
        self.allocations.iter().find(|allocation| allocation.client == client)
    }

    fn answer(&mut self, now: Instant, client: SocketAddr, server: SocketAddr, message: &Message<'_>) -> Vec<u8> {
        let key = long_term_key(USER, REALM, PASSWORD);
        let nonce = (now.as_us() / NONCE.as_micros() as u64).to_be_bytes();
        let (id, method) = (message.transaction_id, message.method);
        let error = |code| Builder::of(method, Class::Error, id).error_code(code, "no");
        if !message.verify(&key) {
            return error(401).realm(REALM).nonce(&nonce).finish_plain();
        }
        if message.nonce != Some(&nonce) {
            return error(438).realm(REALM).nonce(&nonce).finish_plain();
        }
        if !message.unknown_attributes().is_empty() {
            return error(420).unknown_attributes(message.unknown_attributes()).finish(&key);
        }
        let done = match method {
            ALLOCATE => self.allocate(now, client, server, message),
            REFRESH => self.refresh(now, client, message),
            CREATE_PERMISSION => self.permit(now, client, message).map(|()| Builder::of(method, Class::Success, id)),
            CHANNEL_BIND => self.bind(now, client, message).map(|()| Builder::of(method, Class::Success, id)),
            _ => Err(400),
        };
        done.unwrap_or_else(error).finish(&key)
    }

    fn allocate(
        &mut self,
        now: Instant,
        client: SocketAddr,
        server: SocketAddr,
        message: &Message<'_>,
    ) -> Result<Builder, u16> {
        if message.requested_transport != Some(UDP) {
            return Err(442);
        }
        let lifetime_s = message.lifetime_s.unwrap_or(MAX_LIFETIME_S).min(MAX_LIFETIME_S);
        let success = Builder::of(ALLOCATE, Class::Success, message.transaction_id);
        match self.allocation_of(client) {
            // Our answer was lost (RFC 8656 §7.2).
            Some(known) if known.asked_by == message.transaction_id => {
                return Ok(success
                    .xor_relayed_address(known.relayed)
                    .xor_mapped_address(client)
                    .lifetime_s(lifetime_s));
            }
            Some(_) => return Err(437),
            None => {}
        }
        let relayed = SocketAddr::new(self.address.ip(), FIRST_RELAY_PORT + self.relays);
        self.relays += 1;
        self.allocations.push(Allocation {
            client,
            server,
            relayed,
            asked_by: message.transaction_id,
            expires_at: now + Duration::from_secs(lifetime_s.into()),
            permissions: BTreeMap::new(),
            channels: BTreeMap::new(),
        });
        Ok(success.xor_relayed_address(relayed).xor_mapped_address(client).lifetime_s(lifetime_s))
    }

    fn refresh(&mut self, now: Instant, client: SocketAddr, message: &Message<'_>) -> Result<Builder, u16> {
        let lifetime_s = message.lifetime_s.unwrap_or(MAX_LIFETIME_S).min(MAX_LIFETIME_S);
        let allocation = self.of(client)?;
        allocation.expires_at = now + Duration::from_secs(lifetime_s.into());
        Ok(Builder::of(REFRESH, Class::Success, message.transaction_id).lifetime_s(lifetime_s))
    }

    fn permit(&mut self, now: Instant, client: SocketAddr, message: &Message<'_>) -> Result<(), u16> {
        let peer = message.peer_address.ok_or(400_u16)?;
        self.of(client)?.permissions.insert(peer.ip(), now + PERMISSION);
        Ok(())
    }

    /// RFC 8656 §12.2: a channel and a peer stay together, and binding permits.
    fn bind(&mut self, now: Instant, client: SocketAddr, message: &Message<'_>) -> Result<(), u16> {
        let (channel, peer) = message.channel.zip(message.peer_address).ok_or(400_u16)?;
        let allocation = self.of(client)?;
        let is_other = |(number, (bound, ends_at)): (&u16, &(SocketAddr, Instant))| {
            now < *ends_at && (*number == channel) != (*bound == peer)
        };
        if !CHANNELS.contains(&channel) || allocation.channels.iter().any(is_other) {
            return Err(400);
        }
        allocation.channels.insert(channel, (peer, now + CHANNEL));
        allocation.permissions.insert(peer.ip(), now + PERMISSION);
        Ok(())
    }

    fn of(&mut self, client: SocketAddr) -> Result<&mut Allocation, u16> {
        self.allocations.iter_mut().find(|allocation| allocation.client == client).ok_or(437)
    }
}

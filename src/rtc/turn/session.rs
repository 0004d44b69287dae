//! Requests under long-term credentials (RFC 8489 §9.2): signed once the server has told realm and nonce, signed anew when
//! the nonce is stale, sent again when lost.

use std::net::SocketAddr;

use crate::random::Random;
use crate::rtc::retransmission::Retransmission;
use crate::time::{Deadline, Instant};
use crate::wire::stun::{
    ALLOCATE, AddressFamily, Builder, CHANNEL_BIND, Class, Message, REFRESH, TransactionId, long_term_key,
};

use super::{Credentials, Drops, Families};

/// The longest realm or nonce (RFC 8489 §14.9, §14.10).
const MAX_QUOTED_BYTES: usize = 763;
/// The lifetime that is asked for, and that of a server that does not say: the default of RFC 8656 §3.2. It is named
/// because coturn 4.6 keeps its own limit only for those who do.
pub(super) const LIFETIME_S: u32 = 600;
/// How many nonces in a row may be stale at once; a server with more of them has none that does.
const MAX_STALE: u8 = 3;

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Allocate { families: Families },
    Refresh { lifetime_s: u32 },
    ChannelBind { channel: u16, peer: SocketAddr },
}

impl Request {
    const fn method(self) -> u16 {
        match self {
            Self::Allocate { .. } => ALLOCATE,
            Self::Refresh { .. } => REFRESH,
            Self::ChannelBind { .. } => CHANNEL_BIND,
        }
    }

    fn build(self, id: TransactionId) -> Builder {
        let builder = Builder::of(self.method(), Class::Request, id);
        match self {
            Self::Allocate { families } => {
                let builder = builder.requested_transport_udp().lifetime_s(LIFETIME_S);
                match families {
                    // Servers of RFC 5766 do not know the attribute, and IPv4 is the default.
                    Families::V4 => builder,
                    Families::V6 => builder.requested_family(AddressFamily::V6),
                    // Who does not know it may step over it, and relays IPv4 alone.
                    Families::Both => builder.additional_family_v6(),
                }
            }
            Self::Refresh { lifetime_s } => builder.lifetime_s(lifetime_s),
            Self::ChannelBind { channel, peer } => builder.channel(channel).xor_peer_address(peer),
        }
    }
}

/// A request that has been sent and not been answered.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) id: TransactionId,
    pub(super) bytes: Vec<u8>,
    request: Request,
    is_signed: bool,
    /// How many nonces were stale.
    stale: u8,
    schedule: Retransmission,
}

/// What a passed deadline wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// It has not passed.
    No,
    /// Send it once more.
    Retransmit,
    /// There will be no answer.
    GiveUp,
}

impl Exchange {
    pub(super) fn deadline(&self) -> Deadline {
        Deadline::new(self.schedule.next_at(), "TURN request again")
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Overdue {
        if now < self.schedule.next_at() {
            Overdue::No
        } else if self.schedule.retransmit(now) {
            Overdue::Retransmit
        } else {
            Overdue::GiveUp
        }
    }
}

/// What a response to an exchange means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was done.
    Done,
    /// It was asked anew, in the same place: send it.
    Again,
    /// It was refused with this code.
    Refused(u16),
    /// The response does not count; the right one may still come.
    Dropped,
}

/// Who we are to the server.
#[derive(Debug)]
pub(super) struct Session {
    credentials: Credentials,
    realm: String,
    nonce: Vec<u8>,
    /// None until the server has told its realm.
    key: Option<[u8; 16]>,
    transaction_tag: [u8; 4],
    is_reliable: bool,
    random: Random,
    pub(super) drops: Drops,
}

impl Session {
    pub(super) fn new(credentials: Credentials, transaction_tag: [u8; 4], is_reliable: bool, random: Random) -> Self {
        Self {
            credentials,
            realm: String::new(),
            nonce: Vec::new(),
            key: None,
            transaction_tag,
            is_reliable,
            random,
            drops: Drops::default(),
        }
    }

    /// The server has asked who we are.
    pub(super) const fn was_challenged(&self) -> bool {
        self.key.is_some()
    }

    /// Asks; the bytes in the result are to be sent.
    pub(super) fn ask(&mut self, now: Instant, request: Request) -> Exchange {
        let mut id = [0; 12];
        self.random.fill(&mut id[4..]);
        id[..4].copy_from_slice(&self.transaction_tag);
        let id = TransactionId(id);
        let builder = request.build(id);
        let bytes = match &self.key {
            None => builder.finish_plain(),
            Some(key) => builder.username(&self.credentials.username).realm(&self.realm).nonce(&self.nonce).finish(key),
        };
        let schedule = Retransmission::new(now, self.is_reliable);
        Exchange { id, bytes, request, is_signed: self.key.is_some(), stale: 0, schedule }
    }

    /// What a response to this exchange means. An error is taken unsigned, as a server must give it before it knows us:
    /// who could forge it has seen our request, and could as well have kept it from the server.
    pub(super) fn judge(&mut self, now: Instant, exchange: &mut Exchange, message: &Message<'_>) -> Verdict {
        if message.method != exchange.request.method() {
            self.drops.unexpected += 1;
            return Verdict::Dropped;
        }
        if message.class == Class::Success {
            // One that asks nobody who he is cannot sign either.
            if self.key.is_none_or(|key| message.verify(&key)) {
                return Verdict::Done;
            }
            self.drops.unauthentic += 1;
            return Verdict::Dropped;
        }
        match message.error_code {
            None => {
                self.drops.malformed += 1;
                Verdict::Dropped
            }
            Some(401) if !exchange.is_signed => match self.take_challenge(message) {
                true => self.ask_anew(now, exchange, 0),
                false => Verdict::Refused(438),
            },
            Some(438) if exchange.stale < MAX_STALE && self.take_challenge(message) => {
                self.ask_anew(now, exchange, exchange.stale + 1)
            }
            Some(code) => Verdict::Refused(code),
        }
    }

    fn ask_anew(&mut self, now: Instant, exchange: &mut Exchange, stale: u8) -> Verdict {
        *exchange = Exchange { stale, ..self.ask(now, exchange.request) };
        Verdict::Again
    }

    /// Takes realm and nonce; false if there is nothing to sign with.
    fn take_challenge(&mut self, message: &Message<'_>) -> bool {
        let realm = message.realm.or_else(|| self.key.map(|_| self.realm.as_str()));
        let (Some(realm), Some(nonce)) = (realm, message.nonce) else { return false };
        if realm.len() > MAX_QUOTED_BYTES || nonce.len() > MAX_QUOTED_BYTES {
            return false;
        }
        self.key = Some(long_term_key(&self.credentials.username, realm, &self.credentials.password));
        self.realm = realm.to_owned();
        self.nonce = nonce.to_vec();
        true
    }
}

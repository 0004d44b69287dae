//! STUN messages (RFC 8489) with the attributes of ICE (RFC 8445 §7.1) and TURN (RFC 8656 §18).
//!
//! Owns: the bytes of a message, MESSAGE-INTEGRITY with short-term and long-term credentials, FINGERPRINT, the test by
//! which the net thread tells our STUN from anyone's, and what else a TURN server sends: [`ChannelData`] and streams of
//! both. Does not own: transactions and what a check or an allocation means (`rtc::ice`, `rtc::turn`).
//! Reading allocates nothing and never panics; [`Message::parse`] has looked at every attribute before it returns.

mod build;
mod channel_data;
mod filter;
mod stream;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest as _, Md5};
use sha1::Sha1;

pub use build::Builder;
pub use channel_data::{CHANNEL_HEADER_BYTES, CHANNELS, ChannelData};
pub use filter::Filter;
pub use stream::{FrameError, FrameStream, MAX_FRAME_BYTES};

/// Length of the message header in bytes (RFC 8489 §5).
pub const HEADER_BYTES: usize = 20;
/// The method of every check, RFC 8489 §18.2.
pub const BINDING: u16 = 0x001;
/// Makes an allocation. This and the next are RFC 8656 §17.
pub const ALLOCATE: u16 = 0x003;
/// Keeps an allocation, or ends it.
pub const REFRESH: u16 = 0x004;
/// An indication with data for a peer.
pub const SEND: u16 = 0x006;
/// An indication with data from a peer.
pub const DATA: u16 = 0x007;
/// Lets a peer's address through.
pub const CREATE_PERMISSION: u16 = 0x008;
/// Gives a peer a channel, and lets it through.
pub const CHANNEL_BIND: u16 = 0x009;
/// Unknown comprehension-required attributes that a 420 names; a message with more is as foreign as one with eight.
pub const MAX_UNKNOWN: usize = 8;

const MAGIC_COOKIE: u32 = 0x2112_a442;
const FINGERPRINT_XOR: u32 = 0x5354_554e;
const INTEGRITY_BYTES: usize = 20;

/// Attribute types, RFC 8489 §18.3, RFC 8445 §20.2.1 and RFC 8656 §18.
mod attribute {
    pub(super) const MAPPED_ADDRESS: u16 = 0x0001;
    pub(super) const USERNAME: u16 = 0x0006;
    pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(super) const ERROR_CODE: u16 = 0x0009;
    pub(super) const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    pub(super) const CHANNEL_NUMBER: u16 = 0x000c;
    pub(super) const LIFETIME: u16 = 0x000d;
    pub(super) const XOR_PEER_ADDRESS: u16 = 0x0012;
    pub(super) const DATA: u16 = 0x0013;
    pub(super) const REALM: u16 = 0x0014;
    pub(super) const NONCE: u16 = 0x0015;
    pub(super) const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    pub(super) const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    pub(super) const REQUESTED_TRANSPORT: u16 = 0x0019;
    pub(super) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
    pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub(super) const PRIORITY: u16 = 0x0024;
    pub(super) const USE_CANDIDATE: u16 = 0x0025;
    pub(super) const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
    /// The same in coturn 4.6, which numbers it as a draft did.
    pub(super) const ADDITIONAL_ADDRESS_FAMILY_OF_DRAFT: u16 = 0x8032;
    pub(super) const ALTERNATE_DOMAIN: u16 = 0x8003;
    pub(super) const ALTERNATE_SERVER: u16 = 0x8023;
    pub(super) const FINGERPRINT: u16 = 0x8028;
    pub(super) const ICE_CONTROLLED: u16 = 0x8029;
    pub(super) const ICE_CONTROLLING: u16 = 0x802a;
}

/// The 96 bits that tie a response to its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// What kind of message it is, RFC 8489 §5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Wants a response.
    Request,
    /// Wants none.
    Indication,
    /// A request that went well.
    Success,
    /// A request that did not; ERROR-CODE says why.
    Error,
}

/// The sender's ICE role with its tie-breaker (ICE-CONTROLLING or ICE-CONTROLLED).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleAttribute {
    /// ICE-CONTROLLING.
    Controlling(u64),
    /// ICE-CONTROLLED.
    Controlled(u64),
}

/// The version of IP of a relayed address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Why bytes are no STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Header, cookie or length do not fit: something else on the same port.
    #[error("not STUN")]
    NotStun,
    /// An attribute runs over the end or has an impossible value.
    #[error("attribute {0:#06x} malformed")]
    Attribute(u16),
    /// The CRC does not match.
    #[error("fingerprint wrong")]
    Fingerprint,
}

/// A message whose header and attributes have been read; of an attribute that comes twice, the first counts.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    /// Request, indication or response.
    pub class: Class,
    /// [`BINDING`], one of TURN's methods, or something that we do not serve.
    pub method: u16,
    /// The transaction.
    pub transaction_id: TransactionId,
    /// USERNAME.
    pub username: Option<&'a str>,
    /// PRIORITY: that of the peer-reflexive candidate that the check would make.
    pub priority: Option<u32>,
    /// USE-CANDIDATE is there.
    pub use_candidate: bool,
    /// ICE-CONTROLLING or ICE-CONTROLLED.
    pub role: Option<RoleAttribute>,
    /// XOR-MAPPED-ADDRESS, or MAPPED-ADDRESS where there is no other.
    pub mapped_address: Option<SocketAddr>,
    /// ERROR-CODE, 300 to 699.
    pub error_code: Option<u16>,
    /// REALM, for which the long-term credentials are good.
    pub realm: Option<&'a str>,
    /// NONCE.
    pub nonce: Option<&'a [u8]>,
    /// LIFETIME, in seconds.
    pub lifetime_s: Option<u32>,
    /// CHANNEL-NUMBER, whether or not it is one of [`CHANNELS`].
    pub channel: Option<u16>,
    /// XOR-PEER-ADDRESS.
    pub peer_address: Option<SocketAddr>,
    /// XOR-RELAYED-ADDRESS.
    pub relayed_address: Option<SocketAddr>,
    /// A second one, of the other version of IP (RFC 8656 §7.2).
    pub further_relayed_address: Option<SocketAddr>,
    /// REQUESTED-ADDRESS-FAMILY.
    pub requested_family: Option<AddressFamily>,
    /// ADDITIONAL-ADDRESS-FAMILY.
    pub additional_family: Option<AddressFamily>,
    /// REQUESTED-TRANSPORT: a protocol number of IP, 17 for UDP.
    pub requested_transport: Option<u8>,
    /// DATA.
    pub data: Option<&'a [u8]>,
    /// ALTERNATE-SERVER, which goes with a 300.
    pub alternate_server: Option<SocketAddr>,
    /// ALTERNATE-DOMAIN, which its certificate must name.
    pub alternate_domain: Option<&'a str>,
    /// FINGERPRINT is there (and right, else the message would not have parsed).
    pub has_fingerprint: bool,
    unknown: [u16; MAX_UNKNOWN],
    unknown_len: usize,
    integrity_at: Option<usize>,
}

impl<'a> Message<'a> {
    /// Reads one datagram.
    ///
    /// # Errors
    /// The bytes are not STUN, or not all of them make sense.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(ParseError::NotStun)?;
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let cookie = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        if kind & 0xc000 != 0 || cookie != MAGIC_COOKIE || len % 4 != 0 || len != bytes.len() - HEADER_BYTES {
            return Err(ParseError::NotStun);
        }
        let mut transaction_id = [0; 12];
        transaction_id.copy_from_slice(&header[8..]);
        let mut message = Self {
            bytes,
            class: class_of(kind),
            method: (kind & 0x000f) | (kind & 0x00e0) >> 1 | (kind & 0x3e00) >> 2,
            transaction_id: TransactionId(transaction_id),
            username: None,
            priority: None,
            use_candidate: false,
            role: None,
            mapped_address: None,
            error_code: None,
            realm: None,
            nonce: None,
            lifetime_s: None,
            channel: None,
            peer_address: None,
            relayed_address: None,
            further_relayed_address: None,
            requested_family: None,
            additional_family: None,
            requested_transport: None,
            data: None,
            alternate_server: None,
            alternate_domain: None,
            has_fingerprint: false,
            unknown: [0; MAX_UNKNOWN],
            unknown_len: 0,
            integrity_at: None,
        };
        let mut at = HEADER_BYTES;
        while let Some((kind, value)) = attribute_at(bytes, at)? {
            message.take(kind, value, at)?;
            at += 4 + value.len().next_multiple_of(4);
        }
        Ok(message)
    }

    /// Comprehension-required attributes that we do not know: a request that has any is answered with 420.
    pub fn unknown_attributes(&self) -> &[u16] {
        &self.unknown[..self.unknown_len]
    }

    /// Whether MESSAGE-INTEGRITY is there and made with `key`: the password in short-term credentials, else a
    /// [`long_term_key`].
    pub fn verify(&self, key: &[u8]) -> bool {
        let Some(at) = self.integrity_at else { return false };
        let claimed = &self.bytes[at + 4..at + 4 + INTEGRITY_BYTES];
        integrity(&self.bytes[..at], key).verify_slice(claimed).is_ok()
    }

    fn take(&mut self, kind: u16, value: &'a [u8], at: usize) -> Result<(), ParseError> {
        let malformed = ParseError::Attribute(kind);
        if kind == attribute::FINGERPRINT {
            let claimed = u32::from_be_bytes(value.try_into().map_err(|_| malformed)?);
            // FINGERPRINT is the last attribute; anything behind it is not covered (RFC 8489 §14.7).
            if at + 8 != self.bytes.len() || crc32fast::hash(&self.bytes[..at]) ^ FINGERPRINT_XOR != claimed {
                return Err(ParseError::Fingerprint);
            }
            self.has_fingerprint = true;
            return Ok(());
        }
        if self.integrity_at.is_some() {
            return Ok(()); // Not covered by the integrity, hence ignored (RFC 8489 §14.5).
        }
        match kind {
            attribute::MESSAGE_INTEGRITY if value.len() == INTEGRITY_BYTES => self.integrity_at = Some(at),
            attribute::MESSAGE_INTEGRITY => return Err(malformed),
            attribute::USERNAME => {
                let name = str::from_utf8(value).map_err(|_| malformed)?;
                self.username.get_or_insert(name);
            }
            attribute::PRIORITY => {
                let value = u32::from_be_bytes(value.try_into().map_err(|_| malformed)?);
                self.priority.get_or_insert(value);
            }
            attribute::USE_CANDIDATE => self.use_candidate = true,
            attribute::ICE_CONTROLLING | attribute::ICE_CONTROLLED => {
                let tie_breaker = u64::from_be_bytes(value.try_into().map_err(|_| malformed)?);
                let role = if kind == attribute::ICE_CONTROLLING {
                    RoleAttribute::Controlling(tie_breaker)
                } else {
                    RoleAttribute::Controlled(tie_breaker)
                };
                self.role.get_or_insert(role);
            }
            attribute::XOR_MAPPED_ADDRESS => {
                self.mapped_address = Some(address(value, Some(self.transaction_id)).ok_or(malformed)?);
            }
            attribute::MAPPED_ADDRESS => {
                let plain = address(value, None).ok_or(malformed)?;
                self.mapped_address.get_or_insert(plain);
            }
            attribute::ERROR_CODE => {
                let [_, _, class, number, ..] = *value else { return Err(malformed) };
                let code = u16::from(class & 7) * 100 + u16::from(number);
                self.error_code.get_or_insert(code);
            }
            attribute::UNKNOWN_ATTRIBUTES | attribute::MESSAGE_INTEGRITY_SHA256 => {}
            _ => return self.take_turn(kind, value),
        }
        Ok(())
    }

    /// Attributes that come from a server alone, most of them TURN's (RFC 8656 §18).
    fn take_turn(&mut self, kind: u16, value: &'a [u8]) -> Result<(), ParseError> {
        let malformed = ParseError::Attribute(kind);
        match kind {
            attribute::REALM => {
                let realm = str::from_utf8(value).map_err(|_| malformed)?;
                self.realm.get_or_insert(realm);
            }
            attribute::NONCE => {
                self.nonce.get_or_insert(value);
            }
            attribute::LIFETIME => {
                let value = u32::from_be_bytes(value.try_into().map_err(|_| malformed)?);
                self.lifetime_s.get_or_insert(value);
            }
            attribute::CHANNEL_NUMBER => {
                let [c0, c1, _, _] = *value else { return Err(malformed) };
                let channel = u16::from_be_bytes([c0, c1]);
                self.channel.get_or_insert(channel);
            }
            attribute::XOR_PEER_ADDRESS => {
                let peer = address(value, Some(self.transaction_id)).ok_or(malformed)?;
                self.peer_address.get_or_insert(peer);
            }
            attribute::XOR_RELAYED_ADDRESS => {
                let relayed = address(value, Some(self.transaction_id)).ok_or(malformed)?;
                match self.relayed_address {
                    None => self.relayed_address = Some(relayed),
                    Some(_) => drop(self.further_relayed_address.get_or_insert(relayed)),
                }
            }
            attribute::REQUESTED_ADDRESS_FAMILY => {
                self.requested_family.get_or_insert(family(value).ok_or(malformed)?);
            }
            attribute::ADDITIONAL_ADDRESS_FAMILY => {
                self.additional_family.get_or_insert(family(value).ok_or(malformed)?);
            }
            attribute::REQUESTED_TRANSPORT => {
                let [protocol, _, _, _] = *value else { return Err(malformed) };
                self.requested_transport.get_or_insert(protocol);
            }
            attribute::DATA => {
                self.data.get_or_insert(value);
            }
            attribute::ALTERNATE_SERVER => {
                let server = address(value, None).ok_or(malformed)?;
                self.alternate_server.get_or_insert(server);
            }
            attribute::ALTERNATE_DOMAIN => {
                let domain = str::from_utf8(value).map_err(|_| malformed)?;
                self.alternate_domain.get_or_insert(domain);
            }
            optional if optional >= 0x8000 => {}
            required => {
                if let Some(slot) = self.unknown.get_mut(self.unknown_len) {
                    *slot = required;
                    self.unknown_len += 1;
                }
            }
        }
        Ok(())
    }
}

/// RFC 8656 §18.6, §18.11.
const fn family(value: &[u8]) -> Option<AddressFamily> {
    match *value {
        [1, _, _, _] => Some(AddressFamily::V4),
        [2, _, _, _] => Some(AddressFamily::V6),
        _ => None,
    }
}

/// The attribute that begins at `at`: its type and value without padding; `None` at the end.
fn attribute_at(bytes: &[u8], at: usize) -> Result<Option<(u16, &[u8])>, ParseError> {
    let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else { return Ok(None) };
    let [k0, k1, l0, l1, ref rest @ ..] = *rest else { return Err(ParseError::NotStun) };
    let kind = u16::from_be_bytes([k0, k1]);
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    if rest.len() < len.next_multiple_of(4) {
        return Err(ParseError::Attribute(kind));
    }
    Ok(Some((kind, &rest[..len])))
}

const fn class_of(kind: u16) -> Class {
    match (kind & 0x0100 != 0, kind & 0x0010 != 0) {
        (false, false) => Class::Request,
        (false, true) => Class::Indication,
        (true, false) => Class::Success,
        (true, true) => Class::Error,
    }
}

/// MAPPED-ADDRESS, or XOR-MAPPED-ADDRESS if `xor` is given (RFC 8489 §14.1, §14.2).
fn address(value: &[u8], xor: Option<TransactionId>) -> Option<SocketAddr> {
    let mask = xor.map_or([0; 16], mask);
    let [_, family, p0, p1, ref rest @ ..] = *value else { return None };
    let port = u16::from_be_bytes([p0 ^ mask[0], p1 ^ mask[1]]);
    let ip = match family {
        1 => {
            let mut ip: [u8; 4] = rest.try_into().ok()?;
            ip.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
            IpAddr::from(Ipv4Addr::from(ip))
        }
        2 => {
            let mut ip: [u8; 16] = rest.try_into().ok()?;
            ip.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
            IpAddr::from(Ipv6Addr::from(ip))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// What an address is XORed with: the cookie, then the transaction.
fn mask(TransactionId(id): TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&id);
    mask
}

/// The key of long-term credentials (RFC 8489 §9.2.2): MD5 over `user:realm:password`. Names and passwords beyond ASCII
/// are taken as they are written, without the profile of RFC 8265.
pub fn long_term_key(username: &str, realm: &str, password: &str) -> [u8; 16] {
    let mut hash = Md5::new();
    for part in [username, ":", realm, ":", password] {
        hash.update(part);
    }
    hash.finalize().into()
}

/// The HMAC over `covered`, all bytes before MESSAGE-INTEGRITY; the header's length counts up to its end (§14.5).
fn integrity(covered: &[u8], key: &[u8]) -> Hmac<Sha1> {
    let len = (covered.len() + 4 + INTEGRITY_BYTES - HEADER_BYTES) as u16;
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(&covered[..2]);
    mac.update(&len.to_be_bytes());
    mac.update(&covered[4..]);
    mac
}

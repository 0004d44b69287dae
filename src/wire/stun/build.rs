//! Writing a message: attributes in the order of the calls, then [`Builder::finish`] signs it.

use std::net::{IpAddr, SocketAddr};

use hmac::Mac;

use super::{
    AddressFamily, BINDING, Class, FINGERPRINT_XOR, HEADER_BYTES, INTEGRITY_BYTES, MAGIC_COOKIE, RoleAttribute,
    TransactionId, attribute, integrity, mask,
};

/// UDP's protocol number in IP, the only transport between relay and peer that RFC 8656 has.
const UDP: u8 = 17;

/// A message in the making.
#[derive(Debug)]
pub struct Builder {
    bytes: Vec<u8>,
    transaction_id: TransactionId,
}

impl Builder {
    /// A Binding message without attributes.
    pub fn new(class: Class, transaction_id: TransactionId) -> Self {
        Self::of(BINDING, class, transaction_id)
    }

    /// A message of any method (12 bits, RFC 8489 §5) without attributes.
    pub fn of(method: u16, class: Class, transaction_id: TransactionId) -> Self {
        let class = match class {
            Class::Request => 0x0000,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        };
        let mut bytes = Vec::with_capacity(128);
        let method = (method & 0x000f) | (method & 0x0070) << 1 | (method & 0x0f80) << 2;
        bytes.extend((method | class).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(MAGIC_COOKIE.to_be_bytes());
        bytes.extend(transaction_id.0);
        Self { bytes, transaction_id }
    }

    /// USERNAME.
    pub fn username(self, name: &str) -> Self {
        self.attribute(attribute::USERNAME, name.as_bytes())
    }

    /// PRIORITY.
    pub fn priority(self, priority: u32) -> Self {
        self.attribute(attribute::PRIORITY, &priority.to_be_bytes())
    }

    /// USE-CANDIDATE.
    pub fn use_candidate(self) -> Self {
        self.attribute(attribute::USE_CANDIDATE, &[])
    }

    /// ICE-CONTROLLING or ICE-CONTROLLED.
    pub fn role(self, role: RoleAttribute) -> Self {
        match role {
            RoleAttribute::Controlling(tie) => self.attribute(attribute::ICE_CONTROLLING, &tie.to_be_bytes()),
            RoleAttribute::Controlled(tie) => self.attribute(attribute::ICE_CONTROLLED, &tie.to_be_bytes()),
        }
    }

    /// XOR-MAPPED-ADDRESS.
    pub fn xor_mapped_address(self, address: SocketAddr) -> Self {
        let mask = mask(self.transaction_id);
        self.address(attribute::XOR_MAPPED_ADDRESS, address, mask)
    }

    /// XOR-PEER-ADDRESS.
    pub fn xor_peer_address(self, address: SocketAddr) -> Self {
        let mask = mask(self.transaction_id);
        self.address(attribute::XOR_PEER_ADDRESS, address, mask)
    }

    /// XOR-RELAYED-ADDRESS.
    pub fn xor_relayed_address(self, address: SocketAddr) -> Self {
        let mask = mask(self.transaction_id);
        self.address(attribute::XOR_RELAYED_ADDRESS, address, mask)
    }

    /// ALTERNATE-SERVER, which goes with a 300.
    pub fn alternate_server(self, address: SocketAddr) -> Self {
        self.address(attribute::ALTERNATE_SERVER, address, [0; 16])
    }

    /// ALTERNATE-DOMAIN, beside ALTERNATE-SERVER.
    pub fn alternate_domain(self, domain: &str) -> Self {
        self.attribute(attribute::ALTERNATE_DOMAIN, domain.as_bytes())
    }

    /// REALM.
    pub fn realm(self, realm: &str) -> Self {
        self.attribute(attribute::REALM, realm.as_bytes())
    }

    /// NONCE.
    pub fn nonce(self, nonce: &[u8]) -> Self {
        self.attribute(attribute::NONCE, nonce)
    }

    /// LIFETIME.
    pub fn lifetime_s(self, seconds: u32) -> Self {
        self.attribute(attribute::LIFETIME, &seconds.to_be_bytes())
    }

    /// CHANNEL-NUMBER.
    pub fn channel(self, channel: u16) -> Self {
        let [c0, c1] = channel.to_be_bytes();
        self.attribute(attribute::CHANNEL_NUMBER, &[c0, c1, 0, 0])
    }

    /// REQUESTED-ADDRESS-FAMILY.
    pub fn requested_family(self, family: AddressFamily) -> Self {
        let family = match family {
            AddressFamily::V4 => 1,
            AddressFamily::V6 => 2,
        };
        self.attribute(attribute::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0])
    }

    /// ADDITIONAL-ADDRESS-FAMILY: IPv6, beside the IPv4 that is meant where nothing is requested. It is said by both of its
    /// numbers, of which a server steps over the one that it does not know.
    pub fn additional_family_v6(self) -> Self {
        let builder = self.attribute(attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
        builder.attribute(attribute::ADDITIONAL_ADDRESS_FAMILY_OF_DRAFT, &[2, 0, 0, 0])
    }

    /// REQUESTED-TRANSPORT: UDP.
    pub fn requested_transport_udp(self) -> Self {
        self.attribute(attribute::REQUESTED_TRANSPORT, &[UDP, 0, 0, 0])
    }

    /// DATA.
    pub fn data(self, data: &[u8]) -> Self {
        self.attribute(attribute::DATA, data)
    }

    /// ERROR-CODE with its reason phrase.
    pub fn error_code(self, code: u16, reason: &str) -> Self {
        let mut value = vec![0, 0, (code / 100) as u8, (code % 100) as u8];
        value.extend(reason.as_bytes());
        self.attribute(attribute::ERROR_CODE, &value)
    }

    /// UNKNOWN-ATTRIBUTES, which goes with a 420.
    pub fn unknown_attributes(self, kinds: &[u16]) -> Self {
        let value: Vec<u8> = kinds.iter().flat_map(|kind| kind.to_be_bytes()).collect();
        self.attribute(attribute::UNKNOWN_ATTRIBUTES, &value)
    }

    /// The datagram, signed with MESSAGE-INTEGRITY under `key` and closed with FINGERPRINT.
    pub fn finish(mut self, key: &[u8]) -> Vec<u8> {
        let mac = integrity(&self.bytes, key).finalize().into_bytes();
        debug_assert_eq!(mac.len(), INTEGRITY_BYTES);
        self = self.attribute(attribute::MESSAGE_INTEGRITY, &mac);
        self.finish_plain()
    }

    /// The datagram without a signature, closed with FINGERPRINT: for indications and what nobody can sign yet.
    pub fn finish_plain(mut self) -> Vec<u8> {
        // The CRC covers the header with the final length, which includes FINGERPRINT itself.
        self.set_length(8);
        let crc = crc32fast::hash(&self.bytes) ^ FINGERPRINT_XOR;
        self.attribute(attribute::FINGERPRINT, &crc.to_be_bytes()).bytes
    }

    /// The datagram as it is, for a server that asks nobody who he is.
    pub fn finish_unsigned(self) -> Vec<u8> {
        self.bytes
    }

    /// Any attribute, as a test of foreign ones needs it.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend((value.len() as u16).to_be_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.set_length(0);
        self
    }

    fn address(self, kind: u16, address: SocketAddr, mask: [u8; 16]) -> Self {
        let mut value = [0; 20];
        value[2..4].copy_from_slice(&address.port().to_be_bytes());
        let len = match address.ip() {
            IpAddr::V4(ip) => {
                value[1] = 1;
                value[4..8].copy_from_slice(&ip.octets());
                8
            }
            IpAddr::V6(ip) => {
                value[1] = 2;
                value[4..].copy_from_slice(&ip.octets());
                20
            }
        };
        value[2..4].iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        value[4..len].iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        self.attribute(kind, &value[..len])
    }

    fn set_length(&mut self, to_come: usize) {
        let len = (self.bytes.len() - HEADER_BYTES + to_come) as u16;
        self.bytes[2..4].copy_from_slice(&len.to_be_bytes());
    }
}

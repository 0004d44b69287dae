//! Writing a message: attributes in the order of the calls, then [`Builder::finish`] signs it.

use std::net::{IpAddr, SocketAddr};

use hmac::Mac;

use super::{
    BINDING, Class, FINGERPRINT_XOR, HEADER_BYTES, INTEGRITY_BYTES, MAGIC_COOKIE, RoleAttribute, TransactionId,
    attribute, integrity, mask,
};

/// A Binding message in the making.
#[derive(Debug)]
pub struct Builder {
    bytes: Vec<u8>,
    transaction_id: TransactionId,
}

impl Builder {
    /// A Binding message without attributes.
    pub fn new(class: Class, transaction_id: TransactionId) -> Self {
        let class = match class {
            Class::Request => 0x0000,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        };
        let mut bytes = Vec::with_capacity(128);
        bytes.extend((BINDING | class).to_be_bytes());
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
        let mask = mask(self.transaction_id);
        value[2..4].iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        value[4..len].iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        self.attribute(attribute::XOR_MAPPED_ADDRESS, &value[..len])
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

    fn set_length(&mut self, to_come: usize) {
        let len = (self.bytes.len() - HEADER_BYTES + to_come) as u16;
        self.bytes[2..4].copy_from_slice(&len.to_be_bytes());
    }
}

//! One peer connection: ICE and DTLS, which end in an address and SRTP keys.
//!
//! Every Galene stream is a connection of its own: one UDP socket, one audio line, rtcp-mux, BUNDLE, one component.
//! [`peer::Peer`] ties the parts together and is what the gateway drives; the parts know nothing of each other:
//! [`ice`] finds the address (RFC 8445, 8838, 7675), [`dtls`] makes the keys (RFC 5764 over RFC 6347) and checks the
//! [`fingerprint`], [`description`] reads and writes the SDP (RFC 8866, 8839, 9143). Not here: media itself.
//! Servers help where a peer cannot be reached: [`reflexive`] asks one which address others see (RFC 8489), [`turn`] has a
//! relay at one (RFC 8656).
//! A telephone that makes its keys by DTLS needs neither ICE nor a description of ours, but RSA: [`telephone_dtls`].

pub mod candidate;
pub mod description;
pub mod dtls;
pub mod fingerprint;
pub mod gathering;
pub mod ice;
pub mod peer;
pub mod reflexive;
mod retransmission;
pub mod telephone_dtls;
pub mod turn;

//! Capture files as libpcap writes them and Wireshark reads them: SIP messages as raw IP packets with UDP headers.
//!
//! Owns: the bytes of the file. Does not own: the file. Whatever carried a message, it is shown as a UDP datagram, since
//! nothing is known here of sequence numbers; one over TLS can be read so, too.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Whole IP packets without any link layer's header (LINKTYPE_RAW).
const LINK_TYPE_RAW: u32 = 101;
/// The largest packet that IPv4 can name.
const MAX_PACKET_BYTES: usize = 65_535;
const UDP: u8 = 17;
const UDP_HEADER_BYTES: usize = 8;
const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;

/// What a file begins with.
pub fn file_header() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24);
    // Microseconds, version 2.4, no time zone, accuracy not stated.
    bytes.extend(0xa1b2_c3d4_u32.to_le_bytes());
    bytes.extend([2, 0, 4, 0]);
    bytes.extend([0; 8]);
    bytes.extend((MAX_PACKET_BYTES as u32).to_le_bytes());
    bytes.extend(LINK_TYPE_RAW.to_le_bytes());
    bytes
}

/// One datagram, `unix_time` after 1970. If one address is IPv6 both become so. What is too long for a packet is cut off.
pub fn datagram(unix_time: Duration, source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(MAX_PACKET_BYTES - IPV6_HEADER_BYTES - UDP_HEADER_BYTES)];
    let packet = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let udp = udp(source.port(), destination.port(), &[&from.octets()[..], &to.octets()].concat(), payload);
            // The length fits because the payload was cut.
            let length = (IPV4_HEADER_BYTES + udp.len()) as u16;
            let mut header = vec![0x45, 0];
            header.extend(length.to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum([&header[..]]).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            [header, udp].concat()
        }
        (from, to) => {
            let (from, to) = (as_v6(from).octets(), as_v6(to).octets());
            let udp = udp(source.port(), destination.port(), &[from, to].concat(), payload);
            let mut header = vec![0x60, 0, 0, 0];
            header.extend((udp.len() as u16).to_be_bytes());
            header.extend([UDP, 64]);
            header.extend(from);
            header.extend(to);
            [header, udp].concat()
        }
    };
    let length = (packet.len() as u32).to_le_bytes();
    let mut record = Vec::with_capacity(16 + packet.len());
    // Seconds since 1970 fit until 2106.
    record.extend((unix_time.as_secs() as u32).to_le_bytes());
    record.extend(unix_time.subsec_micros().to_le_bytes());
    record.extend(length);
    record.extend(length);
    record.extend(packet);
    record
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// A UDP datagram (RFC 768) between the two `addresses` that stand one after the other.
fn udp(source: u16, destination: u16, addresses: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = (UDP_HEADER_BYTES + payload.len()) as u16;
    let mut bytes = Vec::with_capacity(length.into());
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    let pseudo_header = [&[0, UDP][..], &length.to_be_bytes()].concat();
    let sum = match checksum([addresses, &pseudo_header, &bytes]) {
        0 => 0xffff,
        sum => sum,
    };
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The Internet checksum (RFC 1071) of parts of which all but the last have an even length.
fn checksum<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u16 {
    let words = parts.into_iter().flat_map(|part| part.chunks(2));
    let sum = words.map(|word| u32::from(word[0]) << 8 | word.get(1).copied().map_or(0, u32::from)).sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Duration = Duration::from_micros(1_700_000_000_000_123);

    fn record(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
        datagram(AT, source.parse().unwrap(), destination.parse().unwrap(), payload)
    }

    #[test]
    fn the_file_begins_as_libpcap_has_it() {
        let header = file_header();
        assert_eq!(header.len(), 24);
        assert_eq!((&header[..4], &header[20..]), (&[0xd4, 0xc3, 0xb2, 0xa1][..], &[101, 0, 0, 0][..]));
    }

    #[test]
    fn a_datagram_has_its_time_its_lengths_and_checksums_that_come_out_even() {
        let record = record("10.0.0.7:5062", "10.0.0.2:5060", b"odd");
        assert_eq!(record[..4], 1_700_000_000_u32.to_le_bytes());
        assert_eq!(record[4..8], 123_u32.to_le_bytes());
        assert_eq!(record[8..12], 31_u32.to_le_bytes());
        let packet = &record[16..];
        assert_eq!((packet.len(), packet[0], packet[9]), (31, 0x45, 17));
        assert_eq!((&packet[12..20], &packet[28..]), (&[10, 0, 0, 7, 10, 0, 0, 2][..], &b"odd"[..]));
        assert_eq!(checksum([&packet[..20]]), 0);
        assert_eq!(checksum([&packet[12..20], &[0, 17, 0, 11], &packet[20..]]), 0);
    }

    #[test]
    fn ipv6_and_mapped_addresses_have_their_form() {
        let v6 = record("[2001:db8::7]:5062", "[2001:db8::2]:5060", b"even");
        let packet = &v6[16..];
        assert_eq!((packet.len(), packet[0], packet[6]), (52, 0x60, 17));
        assert_eq!(checksum([&packet[8..40], &[0, 17, 0, 12], &packet[40..]]), 0);
        assert_eq!(record("[::ffff:10.0.0.7]:1", "10.0.0.2:2", b"")[16], 0x45);
        assert_eq!(record("10.0.0.7:1", "[2001:db8::2]:2", b"")[16], 0x60);
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let long = record("10.0.0.7:1", "10.0.0.2:2", &vec![b'x'; 100_000]);
        assert!(long.len() - 16 <= MAX_PACKET_BYTES);
    }
}

//! One audio line: where its media go, in what formats, in which direction (RFC 3264, RFC 8866 §5.7, §6).

use std::net::IpAddr;

use sdp_types::{Media, Session};

use super::codec::Codec;
use super::crypto::Crypto;
use super::dtls::{DtlsDescription, is_dtls};
use super::extended_reports::ExtendedReportRequest;
use crate::wire::uri::Host;

/// Keys of one line that are looked at: twice as many as there are suites.
const MAX_CRYPTO: usize = 8;

/// Which way media flow, as seen by whoever wrote the description.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Both ways, also where nothing is said.
    #[default]
    SendRecv,
    /// The writer only sends: it has put the other side on hold.
    SendOnly,
    /// The writer only receives.
    RecvOnly,
    /// No way.
    Inactive,
}

impl Direction {
    const ALL: [Self; 4] = [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive];

    /// From whether the writer sends and receives.
    pub const fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// Whether the writer sends.
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the writer receives.
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same flow as the other side sees it; also the answer of one who wants all that is offered (RFC 3264 §6.1).
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self::new(self.receives(), self.sends())
    }

    /// The attribute's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// The last one said by the media line, else by the session.
    pub(super) fn read(session: &Session, media: &Media) -> Self {
        let said = |attributes: &[sdp_types::Attribute]| {
            let as_direction = |attribute: &sdp_types::Attribute| {
                Self::ALL.into_iter().find(|direction| attribute.attribute.eq_ignore_ascii_case(direction.as_str()))
            };
            attributes.iter().rev().find_map(as_direction)
        };
        said(&media.attributes).or_else(|| said(&session.attributes)).unwrap_or_default()
    }
}

/// What an audio line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioDescription {
    /// Where the writer receives; `None` if there is no usable `c=`, or it is the address 0.0.0.0 of an old-style hold.
    pub host: Option<Host>,
    /// The RTP port; 0 means the line is refused or ended.
    pub port: u16,
    /// `RTP/AVP`, `RTP/SAVP` … as written.
    pub protocol: String,
    /// The formats that could be understood, the preferred one first.
    pub codecs: Vec<Codec>,
    /// Which way media flow; an old-style hold counts as not receiving.
    pub direction: Direction,
    /// The packet length the writer would like to receive.
    pub ptime_ms: Option<u16>,
    /// The longest packet it can receive.
    pub maxptime_ms: Option<u16>,
    /// The port of `a=rtcp:`, if there is one (RFC 3605).
    pub rtcp_port: Option<u16>,
    /// The address of `a=rtcp:`, if there is one.
    pub rtcp_host: Option<Host>,
    /// RTP and RTCP may share the port (RFC 5761).
    pub has_rtcp_mux: bool,
    /// The keys of `a=crypto:` that we could use (RFC 4568), in the order of the lines.
    pub crypto: Vec<Crypto>,
    /// What is said of DTLS, if the transport is DTLS-SRTP.
    pub dtls: Option<DtlsDescription>,
    /// The extended reports that the writer would get (RFC 3611).
    pub extended_reports: ExtendedReportRequest,
}

impl AudioDescription {
    pub(super) fn read(session: &Session, media: &Media) -> Self {
        let connection = media.connections.first().or(session.connection.as_ref());
        let host = connection.and_then(|connection| connection_host(&connection.connection_address));
        let is_old_style_hold = host.as_ref().and_then(Host::address).is_some_and(|address| address.is_unspecified());
        let written = Direction::read(session, media);
        let (rtcp_port, rtcp_host) = read_rtcp(media).unwrap_or_default();
        Self {
            host: host.filter(|_| !is_old_style_hold),
            port: media.port,
            protocol: media.proto.clone(),
            codecs: Codec::read_all(media),
            direction: Direction::new(written.sends(), written.receives() && !is_old_style_hold),
            ptime_ms: milliseconds(session, media, "ptime"),
            maxptime_ms: milliseconds(session, media, "maxptime"),
            rtcp_port,
            rtcp_host,
            has_rtcp_mux: media.has_attribute("rtcp-mux"),
            crypto: media.get_attribute_values("crypto").flatten().filter_map(Crypto::parse).take(MAX_CRYPTO).collect(),
            dtls: DtlsDescription::read(session, media),
            extended_reports: ExtendedReportRequest::read(session, media),
        }
    }

    /// The format of this name and clock.
    pub fn find(&self, encoding: &str, clock_rate_hz: u32) -> Option<&Codec> {
        self.codecs.iter().find(|codec| codec.is(encoding, clock_rate_hz))
    }

    /// Whether the line asks for RTP without encryption.
    pub fn is_plain_rtp(&self) -> bool {
        self.protocol.eq_ignore_ascii_case("RTP/AVP") || self.protocol.eq_ignore_ascii_case("RTP/AVPF")
    }

    /// Whether the line asks for SRTP with keys in the description: it has to be encrypted.
    pub fn is_srtp(&self) -> bool {
        self.protocol.eq_ignore_ascii_case("RTP/SAVP") || self.protocol.eq_ignore_ascii_case("RTP/SAVPF")
    }

    /// The address, if `c=` is not a name.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.as_ref().and_then(Host::address)
    }

    /// Where the writer receives RTCP: `a=rtcp:`, or the port after the RTP port. 0 if there is none.
    pub fn rtcp_port_or_default(&self) -> u16 {
        self.rtcp_port.unwrap_or_else(|| if self.port == 0 { 0 } else { self.port.checked_add(1).unwrap_or(0) })
    }
}

/// Whether the transport is RTP in one of its profiles.
pub(super) fn is_rtp(protocol: &str) -> bool {
    let is_known = |known: &&str| known.eq_ignore_ascii_case(protocol);
    ["RTP/AVP", "RTP/AVPF", "RTP/SAVP", "RTP/SAVPF"].iter().any(is_known) || is_dtls(protocol)
}

/// Without the time-to-live and count of a multicast address.
fn connection_host(text: &str) -> Option<Host> {
    Host::parse(text.split('/').next()?).ok()
}

fn milliseconds(session: &Session, media: &Media, name: &str) -> Option<u16> {
    let value = media.get_first_attribute_value(name).or_else(|| session.get_first_attribute_value(name)).flatten()?;
    // `20.0` has been seen.
    value.trim().split('.').next()?.parse().ok().filter(|&ms| ms > 0)
}

/// `53020` or `53020 IN IP6 2001:db8::1`.
fn read_rtcp(media: &Media) -> Option<(Option<u16>, Option<Host>)> {
    let mut words = media.get_first_attribute_value("rtcp").flatten()?.split_ascii_whitespace();
    let port = words.next()?.parse().ok()?;
    Some((Some(port), words.nth(2).and_then(connection_host)))
}

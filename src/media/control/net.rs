//! Between signalling and the net thread: what a leg is, commands, events, counters.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{CallerKey, LegKey, RoomKey, StreamKey};
use crate::time::Instant;
use crate::wire::route::Route;
use crate::wire::rtcp::VoipMetrics;
use crate::wire::rtp::SrtpKeys;
use crate::wire::stun::Filter;

/// Which way a peer connection's stream flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerRole {
    /// A caller's voice to Galene; `ssrc` is what its [`super::UpSetup`] sends with.
    Up {
        /// Whose voice.
        caller: CallerKey,
        /// The stream's source.
        ssrc: u32,
    },
    /// A room voice from Galene; `ssrc` is ours, for the receiver reports alone.
    Down {
        /// Which voice.
        stream: StreamKey,
        /// The sender of the reports.
        ssrc: u32,
    },
}

/// A peer connection's socket, as the net thread must know it before ICE begins.
#[derive(Clone, Debug)]
pub struct PeerSetup {
    /// Its name from now on.
    pub leg: LegKey,
    /// The room, hence the mix thread.
    pub room: RoomKey,
    /// Which way.
    pub role: PeerRole,
    /// The canonical name in RTCP (RFC 7022), the one of the offer's `a=ssrc`.
    pub cname: String,
    /// Which STUN messages signalling wants to see.
    pub stun_filter: Filter,
}

/// Where and what a telephone's RTP is, from SDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TelephoneRemote {
    /// From `c=` and `m=`; `None` if it is unspecified (0.0.0.0): nothing is sent until packets come.
    pub rtp: Option<SocketAddr>,
    /// From `a=rtcp` (RFC 3605), else RTP's port + 1; not used with `rtcp_mux`.
    pub rtcp: Option<SocketAddr>,
    /// RTCP comes on the RTP port (RFC 5761).
    pub rtcp_mux: bool,
    /// The only payload type that a source may latch with.
    pub payload_type: u8,
    /// The RTP clock of its codec.
    pub clock_rate_hz: u32,
    /// Where SIP comes from, if that is known: the telephone itself, its NAT or its provider.
    pub signalling_host: Option<IpAddr>,
    /// Packets can come from `rtp`, as far as is known: it is no private address while SIP comes from a public one. Then
    /// others have to wait until it has been silent for a while.
    pub has_claim: bool,
    /// The telephone has reason to send: the call is answered and not on hold. Only then silence says that it is not there.
    pub is_expected: bool,
    /// It asks for VoIP metrics (RFC 3611 §5.1).
    pub asks_metrics: bool,
}

/// What a telephone's packets are wrapped in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Nothing: plain RTP.
    Plain,
    /// SRTP under keys that are still to come: until then nothing is sent or taken.
    Awaited,
    /// SRTP.
    Srtp(SrtpKeys),
}

/// From where a telephone's DTLS may come. Once it has come from somewhere, it comes from there alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsSource {
    /// From the address of its description: we begin, so it answers from where we send to.
    Signalled,
    /// It begins: from its host at once, from elsewhere, since a NAT may stand between, if it insists.
    Anywhere,
}

/// A telephone's pair of sockets.
#[derive(Clone, Debug)]
pub struct TelephoneSetup {
    /// Its name from now on.
    pub leg: LegKey,
    /// The room, hence the mix thread.
    pub room: RoomKey,
    /// Who speaks.
    pub caller: CallerKey,
    /// Our source towards the telephone, the same as in its [`super::CallerSetup`].
    pub ssrc: u32,
    /// The canonical name in RTCP (RFC 7022).
    pub cname: String,
    /// Where to send, until a source has latched.
    pub remote: TelephoneRemote,
    /// From SDP.
    pub protection: Protection,
}

/// What signalling asks of the net thread, beside handing over sockets.
#[derive(Debug)]
pub enum NetCommand {
    /// ICE restarted with new credentials.
    SetPeerStunFilter {
        /// Which socket.
        leg: LegKey,
        /// Replaces the one of the set-up.
        stun_filter: Filter,
    },
    /// ICE validated an address: DTLS and SRTP are taken from it and sent to it.
    SetPeerRemote {
        /// Which socket.
        leg: LegKey,
        /// The selected pair's far end.
        remote: Route,
    },
    /// A TURN server has, or may have, a relay for this socket: what comes from it in channels is the peers'.
    SetPeerRelay {
        /// Which socket.
        leg: LegKey,
        /// The server.
        server: SocketAddr,
        /// Channel numbers and the peers that they lead to.
        channels: Vec<(u16, SocketAddr)>,
    },
    /// DTLS is done: SRTP from now on; the socket is no longer eager.
    SetPeerKeys {
        /// Which socket.
        leg: LegKey,
        /// Both directions.
        keys: SrtpKeys,
        /// The RTP clock of the negotiated codec.
        clock_rate_hz: u32,
    },
    /// Send one datagram (STUN or DTLS).
    SendTo {
        /// From which socket.
        leg: LegKey,
        /// To whom.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// The answer, or a re-INVITE: if the far end has moved, the latch opens again.
    UpdateTelephone {
        /// Which pair.
        leg: LegKey,
        /// From the new SDP.
        remote: TelephoneRemote,
    },
    /// DTLS with a telephone begins anew, or is over: its datagrams are let through, or are not.
    ExpectTelephoneDtls {
        /// Which pair.
        leg: LegKey,
        /// From where; `None` if it is over.
        source: Option<DtlsSource>,
    },
    /// The telephone's keys, or their end; those before count for two seconds more for what it has sent.
    SetTelephoneProtection {
        /// Which pair.
        leg: LegKey,
        /// From the new SDP.
        protection: Protection,
    },
    /// The caller began or ceased to speak: a speaker's packets are read as they come, a silent one's with the ticks.
    /// Every telephone is silent at first.
    SetTelephoneTalking {
        /// Which pair.
        leg: LegKey,
        /// Speaks now?
        talking: bool,
    },
    /// RTCP BYE, then the socket comes back and is closed; [`NetEvent::Removed`] tells when.
    Remove(LegKey),
}

/// What the net thread tells signalling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// A STUN message that passed the filter.
    Stun {
        /// On which socket.
        leg: LegKey,
        /// Sender.
        from: Route,
        /// The address of ours that it came to.
        local: SocketAddr,
        /// When the kernel had it.
        arrival: Instant,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// A DTLS datagram from the address that ICE validated, or from a telephone that may send it.
    Dtls {
        /// On which socket.
        leg: LegKey,
        /// Sender.
        from: Route,
        /// When the kernel had it.
        arrival: Instant,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// A room voice's first packet on this socket came, was authentic and is on its way to the mix.
    Flows {
        /// On which socket.
        leg: LegKey,
    },
    /// The telephone's packets really come from here; ours go there from now on.
    Latched {
        /// Which pair.
        leg: LegKey,
        /// The source.
        remote: SocketAddr,
    },
    /// Nothing at all has come from a telephone that should be sending for 20 s, and for each 20 s more.
    Silent {
        /// Which pair.
        leg: LegKey,
    },
    /// The far end reports another loss of our packets than before; for an up stream, [`super::Command::SetUpLoss`] follows.
    LossReported {
        /// Of what we send here.
        leg: LegKey,
        /// Packets lost of a hundred in its latest reports.
        percent: u8,
    },
    /// The sockets are closed and their ports free.
    Removed {
        /// Which.
        leg: LegKey,
        /// What happened to its packets.
        stats: LegStats,
    },
}

/// What a far end tells of our stream (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerReport {
    /// Packets that it missed since the start.
    pub lost: u32,
    /// How unevenly they come.
    pub jitter: Duration,
}

/// Counters of one leg of the net thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegStats {
    /// RTP packets that went to the mix thread.
    pub received: u32,
    /// RTP packets sent.
    pub sent: u32,
    /// RTCP packets taken.
    pub rtcp_received: u32,
    /// Packets that never came, from a telephone.
    pub lost: u32,
    /// How unevenly a telephone's packets come, by RFC 3550 §6.4.1, at the end.
    pub jitter: Duration,
    /// Packets of ours that the far end lost, of a hundred, in its latest reports.
    pub reported_loss_percent: u8,
    /// What a telephone's last report says of all that it was sent.
    pub reported: Option<PeerReport>,
    /// What a telephone's last extended report says of all that it heard.
    pub heard_there: Option<VoipMetrics>,
    /// Round trip to the far end: by its last report on our stream, or by its answers to our requests.
    pub round_trip: Option<Duration>,
    /// RTP packets that were lost and asked for again, each try counted.
    pub asked_again: u32,
    /// Of these packets, the ones that came then; [`Self::received`] counts them too.
    pub recovered: u32,
    /// What was dropped, and why.
    pub dropped: Drops,
}

/// Why packets were dropped on the net thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Not from the address that was latched or validated.
    pub stranger: u32,
    /// Neither RTP, RTCP, STUN nor DTLS, or broken.
    pub malformed: u32,
    /// SRTP authentication failed, or the packet was a replay.
    pub unauthentic: u32,
    /// More than the leg may bring: RTP above 200 a second, DTLS above 8 pending, STUN above its limit.
    pub flood: u32,
    /// STUN that the leg's filter does not accept.
    pub foreign_stun: u32,
    /// The ring onwards was full.
    pub ring_full: u32,
    /// Nothing is set up to take or send it: no keys, no remote address yet.
    pub unready: u32,
    /// The kernel refused to send.
    pub send_failed: u32,
}

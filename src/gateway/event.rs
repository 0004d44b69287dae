//! What goes into the gateway and what comes out of it: the words shared with `io`.

use std::net::{IpAddr, SocketAddr};

use super::admission::Load;
use crate::galene::client;
use crate::media::control::{Command, LegKey, MixEvent, NetCommand, NetEvent, PeerSetup, TelephoneSetup};
use crate::sip::event::{self as sip, CallKey};
use crate::time::Instant;
use crate::wire::ice_uri::IceUri;

/// A membership of the group. A call begins another one when it has lost the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberKey {
    /// For whom.
    pub call: CallKey,
    /// Memberships that this call began before.
    pub nth: u32,
}

/// What the gateway is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// SIP: a datagram, a connection's news or a resolved name.
    Sip(sip::Input<'a>),
    /// What happened to the HTTP requests and the WebSocket of one member.
    Galene {
        /// Whose.
        member: MemberKey,
        /// What.
        input: client::Input<'a>,
    },
    /// From the net thread.
    Net(NetEvent),
    /// From a mix thread.
    Mix(MixEvent),
    /// Where a STUN or TURN server is; nowhere if it is not found.
    IceServer {
        /// As it was asked for.
        uri: IceUri,
        /// Best first.
        addresses: Vec<SocketAddr>,
    },
    /// A connection that [`Sockets::open_turn_stream`] had opened has ended, or was never made.
    TurnStreamEnded {
        /// For whose socket.
        leg: LegKey,
        /// What stood for the server.
        stand_in: SocketAddr,
    },
    /// The network of this machine has changed. Memberships that lost their connections by it are told before.
    Network {
        /// Addresses that it has not any more.
        gone: &'a [IpAddr],
        /// There is an address or a way that was not there before.
        has_new: bool,
    },
    /// How the media threads did in the last seconds.
    Load(Load),
    /// SIGTERM: take no more calls, wait for those that there are as long as `-drain-for` says, then as [`Self::ShutDown`]. Said
    /// again, it waits no longer.
    Drain,
    /// SIGINT: end every call, take the binding back, then [`Output::Stopped`].
    ShutDown,
}

/// What the gateway wants done.
#[derive(Debug)]
pub enum Output {
    /// Send a SIP datagram.
    SendSip {
        /// From this address; from any socket of the right family if `None`.
        local: Option<SocketAddr>,
        /// To this one.
        remote: SocketAddr,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// A SIP message has come or is about to go, its secrets masked: for a capture, if one is kept.
    Passed(sip::Passed),
    /// Do something to a connection of SIP.
    SipConnection(sip::ConnectionCommand),
    /// Find a SIP server, then give [`sip::Input::Resolved`] or [`sip::Input::Unresolved`].
    Resolve(sip::Target),
    /// HTTP or WebSocket work for one member; never [`client::Output::Event`].
    Galene {
        /// Whose.
        member: MemberKey,
        /// What.
        output: client::Output,
    },
    /// Hand an opened peer socket to the net thread.
    AddPeer(PeerSetup),
    /// Hand an opened telephone pair to the net thread.
    AddTelephone(TelephoneSetup),
    /// Close the sockets of a leg, handed over or not.
    Close(LegKey),
    /// Find a STUN or TURN server that is named, not addressed, then give [`Input::IceServer`].
    FindIceServer(IceUri),
    /// For the net thread.
    Net(NetCommand),
    /// For the mix thread that owns the room concerned.
    Mix(Command),
    /// After [`Input::ShutDown`]: nothing is left to do.
    Stopped,
}

/// Why no socket was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketError {
    /// The range of this flag is used up.
    NoPort(&'static str),
    /// The system's words.
    System(String),
}

/// Media sockets are bound at once, since their addresses go into session descriptions.
pub trait Sockets {
    /// Binds a socket towards Galene and gives its addresses: host candidates, best first.
    ///
    /// # Errors
    /// No port or no socket is to be had.
    fn open_peer(&mut self, now: Instant, leg: LegKey) -> Result<Vec<SocketAddr>, SocketError>;

    /// Opens a connection to a TURN server by TCP, or by TLS if its certificate must show a name, for the socket of `leg`;
    /// gives the address of what stands for the server over UDP. It closes with the socket.
    ///
    /// # Errors
    /// No socket is to be had.
    fn open_turn_stream(
        &mut self,
        leg: LegKey,
        server: SocketAddr,
        tls_name: Option<&str>,
    ) -> Result<SocketAddr, SocketError>;

    /// Binds another pair in the place of that of `leg`, whose address is gone, where the way to `remote` begins, with the
    /// same port if it is free there; gives RTP's address.
    ///
    /// # Errors
    /// No way leads there, or no socket is to be had: all stays as it was.
    fn move_telephone(&mut self, leg: LegKey, port: u16, remote: IpAddr) -> Result<SocketAddr, SocketError>;

    /// Binds an RTP and RTCP pair at `ip` and gives RTP's address.
    ///
    /// # Errors
    /// No port or no socket is to be had.
    fn open_telephone(&mut self, now: Instant, leg: LegKey, ip: IpAddr) -> Result<SocketAddr, SocketError>;
}

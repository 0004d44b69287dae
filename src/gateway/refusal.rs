//! Why a call is turned away or ended, and the one mapping from that to a SIP status (RFC 3261 §21).
//!
//! 503 is kept for 'this gateway is full': a trunk that sees it may stop sending anything for a while.

use crate::galene::refusal::Refusal;
use crate::rtc::description::DescriptionError;
use crate::rtc::peer::PeerError;
use crate::sip::event::Rejection;

/// What went wrong with one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// Galene, or the way to it, said no.
    Galene(Refusal),
    /// Every place for a call, or for a call of its room, is taken.
    GatewayFull,
    /// This caller has as many calls as one may have.
    CallerFull,
    /// The machine carries as many calls as it can.
    Busy,
    /// No local port is left; the flag that widens the range.
    NoPort(&'static str),
    /// The system refuses a socket.
    Socket(String),
    /// The session description cannot be read.
    BadDescription(String),
    /// It offers no audio over RTP, plain or encrypted.
    NoAudio,
    /// It insists on encryption, which is off.
    SrtpOff,
    /// It offers none, which is required.
    SrtpRequired,
    /// Its keys came where anybody can read them, or ours would go there.
    KeysInClear,
    /// It insists on encryption, and none of its suites is one of ours.
    NoSrtpSuite,
    /// Its DTLS names its certificate by no hash that is safe.
    WeakFingerprint,
    /// The certificate that it shows in DTLS is another than the one that its description names.
    WrongCertificate,
    /// DTLS with it did not end within so many seconds.
    DtlsLate(u64),
    /// DTLS with it failed.
    Dtls(String),
    /// It offers audio, but neither PCMU nor PCMA.
    NoTelephoneCodec,
    /// Another telephone wants to take a call over that is not there, or by another address of ours.
    NoSuchCall,
    /// The group allows no codec that telephones can be bridged to.
    NoRoomCodec(String),
    /// Galene took the offer back: it does not let us speak.
    OfferAborted,
    /// No media path to Galene: ICE or DTLS failed.
    NoMedia(String),
    /// It took too long.
    TimedOut,
    /// Somebody in the room removed the caller, or the server shut down.
    Kicked {
        /// The server itself, not a person.
        by_server: bool,
        /// The reason given.
        message: String,
    },
    /// The connection to Galene is gone.
    Disconnected(String),
    /// The gateway shuts down.
    ShuttingDown,
}

impl CallFailure {
    /// One plain sentence that says what to do.
    pub fn explain(&self) -> String {
        match self {
            Self::Galene(refusal) => refusal.explain(),
            Self::GatewayFull => "every line of this gateway is taken: call again later".into(),
            Self::CallerFull => "this caller has as many calls here as -max-calls-per-caller allows".into(),
            Self::Busy => "the machine is at its limit, and one call more would spoil the others: call again later".into(),
            Self::NoPort(flag) => format!("no local port is free: widen {flag}"),
            Self::Socket(error) => format!("the system gives no socket: {error}"),
            Self::BadDescription(error) => format!("the telephone's session description cannot be read: {error}"),
            Self::NoAudio => {
                "the telephone offers no audio over RTP or SRTP: allow calls with sound there".into()
            }
            Self::SrtpOff => {
                "the telephone insists on encryption, which is off here: make it optional there, or use -sip-srtp optional"
                    .into()
            }
            Self::SrtpRequired => {
                "the telephone offers no encryption, which is required here: switch SRTP on at the telephone, with DTLS or SDES".into()
            }
            Self::KeysInClear => "the keys of the encryption could be read on the way: let the telephone call over TLS, or \
                                  use -sip-srtp-keys-in-clear"
                .into(),
            Self::NoSrtpSuite => {
                "the telephone offers no encryption that is known here: allow AES_CM_128_HMAC_SHA1_80 without MKI there".into()
            }
            Self::WeakFingerprint => {
                "the telephone's DTLS names its certificate by SHA-1 or by nothing: let it use a fingerprint by SHA-256".into()
            }
            Self::WrongCertificate => {
                "the telephone's certificate in DTLS is not the one that its description names: somebody may stand between"
                    .into()
            }
            Self::DtlsLate(seconds) => {
                format!("DTLS with the telephone did not end within {seconds} s: check that UDP passes both ways")
            }
            Self::Dtls(error) => {
                format!("DTLS with the telephone failed: {error}")
            }
            Self::NoTelephoneCodec => {
                "the telephone offers neither PCMU nor PCMA: allow G.711 (ulaw, alaw) on the telephone or PBX".into()
            }
            Self::NoSuchCall => "the call to be taken over is not there, or came in at another address".into(),
            Self::NoRoomCodec(error) => {
                format!("the group allows no codec for voices ({error}): add opus to the group's codecs")
            }
            Self::OfferAborted => {
                "Galene refuses the caller's voice: give this user the permission 'present' in the group's description"
                    .into()
            }
            Self::NoMedia(error) => {
                format!("no media path to Galene ({error}): check that UDP passes between this machine and Galene")
            }
            Self::TimedOut => "Galene took too long to answer: see whether the server is overloaded".into(),
            Self::Kicked { by_server: true, message } => format!("Galene ended the membership: {message}"),
            Self::Kicked { by_server: false, message } => format!("somebody in the room removed the caller: {message}"),
            Self::Disconnected(reason) => format!("the connection to Galene is gone: {reason}"),
            Self::ShuttingDown => "the gateway is shutting down".into(),
        }
    }

    /// The response to an INVITE that fails so.
    pub fn rejection(&self) -> Rejection {
        let (status, reason) = match self {
            Self::Galene(refusal) => Self::status_of(refusal),
            // Not 503: a trunk would keep every other caller away too.
            Self::CallerFull => (486, "Too Many Calls"),
            Self::GatewayFull | Self::Busy | Self::NoPort(_) | Self::Socket(_) => (503, "Gateway Full"),
            Self::BadDescription(_) => (400, "Bad Session Description"),
            Self::NoAudio | Self::NoTelephoneCodec | Self::NoRoomCodec(_) => (488, "Not Acceptable Here"),
            Self::NoSuchCall => (481, "No Such Call"),
            Self::SrtpOff | Self::SrtpRequired | Self::KeysInClear | Self::NoSrtpSuite | Self::WeakFingerprint => {
                (488, "Not Acceptable Here")
            }
            Self::WrongCertificate | Self::DtlsLate(_) | Self::Dtls(_) => (488, "No Encryption"),
            Self::OfferAborted => (403, "Not Allowed To Speak"),
            Self::NoMedia(_) | Self::TimedOut | Self::Disconnected(_) => (480, "Conference Unreachable"),
            Self::Kicked { by_server: true, .. } => (480, "Conference Closed"),
            Self::Kicked { by_server: false, .. } => (403, "Removed From Conference"),
            Self::ShuttingDown => (480, "Gateway Shutting Down"),
        };
        Rejection {
            status,
            reason: reason.into(),
            warning: Some(self.explain()),
            retry_after_s: (status == 503).then_some(60),
        }
    }

    const fn status_of(refusal: &Refusal) -> (u16, &'static str) {
        match refusal {
            Refusal::NotAuthorised { .. } | Refusal::DuplicateUsername { .. } => (403, "Conference Access Denied"),
            Refusal::NoPresent => (403, "Not Allowed To Speak"),
            Refusal::NoSuchGroup { .. } => (404, "No Such Conference"),
            Refusal::Locked(_) => (480, "Conference Locked"),
            Refusal::Full => (486, "Conference Full"),
            Refusal::Moved(_) => (480, "Conference Moved"),
            Refusal::Exhausted(_) => (503, "Gateway Full"),
            Refusal::Unreachable(_) | Refusal::Tls(_) | Refusal::Protocol(_) => (480, "Conference Unreachable"),
        }
    }
}

impl From<PeerError> for CallFailure {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Description(DescriptionError::NoCommonCodec(_) | DescriptionError::NoAudio) => {
                Self::NoRoomCodec(error.to_string())
            }
            PeerError::Description(DescriptionError::Malformed(_) | DescriptionError::Missing(_))
            | PeerError::OutOfTurn
            | PeerError::Setup
            | PeerError::NewCertificate => Self::Galene(Refusal::Protocol(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_gateway_answers_503() {
        let gone = CallFailure::Disconnected("reset".into());
        let unreachable = CallFailure::Galene(Refusal::Unreachable("connection refused".into()));
        assert_eq!(gone.rejection().status, 480);
        assert_eq!(unreachable.rejection().status, 480);
        assert_eq!(CallFailure::Galene(Refusal::Full).rejection().status, 486);
        assert_eq!(CallFailure::NoPort("-rtp-ports").rejection().status, 503);
        assert_eq!(CallFailure::Galene(Refusal::Exhausted("no descriptors".into())).rejection().status, 503);
        assert!(CallFailure::NoPort("-rtp-ports").explain().contains("-rtp-ports"));
    }
}

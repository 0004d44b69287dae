//! The telephone's side of a call in SDP: offer and answer (RFC 3264), hold and resume.
//!
//! Does not own: the formats (`formats`), the choice of the line by its encryption, and keys (`encryption`).
//!
//! One audio line is taken, all others are refused. A failed negotiation changes nothing.

use std::net::{IpAddr, SocketAddr};

use super::dtls_terms::DtlsTerms;
use super::encryption::{Choice, Encryption, Said};
use super::formats::Formats;
use super::refusal::CallFailure;
use crate::media::control::{LegKey, Protection, Telephone, TelephoneCodec, TelephoneRemote};
use crate::random::Random;
use crate::wire::address::is_private;
use crate::wire::sdp::{
    AudioDescription, Codec, Direction, ExtendedReportRequest, LocalAudio, LocalSession, SessionDescription,
};

/// Milliseconds of speech in a packet, ours and the ones we like to get.
const PTIME_MS: u16 = 20;

/// What offer and answer settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// For the mix thread.
    pub(super) telephone: Telephone,
    /// For the net thread.
    pub(super) remote: TelephoneRemote,
}

/// The telephone's RTP leg and its session description.
#[derive(Debug)]
pub(super) struct TelephoneLeg {
    pub(super) leg: LegKey,
    local: SocketAddr,
    /// Where its SIP comes from, if that is known.
    signalling_host: Option<IpAddr>,
    cname: String,
    formats: Formats,
    encryption: Encryption,
    session: LocalSession,
    settings: Settings,
    /// The telephone's last description, which fixes the order of the lines.
    theirs: Option<(SessionDescription, usize)>,
    local_description: String,
}

impl TelephoneLeg {
    /// A leg whose RTP socket is bound to `local` and shown at `address` to the telephone, whose SIP comes from
    /// `signalling_host`; nothing is negotiated.
    pub(super) fn new(
        leg: LegKey,
        local: SocketAddr,
        (address, signalling_host): (IpAddr, IpAddr),
        (formats, encryption): (Formats, Encryption),
        random: &mut Random,
    ) -> Self {
        // RFC 8866 §5.2 leaves the numbers to us; 31 bits suit every parser.
        let id = u64::from(random.next_u32() >> 1);
        Self {
            leg,
            local,
            signalling_host: Some(signalling_host.to_canonical()),
            cname: random.token(16),
            formats,
            encryption,
            session: LocalSession { id, version: id, address },
            settings: Settings::unsettled(),
            theirs: None,
            local_description: String::new(),
        }
    }

    /// The canonical name in RTCP.
    pub(super) fn cname(&self) -> &str {
        &self.cname
    }

    /// What was settled last.
    pub(super) const fn settings(&self) -> Settings {
        self.settings
    }

    /// What its packets are wrapped in, by what was settled last.
    pub(super) fn protection(&self) -> Protection {
        self.encryption.protection()
    }

    /// The DTLS association that was settled last.
    pub(super) const fn dtls(&self) -> Option<&DtlsTerms> {
        self.encryption.dtls()
    }

    /// Our last offer or answer.
    pub(super) fn local_description(&self) -> &[u8] {
        self.local_description.as_bytes()
    }

    /// Answers an offer.
    ///
    /// # Errors
    /// It cannot be read, or holds no audio that we speak; everything stays as it was.
    pub(super) fn answer(&mut self, offer: &[u8]) -> Result<(), CallFailure> {
        let theirs = parse(offer)?;
        let Choice { index, audio, way } = self.encryption.choose(&theirs)?;
        let settings = self.settle(audio)?;
        let codecs = self.formats.answer(&settings.telephone, audio);
        let said = self.encryption.answer(way);
        let ours = LocalAudio {
            direction: audio.direction.reversed(),
            has_rtcp_mux: settings.remote.rtcp_mux,
            // RFC 3611 §5.2: what we agree to, and, since the telephone can make such reports, what we would get from it.
            extended_reports: audio.extended_reports,
            ..self.audio(codecs, &audio.protocol, said)
        };
        self.session.version += 1;
        self.local_description = self.session.answer(&theirs, index, &ours);
        self.settings = settings;
        self.theirs = Some((theirs, index));
        Ok(())
    }

    /// Makes an offer, which [`Self::local_description`] gives: the first, or a new one in the call.
    pub(super) fn offer(&mut self) {
        let (protocol, said) = self.encryption.offer();
        let is_dtls = said.dtls.is_some();
        let audio = self.audio(self.formats.offer(), protocol, said);
        // Without it RTCP would need an association of its own (RFC 5764 §4.1.2).
        let audio = LocalAudio { has_rtcp_mux: is_dtls, extended_reports: self.wanted_reports(), ..audio };
        self.session.version += 1;
        self.local_description = match &self.theirs {
            None => self.session.offer(&audio),
            Some((theirs, index)) => self.session.offer_again(theirs, *index, &audio),
        };
    }

    /// Another telephone takes the place of this one: nothing is left of what was settled but our own end, which is
    /// shown at `address`. Its SIP comes from `signalling_host`.
    ///
    /// # Errors
    /// Its offer cannot be read, or holds no audio that we speak; everything stays as it was.
    pub(super) fn change_hands(
        &mut self,
        (address, signalling_host): (IpAddr, IpAddr),
        may_tell_keys: bool,
        offer: Option<&[u8]>,
    ) -> Result<(), CallFailure> {
        let another = self.encryption.for_another(may_tell_keys);
        let encryption = std::mem::replace(&mut self.encryption, another);
        let former = (std::mem::replace(&mut self.session.address, address), self.theirs.take());
        let former_host = self.signalling_host.replace(signalling_host.to_canonical());
        let settled = match offer {
            Some(offer) => self.answer(offer),
            None => {
                self.offer();
                Ok(())
            }
        };
        if settled.is_err() {
            (self.session.address, self.theirs) = former;
            self.signalling_host = former_host;
            self.encryption = encryption;
        }
        settled
    }

    /// The same end of ours for another telephone, to which it makes an offer.
    pub(super) fn for_another(&mut self, may_tell_keys: bool) -> Self {
        let mut another = Self {
            leg: self.leg,
            local: self.local,
            // Its answer comes by way of servers, as may be; who sends it is not asked.
            signalling_host: None,
            cname: self.cname.clone(),
            formats: self.formats.clone(),
            encryption: self.encryption.for_another(may_tell_keys),
            session: self.session.clone(),
            settings: self.settings,
            theirs: None,
            local_description: String::new(),
        };
        another.offer();
        another
    }

    /// Its socket is bound elsewhere, which is shown at `address`: [`Self::local_description`] is an offer that tells so.
    pub(super) fn move_to(&mut self, local: SocketAddr, address: IpAddr) {
        (self.local, self.session.address) = (local, address);
        self.offer();
    }

    /// The port that its socket is bound to.
    pub(super) const fn local_port(&self) -> u16 {
        self.local.port()
    }

    /// The address that its socket is bound to.
    pub(super) const fn local_ip(&self) -> IpAddr {
        self.local.ip()
    }

    /// Takes the telephone's answer to our offer.
    ///
    /// # Errors
    /// It cannot be read, or holds no audio that we speak; everything stays as it was.
    pub(super) fn take_answer(&mut self, answer: &[u8]) -> Result<(), CallFailure> {
        let theirs = parse(answer)?;
        let Choice { index, audio, way } = self.encryption.read_answer(&theirs)?;
        let settings = self.settle(audio)?;
        self.encryption.take_answer(way);
        self.settings = settings;
        self.theirs = Some((theirs, index));
        Ok(())
    }

    /// What the line that we take settles.
    fn settle(&self, audio: &AudioDescription) -> Result<Settings, CallFailure> {
        let chosen = self.formats.choose(audio).ok_or(CallFailure::NoTelephoneCodec)?;
        Ok(settle(audio, chosen, self.local, self.signalling_host))
    }

    /// Extended reports are not our wish, but where the telephone has asked once, it is asked too.
    fn wanted_reports(&self) -> ExtendedReportRequest {
        let line = self.theirs.as_ref().and_then(|(theirs, index)| theirs.audio_lines().find(|(at, _)| at == index));
        line.map_or_else(ExtendedReportRequest::default, |(_, audio)| audio.extended_reports)
    }

    fn audio(&self, codecs: Vec<Codec>, protocol: &str, said: Said) -> LocalAudio {
        LocalAudio {
            protocol: protocol.to_owned(),
            direction: Direction::SendRecv,
            ptime_ms: Some(PTIME_MS),
            crypto: said.crypto,
            dtls: said.dtls,
            ..LocalAudio::new(self.local.port(), codecs)
        }
    }
}

fn parse(description: &[u8]) -> Result<SessionDescription, CallFailure> {
    SessionDescription::parse(description).map_err(|error| CallFailure::BadDescription(error.to_string()))
}

impl Settings {
    /// Before any negotiation: the caller has a place in the mix, and no packet goes anywhere.
    const fn unsettled() -> Self {
        let telephone = Telephone::new(TelephoneCodec::Pcmu, 0);
        let clock_rate_hz = telephone.codec.clock_rate_hz();
        let remote = TelephoneRemote {
            rtp: None,
            rtcp: None,
            rtcp_mux: false,
            payload_type: 0,
            clock_rate_hz,
            signalling_host: None,
            has_claim: false,
            is_expected: false,
            asks_metrics: false,
        };
        Self { telephone, remote }
    }
}

/// Takes what `chosen` says of the format, the rest from the line.
fn settle(audio: &AudioDescription, chosen: Telephone, local: SocketAddr, signalling_host: Option<IpAddr>) -> Settings {
    let longest = audio.maxptime_ms.unwrap_or(u16::MAX);
    let wanted = audio.ptime_ms.filter(|ms| [10, 20, 30, 40, 60].contains(ms)).unwrap_or(PTIME_MS);
    // A host name in c= is not looked up: the voice goes to where the telephone's packets come from.
    let address = audio.address().filter(|ip| ip.is_ipv4() == local.is_ipv4());
    let rtcp_address = audio.rtcp_host.as_ref().and_then(|host| host.address()).or(address);
    let rtcp_port = audio.rtcp_port_or_default();
    Settings {
        telephone: Telephone {
            ptime_ms: u8::try_from(wanted.min(longest)).unwrap_or(PTIME_MS as u8),
            sends: audio.direction.receives(),
            receives: audio.direction.sends(),
            asks_metrics: audio.extended_reports.voip_metrics,
            ..chosen
        },
        remote: TelephoneRemote {
            rtp: address.map(|ip| SocketAddr::new(ip, audio.port)),
            rtcp: rtcp_address.filter(|_| rtcp_port != 0).map(|ip| SocketAddr::new(ip, rtcp_port)),
            rtcp_mux: audio.has_rtcp_mux,
            payload_type: chosen.receive_payload_type,
            clock_rate_hz: chosen.codec.clock_rate_hz(),
            signalling_host,
            has_claim: address.is_some_and(|ip| !is_private(ip) || signalling_host.is_some_and(is_private)),
            is_expected: audio.direction.sends(),
            asks_metrics: audio.extended_reports.voip_metrics,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SipCodec, SrtpPolicy};

    fn leg() -> TelephoneLeg {
        speaking(None)
    }

    fn speaking(codecs: Option<&[SipCodec]>) -> TelephoneLeg {
        let local: SocketAddr = "192.0.2.9:20000".parse().unwrap();
        let encryption = Encryption::new(SrtpPolicy::Optional, true, String::new(), Random::for_test(2));
        TelephoneLeg::new(
            LegKey(1),
            local,
            (local.ip(), "192.0.2.1".parse().unwrap()),
            (Formats::new(codecs), encryption),
            &mut Random::for_test(1),
        )
    }

    fn offer(lines: &str) -> Vec<u8> {
        format!(
            "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n{}",
            lines.replace('\n', "\r\n")
        )
        .into_bytes()
    }

    fn text(leg: &TelephoneLeg) -> &str {
        std::str::from_utf8(leg.local_description()).unwrap()
    }

    #[test]
    fn the_first_audio_line_is_answered_and_the_rest_refused() {
        let mut leg = leg();
        leg.answer(&offer("m=video 4000 RTP/AVP 96\nm=audio 4002 RTP/AVP 18 8 0 97\na=rtpmap:97 telephone-event/8000\nm=audio 4004 RTP/AVP 0\n"))
            .unwrap();
        let text = text(&leg);
        assert!(
            text.contains("m=video 0 ")
                && text.contains("m=audio 20000 RTP/AVP 8 97\r\n")
                && text.contains("m=audio 0 ")
        );
        let settings = leg.settings();
        assert_eq!((settings.telephone.codec, settings.telephone.send_payload_type), (TelephoneCodec::Pcma, 8));
        assert_eq!(settings.remote.rtp, Some("192.0.2.1:4002".parse().unwrap()));
        assert_eq!(settings.remote.rtcp, Some("192.0.2.1:4003".parse().unwrap()));
    }

    #[test]
    fn whoever_asks_for_extended_reports_is_promised_them_and_asked_too() {
        let mut leg = leg();
        leg.answer(&offer("m=audio 4002 RTP/AVP 0\na=rtcp-xr:stat-summary=loss rcvr-rtt=all:10 voip-metrics\n"))
            .unwrap();
        assert!(text(&leg).contains("\r\na=rtcp-xr:rcvr-rtt=all voip-metrics\r\n"), "{}", text(&leg));
        let settings = leg.settings();
        assert!(settings.telephone.asks_metrics && settings.remote.asks_metrics);
        leg.offer();
        assert!(text(&leg).contains("a=rtcp-xr:rcvr-rtt=all voip-metrics"), "{}", text(&leg));
        leg.answer(&offer("m=audio 4002 RTP/AVP 0\n")).unwrap();
        assert!(!text(&leg).contains("rtcp-xr") && !leg.settings().remote.asks_metrics);
    }

    #[test]
    fn dynamic_payload_numbers_are_kept() {
        let mut leg = leg();
        leg.answer(&offer("m=audio 4002 RTP/AVP 100\na=rtpmap:100 pcmu/8000\na=ptime:30\n")).unwrap();
        assert_eq!((leg.settings().telephone.receive_payload_type, leg.settings().telephone.ptime_ms), (100, 30));
        assert!(text(&leg).contains("a=rtpmap:100 PCMU/8000"));
    }

    const HD: &str = "m=audio 4002 RTP/AVP 8 9 96 101\na=rtpmap:96 opus/48000/2\na=rtpmap:101 telephone-event/8000\n";

    #[test]
    fn the_offers_order_counts_unless_the_operator_has_one() {
        use SipCodec::{G722, Opus, Pcma, Pcmu};
        for (codecs, taken, line) in [
            (None, TelephoneCodec::Pcma, "RTP/AVP 8 101\r\n"),
            (Some(&[Opus, Pcma][..]), TelephoneCodec::Opus, "RTP/AVP 96 101\r\na=rtpmap:96 opus/48000/2\r\n"),
            (Some(&[G722]), TelephoneCodec::G722, "RTP/AVP 9 101\r\na=rtpmap:9 G722/8000\r\n"),
        ] {
            let mut leg = speaking(codecs);
            leg.answer(&offer(HD)).unwrap();
            assert_eq!(leg.settings().telephone.codec, taken);
            assert!(text(&leg).contains(line), "{}", text(&leg));
        }
        assert_eq!(speaking(Some(&[Pcmu])).answer(&offer(HD)), Err(CallFailure::NoTelephoneCodec));
    }

    #[test]
    fn the_clock_of_g722_is_8_khz_and_opus_has_two_channels_or_they_are_others() {
        let strange =
            "m=audio 4002 RTP/AVP 96 97 98\na=rtpmap:96 G722/16000\na=rtpmap:97 opus/16000\na=rtpmap:98 opus/48000\n";
        assert_eq!(leg().answer(&offer(strange)), Err(CallFailure::NoTelephoneCodec));
        let mut leg = speaking(Some(&[SipCodec::Opus]));
        leg.answer(&offer(HD)).unwrap();
        assert!(text(&leg).contains("a=fmtp:96 minptime=10;") && text(&leg).contains(";stereo=0;"));
        assert_eq!((leg.settings().remote.clock_rate_hz, leg.settings().telephone.receive_payload_type), (48_000, 96));
    }

    #[test]
    fn hold_is_the_direction_reversed_and_a_failure_changes_nothing() {
        let mut leg = leg();
        leg.answer(&offer("m=audio 4002 RTP/AVP 0\n")).unwrap();
        leg.answer(&offer("m=audio 4002 RTP/AVP 0\na=sendonly\n")).unwrap();
        assert!(text(&leg).contains("a=recvonly"));
        assert!(!leg.settings().telephone.sends && leg.settings().telephone.receives);
        let before = (leg.settings(), text(&leg).to_owned());
        assert_eq!(leg.answer(&offer("m=audio 0 RTP/AVP 0\n")), Err(CallFailure::NoAudio));
        assert_eq!(leg.answer(&offer("m=audio 4002 RTP/AVP 18\n")), Err(CallFailure::NoTelephoneCodec));
        assert_eq!(before, (leg.settings(), text(&leg).to_owned()));
    }

    #[test]
    fn an_old_hold_with_a_null_address_stops_us_until_the_resume() {
        let mut leg = leg();
        leg.answer(&offer("m=audio 4002 RTP/AVP 0\nc=IN IP4 0.0.0.0\n")).unwrap();
        assert!(!leg.settings().telephone.sends && leg.settings().remote.rtp.is_none());
    }

    #[test]
    fn a_private_address_that_comes_from_a_public_one_has_no_claim() {
        let mut leg = leg();
        let claims = |leg: &mut TelephoneLeg, address: &str| {
            leg.answer(&offer(&format!("m=audio 4002 RTP/AVP 0\nc=IN IP4 {address}\n"))).unwrap();
            leg.settings().remote.has_claim
        };
        assert_eq!(["192.0.2.7", "10.0.0.7", "0.0.0.0"].map(|address| claims(&mut leg, address)), [true, false, false]);
        leg.signalling_host = Some("192.168.1.5".parse().unwrap());
        assert_eq!(["192.0.2.7", "10.0.0.7", "0.0.0.0"].map(|address| claims(&mut leg, address)), [true, true, false]);
    }

    #[test]
    fn without_an_offer_we_offer_and_the_answer_settles_it() {
        let mut leg = leg();
        leg.offer();
        assert!(text(&leg).contains("m=audio 20000 RTP/AVP 111 9 0 8 101\r\n"));
        assert_eq!(leg.protection(), Protection::Awaited);
        leg.take_answer(&offer("m=audio 5000 RTP/AVP 8 101\na=rtpmap:101 telephone-event/8000\n")).unwrap();
        assert_eq!((leg.settings().telephone.codec, leg.protection()), (TelephoneCodec::Pcma, Protection::Plain));
    }

    #[test]
    fn an_encrypted_line_is_answered_with_a_key_of_our_own_and_a_failure_keeps_the_one_in_use() {
        let mut leg = leg();
        let key = "a=crypto:7 AES_CM_128_HMAC_SHA1_80 inline:PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR\n";
        leg.answer(&offer(&format!("m=audio 4000 RTP/AVP 0\nm=audio 4002 RTP/SAVP 0\n{key}"))).unwrap();
        let text = text(&leg).to_owned();
        assert!(text.contains("m=audio 0 RTP/AVP 0\r\nm=audio 20000 RTP/SAVP 0\r\n"), "{text}");
        assert!(
            text.contains("a=crypto:7 AES_CM_128_HMAC_SHA1_80 inline:") && !text.contains("PS1uQCVeeCFCan"),
            "{text}"
        );
        let in_use = leg.protection();
        let other = key.replace("PS1u", "AAAA");
        assert_eq!(
            leg.answer(&offer(&format!("m=audio 4002 RTP/SAVP 18\n{other}"))),
            Err(CallFailure::NoTelephoneCodec)
        );
        assert_eq!(leg.protection(), in_use);
        leg.answer(&offer(&format!("m=audio 4002 RTP/SAVP 0\n{other}"))).unwrap();
        assert_ne!(leg.protection(), in_use);
    }

    #[test]
    fn every_new_description_has_a_higher_version() {
        let mut leg = leg();
        leg.offer();
        let first = text(&leg).lines().nth(1).unwrap().to_owned();
        leg.offer();
        assert_ne!(first, text(&leg).lines().nth(1).unwrap());
    }
}

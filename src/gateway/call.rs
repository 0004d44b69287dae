//! One call: a SIP dialog on one side, a membership of a Galene group on the other, and the media between them.

use std::net::SocketAddr;
use std::time::Duration;

use super::association::Association;
use super::desk::{Desk, LegOwner};
use super::event::{Output, Sockets};
use super::member::Member;
use super::peer_leg::{PeerLeg, PeerNews};
use super::refusal::CallFailure;
use super::restoration::Restoration;
use super::room::Room;
use super::statistics::Ending;
use super::telephone::TelephoneLeg;
use crate::galene::client::Joined;
use crate::galene::name::WantedName;
use crate::media::control::{
    Caller, CallerKey, CallerSetup, Command, DtlsSource, KeyPress, Line, NetCommand, PeerRole, Protection, RoomCodec,
    RoomKey, Telephone, TelephoneRemote, TelephoneSetup, Up, UpSetup,
};
use crate::rtc::dtls::DtlsRole;
use crate::sip::event::CallKey;
use crate::time::{Deadline, Instant};

/// From INVITE to 200 at most: callers hang up after about half a minute of ringing.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// From joining to early media: a call that is not answered by then finds its way to Galene by a relay or not at all. Its
/// caller hears the room meanwhile instead of a ringing tone.
const EARLY_MEDIA_AFTER: Duration = Duration::from_secs(1);

/// How often a stream that lost its media path is offered again before the call ends.
const MAX_OFFERS: u32 = 4;

/// A caller's stream to Galene.
pub(super) struct UpStream {
    pub(super) id: String,
    pub(super) link: PeerLeg,
    payload_type: u8,
    ssrc: u32,
    connected: bool,
}

/// A call from its INVITE to its end.
pub(super) struct Call {
    pub(super) key: CallKey,
    pub(super) caller: CallerKey,
    /// For log lines: number and name as the telephone showed them.
    pub(super) title: String,
    /// The caller's address, as written.
    pub(super) uri: String,
    pub(super) member: Member,
    /// What it asks to be called in the group.
    pub(super) name: WantedName,
    /// While the membership is lost and another one is sought.
    pub(super) restoration: Option<Restoration>,
    pub(super) telephone: TelephoneLeg,
    /// DTLS with the telephone, from the answer on.
    association: Option<Association>,
    /// What the target of a transfer is offered.
    pub(super) next_telephone: Option<TelephoneLeg>,
    /// Where the caller is, from `joined` on.
    pub(super) room: Option<(String, RoomKey)>,
    pub(super) up: Option<UpStream>,
    pub(super) answered: bool,
    /// The address of ours that the telephone sends to is gone.
    pub(super) is_stranded: bool,
    answered_at: Option<Instant>,
    /// The caller speaks.
    pub(super) talks: bool,
    /// When the caller is to hear the room before the answer; `None` before it has joined, and once it hears it.
    early_media_at: Option<Instant>,
    /// What the mix was told of the telephone.
    in_mix: Telephone,
    /// What the net thread was told of its encryption.
    in_net: Protection,
    invited_at: Instant,
    /// Since the last one that connected.
    offers: u32,
}

impl Call {
    pub(super) fn new(
        now: Instant,
        caller: CallerKey,
        (title, uri): (String, String),
        (member, name): (Member, WantedName),
        telephone: TelephoneLeg,
    ) -> Self {
        Self {
            key: member.key.call,
            caller,
            title,
            uri,
            member,
            name,
            restoration: None,
            in_mix: telephone.settings().telephone,
            in_net: telephone.protection(),
            telephone,
            association: None,
            next_telephone: None,
            room: None,
            up: None,
            answered: false,
            is_stranded: false,
            answered_at: None,
            talks: false,
            early_media_at: None,
            invited_at: now,
            offers: 0,
        }
    }

    /// Galene let the caller in: its place in the mix, its sockets in the net thread, its voice on offer.
    pub(super) fn on_joined<S: Sockets>(
        &mut self,
        now: Instant,
        desk: &mut Desk<S>,
        room: &mut Room,
        joined: &Joined,
    ) -> Result<(), CallFailure> {
        tracing::info!("{}: joined {} as '{}'", self.title, room.name, joined.username);
        self.room = Some((room.name.clone(), room.key));
        self.early_media_at = (!self.answered).then(|| now + EARLY_MEDIA_AFTER);
        room.callers.insert(self.key);
        let ssrc = desk.random.next_u32();
        let telephone = self.telephone.settings().telephone;
        self.in_mix = telephone;
        let caller = Caller::new(&CallerSetup {
            key: self.caller,
            leg: self.telephone.leg,
            telephone,
            ssrc,
            // Not above half, so that the first packets' loss does not mislead about a wrap (RFC 3711 §3.3.1).
            first_sequence: desk.random.next_u32() as u16 >> 1,
            first_timestamp: desk.random.next_u32(),
            agc: desk.config.agc,
        })
        .map_err(no_codec)?;
        desk.mix(Command::AddCaller { room: room.key, caller: Box::new(caller) });
        self.in_net = self.protection();
        let setup = TelephoneSetup {
            leg: self.telephone.leg,
            room: room.key,
            caller: self.caller,
            ssrc,
            cname: self.telephone.cname().to_owned(),
            remote: self.remote(),
            protection: self.in_net.clone(),
        };
        desk.outputs.push_back(Output::AddTelephone(setup));
        if !joined.permissions.present {
            return Err(CallFailure::Galene(crate::galene::refusal::Refusal::NoPresent));
        }
        self.publish(now, desk, room.key)?;
        if room.listens().is_none() {
            room.listen(now, self.key, &mut self.member.client);
        }
        Ok(())
    }

    /// Offers the caller's voice to Galene.
    pub(super) fn publish<S: Sockets>(
        &mut self,
        now: Instant,
        desk: &mut Desk<S>,
        room: RoomKey,
    ) -> Result<(), CallFailure> {
        self.unpublish(now, desk);
        self.offers += 1;
        let mut link = PeerLeg::open(now, desk, LegOwner::Up(self.key))?;
        let sdp = link.peer.offer(now);
        let ssrc = link.peer.voice().ssrc;
        link.add_to_net(desk, room, PeerRole::Up { caller: self.caller, ssrc });
        let id = self.member.client.new_stream_id();
        desk.own_ids.insert(id.clone(), None);
        self.member.client.send_offer(now, &id, "camera", &sdp);
        self.up = Some(UpStream { id, link, payload_type: 0, ssrc, connected: false });
        Ok(())
    }

    /// Takes the caller's voice off the air, in Galene and in the local mix.
    pub(super) fn unpublish<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>) {
        let Some(up) = self.up.take() else { return };
        if self.room.is_some() {
            desk.mix(Command::SetPresent { caller: self.caller, present: false });
            desk.mix(Command::SetUp { caller: self.caller, up: None });
        }
        up.link.close(now, desk);
        desk.keep_ghost(now, &up.id);
        self.member.client.close(now, &up.id);
    }

    /// Galene answered the offer of stream `id`.
    pub(super) fn on_answer(&mut self, now: Instant, id: &str, sdp: &str) -> Result<(), CallFailure> {
        let Some(up) = self.up.as_mut().filter(|up| up.id == id) else { return Ok(()) };
        let negotiated = up.link.peer.handle_answer(now, sdp).map_err(CallFailure::from)?;
        let (payload_type, codec) = super::codec::of_answer(&negotiated);
        up.payload_type = payload_type;
        up.link.codec = Some(codec);
        Ok(())
    }

    /// Galene wants a new offer of stream `id` with an ICE restart.
    pub(super) fn on_renegotiate<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>, id: &str) {
        if self.up.as_ref().is_some_and(|up| up.id == id) {
            self.restart_up(now, desk);
        }
    }

    /// Another offer of the up stream, with an ICE restart.
    fn restart_up<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>) {
        let Some(up) = &mut self.up else { return };
        let sdp = up.link.peer.offer(now);
        up.link.renew_credentials(desk);
        self.member.client.send_offer(now, &up.id, "camera", &sdp);
    }

    /// Drives the up stream's peer connection; true when the call is to be answered now.
    pub(super) fn poll_up<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>) -> Result<bool, CallFailure> {
        let Some((_, room)) = self.room else { return Ok(false) };
        while let Some(news) = self.up.as_mut().and_then(|up| up.link.poll(now, desk)) {
            match news {
                PeerNews::Connected => {
                    self.on_air(desk)?;
                    if !self.answered {
                        return Ok(true);
                    }
                }
                PeerNews::Candidate(candidate) => {
                    if let Some(up) = &self.up {
                        self.member.client.send_candidate(now, &up.id, &candidate);
                    }
                }
                PeerNews::Doubtful => self.restart_up(now, desk),
                PeerNews::Failed(failure) if !self.answered || self.offers >= MAX_OFFERS => {
                    return Err(CallFailure::NoMedia(failure.to_string()));
                }
                PeerNews::Failed(failure) => {
                    tracing::warn!("{}: the way to Galene failed ({failure}); trying again", self.title);
                    self.publish(now, desk, room)?;
                }
            }
        }
        Ok(false)
    }

    /// The up stream is connected: the caller can be heard, in Galene and by other callers here.
    fn on_air<S: Sockets>(&mut self, desk: &mut Desk<S>) -> Result<(), CallFailure> {
        let Some(up) = self.up.as_mut().filter(|up| !up.connected) else { return Ok(()) };
        up.connected = true;
        self.offers = 0;
        self.set_up(desk)?;
        desk.mix(Command::SetPresent { caller: self.caller, present: true });
        Ok(())
    }

    /// Gives the mix what sends the telephone's speech up, for the codec that it has now.
    fn set_up<S: Sockets>(&self, desk: &mut Desk<S>) -> Result<(), CallFailure> {
        let Some(up) = self.up.as_ref().filter(|up| up.connected) else { return Ok(()) };
        let setup = UpSetup {
            leg: up.link.leg,
            telephone: self.in_mix.codec,
            codec: up.link.codec.unwrap_or(RoomCodec::Opus),
            payload_type: up.payload_type,
            ssrc: up.ssrc,
            first_sequence: desk.random.next_u32() as u16,
            first_timestamp: desk.random.next_u32(),
        };
        let up = Up::new(&setup).map_err(no_codec)?;
        desk.mix(Command::SetUp { caller: self.caller, up: Some(Box::new(up)) });
        Ok(())
    }

    /// The 200, with voices both ways from now on.
    pub(super) fn answer<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>) {
        self.answered = true;
        self.answered_at = Some(now);
        self.early_media_at = None;
        let sdp = self.telephone.local_description().to_owned();
        desk.sip.answer(now, self.key, sdp);
        desk.mix(Command::StartTelephone(self.caller));
        desk.net(NetCommand::UpdateTelephone { leg: self.telephone.leg, remote: self.remote() });
        self.associate(now, desk);
        let after_ms = now.saturating_since(self.invited_at).as_millis();
        let encrypted = match &self.in_net {
            Protection::Plain => String::new(),
            Protection::Awaited if self.association.is_some() => ", to be encrypted by DTLS".into(),
            Protection::Awaited => ", encrypted if its telephone agrees".into(),
            Protection::Srtp(keys) => format!(", encrypted ({:?})", keys.local.profile),
        };
        tracing::info!("{}: answered after {after_ms} ms{encrypted}", self.title);
    }

    /// 183, and the room's voices down, if the answer is long in coming.
    pub(super) fn progress<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>) {
        // With DTLS the room cannot be heard before its handshake, which begins with the answer; its ringing tone can.
        if self.early_media_at.take_if(|at| now >= *at).is_none() || self.telephone.dtls().is_some() {
            return;
        }
        let sdp = self.telephone.local_description().to_owned();
        desk.sip.progress(now, self.key, sdp);
        desk.mix(Command::StartTelephone(self.caller));
        tracing::debug!("{}: early media", self.title);
    }

    /// Whether the telephone sends without listening, in a call that began otherwise: it has put us on hold, and what
    /// it sends is music.
    const fn is_on_hold(&self) -> bool {
        let telephone = self.telephone.settings().telephone;
        self.answered && telephone.receives && !telephone.sends
    }

    /// Where the telephone is. Before the answer it has no reason to send.
    const fn remote(&self) -> TelephoneRemote {
        let remote = self.telephone.settings().remote;
        TelephoneRemote { is_expected: remote.is_expected && self.answered, ..remote }
    }

    /// What the net thread is to wrap the telephone's packets in.
    fn protection(&self) -> Protection {
        let association = self.association.as_ref().zip(self.telephone.dtls());
        match association.filter(|(association, terms)| association.is_of(terms)) {
            Some((association, _)) => association.protection(),
            None => self.telephone.protection(),
        }
    }

    /// Begins the DTLS association that is agreed on, unless it is the one there is; ends one that no longer is.
    fn associate<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>) {
        let (leg, signalled) = (self.telephone.leg, self.telephone.settings().remote.rtp);
        let Some(terms) = self.telephone.dtls() else {
            if self.association.take().is_some() {
                desk.net(NetCommand::ExpectTelephoneDtls { leg, source: None });
            }
            return;
        };
        if let Some(association) = self.association.as_mut().filter(|association| association.is_of(terms)) {
            return association.move_to(signalled);
        }
        // Who begins sends to the address of the description, and is answered from there; who is begun with may learn another.
        let source = match terms.role {
            DtlsRole::Client => DtlsSource::Signalled,
            DtlsRole::Server => DtlsSource::Anywhere,
        };
        desk.net(NetCommand::ExpectTelephoneDtls { leg, source: Some(source) });
        self.association = Some(Association::begin(now, &desk.identity, leg, terms.clone(), signalled));
        tracing::debug!("{}: DTLS begins, we are {:?}", self.title, terms.role);
    }

    /// A DTLS datagram from the telephone.
    pub(super) fn on_telephone_dtls(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        if let Some(association) = &mut self.association {
            association.handle_input(now, from, bytes);
        }
    }

    /// Drives DTLS with the telephone; true if there was news of it.
    pub(super) fn poll_association<S: Sockets>(
        &mut self,
        now: Instant,
        desk: &mut Desk<S>,
    ) -> Result<bool, CallFailure> {
        let Some(secured) = self.association.as_mut().and_then(|association| association.poll(now, desk)) else {
            return Ok(false);
        };
        let profile = secured?;
        tracing::info!("{}: encrypted by DTLS ({profile:?})", self.title);
        self.protect(desk);
        Ok(true)
    }

    /// Tells the net thread of new keys, or of their end.
    fn protect<S: Sockets>(&mut self, desk: &mut Desk<S>) {
        let protection = self.protection();
        if protection != self.in_net {
            self.in_net = protection.clone();
            desk.net(NetCommand::SetTelephoneProtection { leg: self.telephone.leg, protection });
        }
    }

    /// SDP settled codec, direction, address or keys anew: both threads must know. Music on hold is not for the room.
    pub(super) fn apply_telephone<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>) -> Result<(), CallFailure> {
        if self.room.is_none() {
            return Ok(());
        }
        let settings = self.telephone.settings();
        let receives = settings.telephone.receives && !self.is_on_hold();
        let telephone = Telephone { receives, ..settings.telephone };
        let former = std::mem::replace(&mut self.in_mix, telephone);
        let needs_line = !telephone.shares_line_with(&former);
        let line = if needs_line { Some(Box::new(Line::new(&telephone).map_err(no_codec)?)) } else { None };
        desk.mix(Command::SetTelephone { caller: self.caller, telephone, line });
        if needs_line {
            self.set_up(desk)?;
        }
        let leg = self.telephone.leg;
        desk.net(NetCommand::UpdateTelephone { leg, remote: self.remote() });
        if self.answered {
            self.associate(now, desk);
        }
        self.protect(desk);
        Ok(())
    }

    /// The caller pressed a key, in whichever form it came.
    pub(super) fn on_key(&self, press: &KeyPress) {
        tracing::debug!("{}: key {} for {} ms ({:?})", self.title, press.key, press.duration_ms, press.form);
    }

    /// The telephone has hung up and another is being called: no sound goes either way.
    pub(super) fn silence_telephone<S: Sockets>(&self, desk: &mut Desk<S>) {
        let telephone = Telephone { sends: false, receives: false, ..self.telephone.settings().telephone };
        desk.mix(Command::SetTelephone { caller: self.caller, telephone, line: None });
    }

    /// What is to be told of the call when it is over; nothing of one that was never answered.
    pub(super) fn ending(&self, now: Instant) -> Option<Ending> {
        Some(Ending {
            title: self.title.clone(),
            leg: self.telephone.leg,
            caller: self.caller,
            codec: self.telephone.settings().telephone.codec,
            duration: now.saturating_since(self.answered_at?),
        })
    }

    /// Gives back everything that the call held outside itself, but for its membership.
    pub(super) fn release<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>) {
        self.unpublish(now, desk);
        desk.close_leg(self.telephone.leg);
        if self.room.is_some() {
            desk.mix(Command::RemoveCaller(self.caller));
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.member.client.handle_timeout(now);
        if let Some(up) = &mut self.up {
            up.link.peer.handle_timeout(now);
        }
        if let Some(association) = &mut self.association {
            association.handle_timeout(now);
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Deadline> {
        let up = self.up.as_ref().and_then(|up| up.link.peer.next_timeout());
        let answer = (!self.answered).then(|| Deadline::new(self.answer_by(), "answer the call"));
        let early = self.early_media_at.map(|at| Deadline::new(at, "early media"));
        let dtls = self.association.as_ref().and_then(Association::next_timeout);
        let rejoin = self.restoration.as_ref().and_then(Restoration::next_timeout);
        crate::time::earliest([self.member.client.next_timeout(), up, answer, early, dtls, rejoin])
    }

    /// What an unanswered call waits for.
    pub(super) fn why_late(&self) -> CallFailure {
        match &self.up {
            Some(up) if up.link.codec.is_some() => CallFailure::NoMedia("none was found in time".into()),
            Some(_) | None => CallFailure::TimedOut,
        }
    }

    /// When an unanswered call is given up.
    pub(super) fn answer_by(&self) -> Instant {
        self.invited_at + ANSWER_WITHIN
    }
}

/// A codec could not be built.
fn no_codec(error: impl ToString) -> CallFailure {
    CallFailure::NoMedia(error.to_string())
}

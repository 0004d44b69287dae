//! One telephone in the mix: its speech up and to its neighbours, the room's sound down.
//!
//! Owns: what happens to a packet of the telephone (order, decoding, concealment, voice activity) and who gets the result;
//! whether it takes part (present, muted, on hold). Does not own: the sum (`room`), the up stream's timeline (`up`), the
//! packets down (`down`).

use super::agc::Agc;
use super::control::{CallerKey, CallerSetup, CallerStats, Heard, LegKey, MixEvent, Telephone, Up};
use super::down::{Down, EncodedTick, Renderer, encode, packet_ms};
use super::engine::Sink;
use super::g711::Law;
use super::gate::Gate;
use super::levels::Levels;
use super::line::{Line, MAX_PACKET_SAMPLES, Sound, Wide, law};
use super::line_noise::LineNoise;
use super::local_queue::LocalQueue;
use super::mixer::{Bus, BusFrame, SILENCE};
use super::opus::OpusError;
use super::reorder::{Pushed, Release};
use super::talking::{Change, Talking};
use super::telephone_event::TelephoneEvents;
use super::tones::Tones;
use super::up::FRAME_SAMPLES;
use super::vad::Verdict;
use crate::time::{Deadline, Instant};
use crate::wire::rtp::{RtpHeader, RtpPacket};

/// Without a sample above this (−72 dBFS) a caller adds nothing to what others hear: A-law's own silence is ±8.
const NOTHING_PEAK: u16 = 8;

/// The softest comfort noise that its neighbours hear: the gate's threshold.
const LOUD_NOISE_DBOV: u8 = 45;

/// A gain that nobody hears: the room gets the telephone's own packets.
const INAUDIBLE_DB: f32 = 1.0;

/// Ticks between two accounts for its extended reports: they are at most a second old, the last one too.
const ACCOUNT_TICKS: u8 = 50;

/// What a piece of sound was made from.
#[derive(Clone, Copy, Debug)]
enum Coded<'a> {
    /// An Opus packet, which a room of Opus can have as it is.
    Opus(&'a [u8]),
    /// Nothing came, so it is made up.
    Lost,
    /// Another codec.
    Otherwise,
}

/// Does the caller add anything to the bus in this tick?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnVoice {
    /// Its frame is in the sum, so it must not hear itself.
    Contributes,
    /// It hears what everyone hears.
    Silent,
}

impl OwnVoice {
    /// What of the sum is its `own` frame's.
    const fn part(self, own: &BusFrame) -> &BusFrame {
        match self {
            Self::Contributes => own,
            Self::Silent => &SILENCE,
        }
    }
}

/// One telephone. Built by signalling, with all it will need until its call ends.
#[derive(Debug)]
pub struct Caller {
    key: CallerKey,
    leg: LegKey,
    telephone: Telephone,
    line: Box<Line>,
    /// The telephone's present source: packets of other payload types count in its sequence only.
    ssrc: Option<u32>,
    speech: Speech,
    down: Down,
    events: TelephoneEvents,
    /// 200 sent: the telephone gets continuous RTP.
    started: bool,
    own: BusFrame,
    own_voice: OwnVoice,
    /// The room is not there for it: it hears the sign of that alone.
    waiting: bool,
    /// What it loses of what it is sent, of a hundred packets.
    down_loss_percent: u8,
    /// Until the next account for its extended reports.
    account_in_ticks: u8,
    /// Its own chain, while what it hears is not what everyone hears.
    apart: Option<Renderer>,
}

/// What is done with the telephone's sound once it is in order.
#[derive(Debug)]
struct Speech {
    talking: Talking,
    levels: Levels,
    /// `None` is `-no-agc`.
    agc: Option<Agc>,
    gate: Gate,
    /// Keys in the sound.
    tones: Tones,
    /// They are looked for.
    has_tones: bool,
    /// What the telephone's silence sounds like, while it lasts.
    noise: Option<LineNoise>,
    up: Option<Box<Up>>,
    /// Galene carries the stream, so local callers may hear it too.
    present: bool,
    muted: bool,
    stats: CallerStats,
}

impl Caller {
    /// A caller that is silent, absent, and sends nothing until told to.
    ///
    /// # Errors
    /// libopus has no memory.
    pub fn new(setup: &CallerSetup) -> Result<Self, OpusError> {
        let telephone = setup.telephone;
        Ok(Self {
            key: setup.key,
            leg: setup.leg,
            telephone,
            line: Box::new(Line::new(&telephone)?),
            ssrc: None,
            speech: Speech {
                talking: Talking::new(),
                levels: Levels::default(),
                agc: setup.agc.then(Agc::new),
                gate: Gate::new(),
                tones: Tones::new(),
                has_tones: telephone.events.is_none(),
                noise: None,
                up: None,
                present: false,
                muted: false,
                stats: CallerStats::default(),
            },
            down: Down::new(setup.leg, setup.ssrc, setup.first_sequence, setup.first_timestamp),
            events: TelephoneEvents::new(),
            started: false,
            own: SILENCE,
            own_voice: OwnVoice::Silent,
            waiting: false,
            down_loss_percent: 0,
            account_in_ticks: ACCOUNT_TICKS,
            apart: None,
        })
    }

    /// Its name.
    pub const fn key(&self) -> CallerKey {
        self.key
    }

    /// Its sockets in the net thread.
    pub const fn leg(&self) -> LegKey {
        self.leg
    }

    /// What happened to its packets so far.
    pub fn stats(&self) -> CallerStats {
        let Sound { local, .. } = &self.line.sound;
        let (scaled, samples_a_ms) = (local.scaled(), self.line.sound.rate_hz() / 1000);
        CallerStats {
            target_ms: local.target_us() as u32 / 1000,
            shortened_ms: scaled.shortened as u32 / samples_a_ms,
            lengthened_ms: scaled.lengthened as u32 / samples_a_ms,
            ..self.speech.stats
        }
    }

    /// 200 sent.
    pub(super) const fn start(&mut self) {
        self.started = true;
    }

    /// Returns the former line, if the telephone needs another one.
    pub(super) fn set_telephone(&mut self, telephone: Telephone, line: Option<Box<Line>>) -> Option<Box<Line>> {
        self.telephone = telephone;
        self.speech.has_tones = telephone.events.is_none();
        let former = line.map(|line| std::mem::replace(&mut self.line, line));
        if let Some(former) = &former {
            self.line.order.go_on_from(&former.order);
            // The RTP clock may be another one from here on (RFC 7160 §4.2).
            self.down.skip(0, true);
            self.apart = None;
        }
        self.line.set_telephone(&telephone, self.down_loss_percent);
        former
    }

    pub(super) fn set_present(&mut self, present: bool) {
        self.speech.present = present;
    }

    pub(super) const fn set_waiting(&mut self, waiting: bool) {
        self.waiting = waiting;
    }

    /// Whether the room is not there for it.
    pub(super) const fn is_waiting(&self) -> bool {
        self.waiting
    }

    pub(super) fn set_muted(&mut self, muted: bool) {
        self.speech.muted = muted;
    }

    /// Returns the former one, if any.
    pub(super) fn set_up(&mut self, up: Option<Box<Up>>) -> Option<Box<Up>> {
        let mut former = std::mem::replace(&mut self.speech.up, up)?;
        if let Some(up) = &mut self.speech.up {
            up.go_on_from(&mut former);
        }
        let counters = former.counters();
        self.speech.stats.sent_up += counters.sent;
        self.speech.stats.silence_up += counters.silence;
        self.speech.stats.ring_full += counters.dropped;
        Some(former)
    }

    pub(super) fn set_up_loss(&mut self, percent: u8) {
        if let Some(up) = &mut self.speech.up {
            up.set_loss(percent);
        }
    }

    pub(super) fn set_down_loss(&mut self, percent: u8) {
        self.down_loss_percent = percent;
        if let Some(wide) = &mut self.line.wide {
            wide.set_loss(percent, &self.telephone);
        }
    }

    /// A packet as it came; what is in order leaves for the room at once.
    pub(super) fn handle_packet(&mut self, arrival: Instant, bytes: &[u8], sink: &mut impl Sink) {
        let stats = &mut self.speech.stats;
        let Ok(RtpPacket { header, payload }) = RtpPacket::parse(bytes) else {
            stats.discarded += 1;
            return;
        };
        let mut header = header;
        let is_speech = header.payload_type == self.telephone.receive_payload_type;
        if !is_speech {
            self.hear_event(arrival, &header, payload, sink);
            let stats = &mut self.speech.stats;
            stats.other_payload_type += 1;
            // Comfort noise and events share the speech's sequence numbers; other sources mean nothing.
            if self.ssrc != Some(header.ssrc) {
                return;
            }
            if self.is_of_other_clock(header.payload_type) {
                header.timestamp = self.line.order.expected_timestamp().unwrap_or(header.timestamp);
            }
        }
        if !self.telephone.receives {
            return;
        }
        self.ssrc = Some(header.ssrc);
        let duration_ticks = if is_speech { self.line.sound.duration_ticks(payload) } else { Some(0) };
        let Some(duration_ticks) = duration_ticks else {
            self.speech.stats.discarded += 1;
            return;
        };
        match self.line.order.push(arrival, &header, payload, duration_ticks) {
            Pushed::Kept => {}
            Pushed::Late => self.speech.stats.late += 1,
            Pushed::Duplicate | Pushed::TooLong => self.speech.stats.discarded += 1,
        }
        self.release(arrival, sink);
    }

    /// A key that comes as an event; its packets are taken as they come, since each of them tells all of it.
    fn hear_event(&mut self, arrival: Instant, header: &RtpHeader, payload: &[u8], sink: &mut impl Sink) {
        let Some(format) = self.telephone.events else { return };
        if header.payload_type == format.payload_type
            && self.telephone.receives
            && let Some(press) = self.events.handle_packet(arrival, header, payload, format)
        {
            sink.event(MixEvent::Key { caller: self.key, press });
        }
    }

    /// Events of 8 kHz beside Opus: their timestamps say nothing of the speech around them.
    fn is_of_other_clock(&self, payload_type: u8) -> bool {
        let clock_rate_hz = self.telephone.codec.clock_rate_hz();
        self.telephone
            .events
            .is_some_and(|events| events.payload_type == payload_type && events.clock_rate_hz != clock_rate_hz)
    }

    /// A hole may have been waited for long enough.
    pub(super) fn handle_timeout(&mut self, now: Instant, sink: &mut impl Sink) {
        if self.line.order.next_timeout().is_some_and(|deadline| deadline.at <= now) {
            self.release(now, sink);
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Deadline> {
        self.line.order.next_timeout()
    }

    fn release(&mut self, now: Instant, sink: &mut impl Sink) {
        let Line { order, sound, .. } = &mut *self.line;
        while let Some(release) = order.pop(now) {
            match release {
                Release::Packet { header, payload, .. } => {
                    if header.payload_type == self.telephone.receive_payload_type {
                        self.speech.decode(now, payload, sound, self.key, sink);
                    } else if header.payload_type == self.telephone.comfort_noise_payload_type {
                        self.speech.fall_silent(payload);
                    }
                }
                Release::Conceal { duration_ticks, next_header, next_payload } => {
                    let is_speech = next_header.payload_type == self.telephone.receive_payload_type;
                    let next = if is_speech { next_payload } else { &[] };
                    self.speech.conceal(now, duration_ticks, next, sound, self.key, sink);
                }
                Release::Jump { duration_ticks } => self.speech.jump(sound.samples(duration_ticks), sound),
            }
        }
    }

    /// Each 20 ms: silence for the room if the telephone sends nothing.
    pub(super) fn tick_up(&mut self, now: Instant, missed: u32, sink: &mut impl Sink) {
        if let Some(format) = self.telephone.events
            && let Some(press) = self.events.handle_timeout(now, format)
        {
            sink.event(MixEvent::Key { caller: self.key, press });
        }
        if let Some(press) = self.speech.tones.handle_timeout(now) {
            sink.event(MixEvent::Key { caller: self.key, press });
        }
        self.speech.tick_up(now, missed, self.key, sink);
        self.account_in_ticks = self.account_in_ticks.saturating_sub(1);
        if self.account_in_ticks == 0 {
            self.account_in_ticks = ACCOUNT_TICKS;
            self.give_account(sink);
        }
    }

    fn give_account(&self, sink: &mut impl Sink) {
        if self.telephone.asks_metrics
            && let Some(heard) = self.account()
        {
            sink.heard(self.leg, &heard);
        }
    }

    /// What became of its voice so far; `None` before its first packet.
    fn account(&self) -> Option<Heard> {
        let Line { order, sound, .. } = &*self.line;
        let (tally, codec) = (order.tally(), self.telephone.codec);
        Some(Heard {
            ssrc: tally.ssrc()?,
            codec,
            bursts: tally.bursts(),
            late: tally.late(),
            packet_us: (u64::from(tally.packet_ticks()) * 1_000_000 / u64::from(codec.clock_rate_hz())) as u32,
            sent_packet_ms: packet_ms(self.telephone.ptime_ms) as u8,
            talk_dbm0: self.speech.levels.talk_dbm0(),
            noise_dbm0: self.speech.levels.noise_dbm0(),
            target_ms: (sound.local.target_us() / 1000) as u16,
            capacity_ms: LocalQueue::CAPACITY_MS,
        })
    }

    /// Each 20 ms: the next frame for the local mix, if other telephones hear it.
    pub(super) fn play_locally(&mut self, now: Instant, has_neighbours: bool) -> OwnVoice {
        self.own_voice = self.speech.play_locally(now, has_neighbours, &mut self.line.sound, &mut self.own);
        self.own_voice
    }

    /// What [`Self::play_locally`] said in this tick.
    pub(super) const fn own_voice(&self) -> OwnVoice {
        self.own_voice
    }

    /// The frame for the local mix.
    pub(super) const fn own_frame(&self) -> &BusFrame {
        &self.own
    }

    /// What it shares with all who hear the same, if its codec has no state.
    pub(super) const fn law(&self) -> Option<Law> {
        law(self.telephone.codec)
    }

    /// Does it get a frame in this tick? Time passes for its packets in any case.
    pub(super) fn hears(&mut self, missed: u32) -> bool {
        let hears = self.started && self.telephone.sends;
        let skipped_ticks = if hears { missed } else { missed.saturating_add(1) };
        if skipped_ticks > 0 {
            let gathered = self.line.wide.as_mut().map_or(0, Wide::forget);
            let clock_ticks = skipped_ticks.wrapping_mul(self.telephone.codec.clock_rate_hz() / 50);
            self.down.skip(clock_ticks.wrapping_add(gathered), !hears);
        }
        hears
    }

    /// A frame without its own voice. Its filter goes on from the `shared` one if it has just begun to contribute.
    pub(super) fn render_apart(&mut self, bus: &Bus, law: Law, shared: &Renderer) -> EncodedTick {
        let own = self.own_voice.part(&self.own);
        let renderer = self.apart.get_or_insert_with(|| shared.clone());
        encode(law, &renderer.render(bus, own))
    }

    /// Sends what it hears in a codec that it shares with nobody.
    pub(super) fn send_wide(&mut self, bus: &Bus, sink: &mut impl Sink) {
        let Some(wide) = &mut self.line.wide else { return };
        let own = self.own_voice.part(&self.own);
        let sent = wide.send(bus, own, &self.telephone, &mut self.down, sink);
        self.speech.stats.sent_down += sent.packets;
        self.speech.stats.ring_full += sent.dropped;
    }

    /// From now on it hears what everyone hears; its own filter's state, if it had one.
    pub(super) const fn join_shared(&mut self) -> Option<Renderer> {
        self.apart.take()
    }

    /// Sends a frame, or gathers it for a longer packet.
    pub(super) fn send_down(&mut self, tick: &EncodedTick, sink: &mut impl Sink) {
        let sent = self.down.send(&self.telephone, tick, sink);
        self.speech.stats.sent_down += sent.packets;
        self.speech.stats.ring_full += sent.dropped;
    }
}

impl Speech {
    fn decode(&mut self, now: Instant, payload: &[u8], sound: &mut Sound, key: CallerKey, sink: &mut impl Sink) {
        let mut pcm = [0; MAX_PACKET_SAMPLES];
        let samples = sound.decode(payload, &mut pcm);
        self.stats.received += 1;
        self.noise = None;
        let coded = sound.opus_packet(payload).map_or(Coded::Otherwise, Coded::Opus);
        self.pass_on(now, &mut pcm[..samples], coded, sound, key, sink);
    }

    /// Makes up what lies before `next`.
    fn conceal(
        &mut self,
        now: Instant,
        duration_ticks: u32,
        next: &[u8],
        sound: &mut Sound,
        key: CallerKey,
        sink: &mut impl Sink,
    ) {
        let mut pcm = [0; MAX_PACKET_SAMPLES];
        let samples = sound.conceal(duration_ticks, next, &mut pcm);
        self.stats.concealed += 1;
        self.pass_on(now, &mut pcm[..samples], Coded::Lost, sound, key, sink);
    }

    fn jump(&mut self, samples: u32, sound: &mut Sound) {
        sound.local.pause(samples);
        if let Some(up) = &mut self.up {
            up.pause(samples);
        }
    }

    /// The telephone sends nothing until it speaks again, and says what that sounds like (RFC 3389).
    fn fall_silent(&mut self, payload: &[u8]) {
        self.noise = LineNoise::of_packet(payload);
        if let Some(up) = &mut self.up {
            up.expect_silence();
        }
    }

    fn pass_on(
        &mut self,
        now: Instant,
        pcm: &mut [i16],
        coded: Coded<'_>,
        sound: &mut Sound,
        key: CallerKey,
        sink: &mut impl Sink,
    ) {
        self.find_key(now, sound.narrow(pcm), key, sink);
        if self.muted {
            pcm.fill(0);
        }
        let change = self.talking.hear(sound.narrow(pcm));
        if !self.muted {
            self.levels.hear(self.talking.latest(), self.talking.is_talking());
        }
        self.tell(change, key, sink);
        let latest = self.talking.latest();
        if let Some(agc) = &mut self.agc {
            agc.process(pcm, sound.rate_hz(), latest);
        }
        let is_talking = self.talking.is_talking();
        let is_as_it_came = !self.muted && self.agc.as_ref().is_none_or(|agc| agc.gain_db().abs() < INAUDIBLE_DB);
        if let Some(up) = &mut self.up {
            let is_done = match coded {
                Coded::Opus(packet) => is_as_it_came && up.forward(now, packet, pcm, is_talking, sink),
                Coded::Lost => is_as_it_came && up.lose(pcm.len() as u32),
                Coded::Otherwise => false,
            };
            if !is_done {
                up.speak(now, pcm, is_talking, sink);
            }
        }
        // The verdict is on the lower half of a wide band; what is loud in the upper one passes as well.
        let latest = Verdict { level_dbfs: latest.level_dbfs.max(sound.upper_level_dbfs(pcm)), ..latest };
        // Galene gets the line's noise as comfort noise; here those of all silent callers would add up.
        self.gate.process(pcm, sound.rate_hz(), is_talking, latest);
        sound.local.push(now, pcm);
    }

    fn tick_up(&mut self, now: Instant, missed: u32, key: CallerKey, sink: &mut impl Sink) {
        let Some(up) = &mut self.up else { return };
        if up.tick(now, missed, self.noise.as_mut().filter(|_| !self.muted), sink) {
            let change = self.talking.hear(&[0; FRAME_SAMPLES]);
            self.tell(change, key, sink);
        }
    }

    fn find_key(&mut self, now: Instant, narrow: &[i16], caller: CallerKey, sink: &mut impl Sink) {
        if self.has_tones
            && let Some(press) = self.tones.hear(now, narrow)
        {
            sink.event(MixEvent::Key { caller, press });
        }
    }

    fn tell(&self, change: Option<Change>, caller: CallerKey, sink: &mut impl Sink) {
        if let Some(Change { talking, level_dbfs }) = change {
            let gain_db = self.agc.as_ref().map_or(0.0, Agc::gain_db);
            let (level_dbfs, gain_db) = (level_dbfs.round() as i8, gain_db.round() as i8);
            sink.event(MixEvent::Talking { caller, talking, level_dbfs, gain_db });
        }
    }

    fn play_locally(&mut self, now: Instant, has_neighbours: bool, sound: &mut Sound, own: &mut BusFrame) -> OwnVoice {
        // What was said just before the mute may still be in the queue.
        let may_be_heard = self.present && !self.muted && has_neighbours;
        if sound.play(now, may_be_heard, NOTHING_PEAK, own) {
            return OwnVoice::Contributes;
        }
        match &mut self.noise {
            // As of every other line: what is softer is not added up for the neighbours (`gate`).
            Some(noise) if may_be_heard && noise.level_dbov() <= LOUD_NOISE_DBOV => {
                sound.play_noise(noise, own);
                OwnVoice::Contributes
            }
            Some(_) | None => OwnVoice::Silent,
        }
    }
}

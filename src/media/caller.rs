//! One telephone in the mix: its speech up and to its neighbours, the room's sound down.
//!
//! Owns: what happens to a packet of the telephone (order, decoding, concealment, voice activity) and who gets the result;
//! whether it takes part (present, muted, on hold). Does not own: the sum (`room`), the up stream's timeline (`up`), the
//! packets down (`down`).

use super::agc::Agc;
use super::control::{CallerKey, CallerSetup, CallerStats, LegKey, MixEvent, Telephone, TelephoneCodec, Up};
use super::down::{Down, EncodedTick, Renderer, encode, law};
use super::engine::Sink;
use super::gate::Gate;
use super::local_queue::LocalQueue;
use super::mixer::{Bus, BusFrame, SILENCE};
use super::plc::Concealer;
use super::reorder::{MAX_PAYLOAD_BYTES, Pushed, Release, Reorder};
use super::resample::Up8To16;
use super::talking::{Change, Talking};
use super::up::FRAME_SAMPLES;
use crate::time::{Deadline, Instant};
use crate::wire::rtp::RtpPacket;

/// Without a sample above this (−72 dBFS) a caller adds nothing to what others hear: A-law's own silence is ±8.
const NOTHING_PEAK: u16 = 8;

/// Does the caller add anything to the bus in this tick?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnVoice {
    /// Its frame is in the sum, so it must not hear itself.
    Contributes,
    /// It hears what everyone hears.
    Silent,
}

/// One telephone. Built by signalling, with all it will need until its call ends.
#[derive(Debug)]
pub struct Caller {
    key: CallerKey,
    leg: LegKey,
    telephone: Telephone,
    order: Reorder,
    /// The telephone's present source: packets of other payload types count in its sequence only.
    ssrc: Option<u32>,
    speech: Speech,
    down: Down,
    /// 200 sent: the telephone gets continuous RTP.
    started: bool,
    own: BusFrame,
    own_voice: OwnVoice,
    /// Its own chain, while what it hears is not what everyone hears.
    apart: Option<Renderer>,
}

/// What is done with the telephone's sound once it is in order.
#[derive(Debug)]
struct Speech {
    codec: TelephoneCodec,
    concealer: Concealer,
    talking: Talking,
    /// `None` is `-no-agc`.
    agc: Option<Agc>,
    gate: Gate,
    local: LocalQueue,
    widen: Up8To16,
    up: Option<Box<Up>>,
    /// Galene carries the stream, so local callers may hear it too.
    present: bool,
    muted: bool,
    stats: CallerStats,
}

impl Caller {
    /// A caller that is silent, absent, and sends nothing until told to.
    pub fn new(setup: &CallerSetup) -> Self {
        let telephone = setup.telephone;
        Self {
            key: setup.key,
            leg: setup.leg,
            telephone,
            order: Reorder::new(telephone.codec.clock_rate_hz()),
            ssrc: None,
            speech: Speech {
                codec: telephone.codec,
                concealer: Concealer::new(8000),
                talking: Talking::new(),
                agc: setup.agc.then(Agc::new),
                gate: Gate::new(),
                local: LocalQueue::new(),
                widen: Up8To16::to_bus(),
                up: None,
                present: false,
                muted: false,
                stats: CallerStats::default(),
            },
            down: Down::new(setup.leg, setup.ssrc, setup.first_sequence, setup.first_timestamp),
            started: false,
            own: SILENCE,
            own_voice: OwnVoice::Silent,
            apart: None,
        }
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
        let local = &self.speech.local;
        let scaled = local.scaled();
        CallerStats {
            target_ms: local.target_us() as u32 / 1000,
            shortened_ms: scaled.shortened as u32 / 8,
            lengthened_ms: scaled.lengthened as u32 / 8,
            ..self.speech.stats
        }
    }

    /// 200 sent.
    pub(super) const fn start(&mut self) {
        self.started = true;
    }

    pub(super) fn set_telephone(&mut self, telephone: Telephone) {
        self.telephone = telephone;
        self.speech.codec = telephone.codec;
    }

    pub(super) fn set_present(&mut self, present: bool) {
        self.speech.present = present;
    }

    pub(super) fn set_muted(&mut self, muted: bool) {
        self.speech.muted = muted;
    }

    /// Returns the former one, if any.
    pub(super) fn set_up(&mut self, up: Option<Box<Up>>) -> Option<Box<Up>> {
        let former = std::mem::replace(&mut self.speech.up, up)?;
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

    /// A packet as it came; what is in order leaves for the room at once.
    pub(super) fn handle_packet(&mut self, arrival: Instant, bytes: &[u8], sink: &mut impl Sink) {
        let stats = &mut self.speech.stats;
        let Ok(RtpPacket { header, payload }) = RtpPacket::parse(bytes) else {
            stats.discarded += 1;
            return;
        };
        let is_speech = header.payload_type == self.telephone.receive_payload_type;
        if !is_speech {
            stats.other_payload_type += 1;
            // Comfort noise and events share the speech's sequence numbers; other sources mean nothing.
            if self.ssrc != Some(header.ssrc) {
                return;
            }
        }
        if !self.telephone.receives {
            return;
        }
        self.ssrc = Some(header.ssrc);
        // G.711: a byte is a tick of the clock.
        let duration_ticks = if is_speech { payload.len() as u32 } else { 0 };
        match self.order.push(arrival, &header, payload, duration_ticks) {
            Pushed::Kept => {}
            Pushed::LateOrDuplicate | Pushed::TooLong => stats.discarded += 1,
        }
        self.release(arrival, sink);
    }

    /// A hole may have been waited for long enough.
    pub(super) fn handle_timeout(&mut self, now: Instant, sink: &mut impl Sink) {
        if self.order.next_timeout().is_some_and(|deadline| deadline.at <= now) {
            self.release(now, sink);
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Deadline> {
        self.order.next_timeout()
    }

    fn release(&mut self, now: Instant, sink: &mut impl Sink) {
        while let Some(release) = self.order.pop(now) {
            match release {
                Release::Packet { header, payload, .. } => {
                    if header.payload_type == self.telephone.receive_payload_type {
                        self.speech.decode(now, payload, self.key, sink);
                    }
                }
                Release::Conceal { duration_ticks, next_header, next_payload } => {
                    let is_speech = next_header.payload_type == self.telephone.receive_payload_type;
                    let next = if is_speech { next_payload } else { &[] };
                    self.speech.conceal(now, duration_ticks, next, self.key, sink);
                }
                Release::Jump { duration_ticks } => self.speech.jump(duration_ticks),
            }
        }
    }

    /// Each 20 ms: silence for the room if the telephone sends nothing.
    pub(super) fn tick_up(&mut self, now: Instant, missed: u32, sink: &mut impl Sink) {
        self.speech.tick_up(now, missed, self.key, sink);
    }

    /// Each 20 ms: the next frame for the local mix, if other telephones hear it.
    pub(super) fn play_locally(&mut self, now: Instant, has_neighbours: bool) -> OwnVoice {
        self.own_voice = self.speech.play_locally(now, has_neighbours, &mut self.own);
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

    /// What it is to be sent.
    pub(super) const fn codec(&self) -> TelephoneCodec {
        self.telephone.codec
    }

    /// Does it get a frame in this tick? Time passes for its packets in any case.
    pub(super) fn hears(&mut self, missed: u32) -> bool {
        let hears = self.started && self.telephone.sends;
        if !hears {
            self.down.skip(missed.saturating_add(1), true);
        } else if missed > 0 {
            self.down.skip(missed, false);
        }
        hears
    }

    /// A frame without its own voice. Its filter goes on from the `shared` one if it has just begun to contribute.
    pub(super) fn render_apart(&mut self, bus: &Bus, shared: &Renderer) -> EncodedTick {
        let renderer = self.apart.get_or_insert_with(|| shared.clone());
        encode(self.telephone.codec, &renderer.render(bus, &self.own))
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
    fn decode(&mut self, now: Instant, payload: &[u8], key: CallerKey, sink: &mut impl Sink) {
        let mut pcm = [0; MAX_PAYLOAD_BYTES];
        let samples = law(self.codec).decode(payload, &mut pcm);
        let pcm = &mut pcm[..samples];
        self.concealer.good(pcm);
        self.stats.received += 1;
        self.pass_on(now, pcm, key, sink);
    }

    /// Makes up what lies before `next`.
    fn conceal(&mut self, now: Instant, duration_ticks: u32, next: &[u8], key: CallerKey, sink: &mut impl Sink) {
        let (mut pcm, mut next_pcm) = ([0; MAX_PAYLOAD_BYTES], [0; MAX_PAYLOAD_BYTES]);
        let pcm = &mut pcm[..(duration_ticks as usize).min(MAX_PAYLOAD_BYTES)];
        let next_samples = law(self.codec).decode(next, &mut next_pcm);
        self.concealer.conceal_before(&next_pcm[..next_samples], pcm);
        self.stats.concealed += 1;
        self.pass_on(now, pcm, key, sink);
    }

    fn jump(&mut self, duration_ticks: u32) {
        self.local.pause(duration_ticks);
        if let Some(up) = &mut self.up {
            up.pause(duration_ticks);
        }
    }

    fn pass_on(&mut self, now: Instant, pcm: &mut [i16], key: CallerKey, sink: &mut impl Sink) {
        if self.muted {
            pcm.fill(0);
        }
        let change = self.talking.hear(pcm);
        self.tell(change, key, sink);
        let latest = self.talking.latest();
        if let Some(agc) = &mut self.agc {
            agc.process(pcm, latest);
        }
        let is_talking = self.talking.is_talking();
        if let Some(up) = &mut self.up {
            up.speak(now, pcm, is_talking, sink);
        }
        // Galene gets the line's noise as comfort noise; here those of all silent callers would add up.
        self.gate.process(pcm, is_talking, latest);
        self.local.push(now, pcm);
    }

    fn tick_up(&mut self, now: Instant, missed: u32, key: CallerKey, sink: &mut impl Sink) {
        let Some(up) = &mut self.up else { return };
        if up.tick(now, missed, sink) {
            let change = self.talking.hear(&[0; FRAME_SAMPLES]);
            self.tell(change, key, sink);
        }
    }

    fn tell(&self, change: Option<Change>, caller: CallerKey, sink: &mut impl Sink) {
        if let Some(Change { talking, level_dbfs }) = change {
            let gain_db = self.agc.as_ref().map_or(0.0, Agc::gain_db);
            let (level_dbfs, gain_db) = (level_dbfs.round() as i8, gain_db.round() as i8);
            sink.event(MixEvent::Talking { caller, talking, level_dbfs, gain_db });
        }
    }

    fn play_locally(&mut self, now: Instant, has_neighbours: bool, own: &mut BusFrame) -> OwnVoice {
        let mut narrow = [0; FRAME_SAMPLES];
        // Taken in any case, so that the queue is fresh when the caller comes on the air.
        let playing = self.local.take(now, &mut narrow);
        // What was said just before the mute may still be in the queue.
        let may_be_heard = self.present && !self.muted && has_neighbours;
        let heard = playing && may_be_heard && narrow.iter().any(|sample| sample.unsigned_abs() > NOTHING_PEAK);
        if !heard {
            return OwnVoice::Silent;
        }
        self.widen.process(&narrow, own);
        OwnVoice::Contributes
    }
}

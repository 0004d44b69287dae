//! One room: the voices and telephones that hear each other.
//!
//! Owns: who is in it, the 20 ms tick: every voice once onto the bus, and for each telephone the sum without its own.
//! Does not own: decoding (`stream`), the telephones' ways up and down (`caller`).
//!
//! A room is all that its members can hear: two rooms share nothing.

use super::caller::{Caller, OwnVoice};
use super::comfort_noise::ComfortNoise;
use super::control::{CallerKey, MAX_CALLERS, MAX_STREAMS, RoomKey, StreamKey};
use super::down::{EncodedTick, G711_TICK_BYTES, Renderer, encode};
use super::engine::Sink;
use super::g711::Law;
use super::mixer::{Bus, BusFrame, SILENCE};
use super::stream::{Played, Stream};
use super::waiting_tone::WaitingTone;
use crate::time::{Deadline, Instant};

/// One group's callers and voices.
#[derive(Debug)]
pub struct Room {
    key: RoomKey,
    voices: Vec<Voice>,
    #[expect(clippy::vec_box, reason = "a caller comes and goes as signalling allocated it")]
    callers: Vec<Box<Caller>>,
    bus: Bus,
    frame: BusFrame,
    comfort_noise: ComfortNoise,
    shared: Shared,
    /// Instead of the room, for callers whose membership is being restored.
    waiting: Bus,
    waiting_tone: WaitingTone,
}

/// A stream, and beside each other what a tick needs of it while it has been played ahead: its own memory is not touched then.
#[derive(Debug)]
struct Voice {
    key: StreamKey,
    /// For so many ticks to come, each of which brings this.
    ahead_ticks: u8,
    silence: Played,
    stream: Box<Stream>,
}

impl Voice {
    fn play(&mut self, now: Instant, missed: u32, frame: &mut BusFrame) -> Played {
        self.ahead_ticks = self.ahead_ticks.saturating_sub(u8::try_from(missed).unwrap_or(u8::MAX));
        if self.ahead_ticks > 0 {
            self.ahead_ticks -= 1;
            return self.silence;
        }
        let played = self.stream.play(now, frame);
        self.ahead_ticks = self.stream.play_ahead(now);
        self.silence = self.stream.silence();
        played
    }
}

/// What everyone who contributes nothing hears: rendered once a tick, encoded once a codec.
#[derive(Debug)]
struct Shared {
    renderer: Renderer,
    /// The renderer before this tick, for a caller who begins to contribute: its filter goes on from there.
    before: Renderer,
    /// This tick, once somebody has asked for it.
    pcm: Option<[i16; G711_TICK_BYTES]>,
    pcmu: Option<EncodedTick>,
    pcma: Option<EncodedTick>,
    /// Somebody asked in the last tick; if not, the renderer's past is no longer anybody's.
    is_fresh: bool,
}

impl Shared {
    fn new() -> Self {
        let renderer = Renderer::new();
        Self { before: renderer.clone(), renderer, pcm: None, pcmu: None, pcma: None, is_fresh: true }
    }

    fn begin_tick(&mut self) {
        self.is_fresh = self.pcm.is_some();
        self.before.clone_from(&self.renderer);
        (self.pcm, self.pcmu, self.pcma) = (None, None, None);
    }

    /// For a caller whose own filter, until now apart, was in the state `former`.
    fn encoded(&mut self, bus: &Bus, law: Law, former: Option<Renderer>) -> EncodedTick {
        let Self { renderer, pcm, pcmu, pcma, is_fresh, .. } = self;
        let pcm = pcm.get_or_insert_with(|| {
            if let (false, Some(former)) = (*is_fresh, former) {
                *renderer = former;
            }
            renderer.render(bus, &SILENCE)
        });
        let encoded = match law {
            Law::Mu => pcmu,
            Law::A => pcma,
        };
        *encoded.get_or_insert_with(|| encode(law, pcm))
    }
}

impl Room {
    /// An empty room with space for everything.
    pub fn new(key: RoomKey) -> Self {
        Self {
            key,
            voices: Vec::with_capacity(MAX_STREAMS),
            callers: Vec::with_capacity(MAX_CALLERS),
            bus: Bus::new(),
            frame: SILENCE,
            comfort_noise: ComfortNoise::new(),
            shared: Shared::new(),
            waiting: Bus::new(),
            waiting_tone: WaitingTone::default(),
        }
    }

    /// Its name.
    pub const fn key(&self) -> RoomKey {
        self.key
    }

    pub(super) fn has_space_for_caller(&self) -> bool {
        self.callers.len() < MAX_CALLERS
    }

    pub(super) fn has_space_for_stream(&self) -> bool {
        self.voices.len() < MAX_STREAMS
    }

    /// Keys only increase, so the tables stay sorted by pushing; a lower key finds its place all the same.
    pub(super) fn add_caller(&mut self, caller: Box<Caller>) {
        let at = self.callers.partition_point(|other| other.key() < caller.key());
        self.callers.insert(at, caller);
    }

    pub(super) fn add_stream(&mut self, stream: Box<Stream>) {
        let key = stream.key();
        let at = self.voices.partition_point(|other| other.key < key);
        self.voices.insert(at, Voice { key, ahead_ticks: 0, silence: Played::Nothing, stream });
    }

    fn caller_at(&self, key: CallerKey) -> Option<usize> {
        self.callers.binary_search_by_key(&key, |caller| caller.key()).ok()
    }

    fn stream_at(&self, key: StreamKey) -> Option<usize> {
        self.voices.binary_search_by_key(&key, |voice| voice.key).ok()
    }

    pub(super) fn caller_mut(&mut self, key: CallerKey) -> Option<&mut Caller> {
        let at = self.caller_at(key)?;
        Some(&mut self.callers[at])
    }

    pub(super) fn with_caller(&mut self, key: CallerKey, change: impl FnOnce(&mut Caller)) {
        if let Some(caller) = self.caller_mut(key) {
            change(caller);
        }
    }

    pub(super) fn stream_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        let at = self.stream_at(key)?;
        Some(&mut self.voices[at].stream)
    }

    /// Whether a voice has been played ahead of the next tick: what has come for it meanwhile can wait.
    pub(super) fn is_ahead(&self, key: StreamKey) -> bool {
        self.stream_at(key).is_some_and(|at| self.voices[at].ahead_ticks > 0)
    }

    pub(super) fn remove_caller(&mut self, key: CallerKey) -> Option<Box<Caller>> {
        let at = self.caller_at(key)?;
        Some(self.callers.remove(at))
    }

    pub(super) fn remove_stream(&mut self, key: StreamKey) -> Option<Box<Stream>> {
        let at = self.stream_at(key)?;
        Some(self.voices.remove(at).stream)
    }

    pub(super) fn pop_caller(&mut self) -> Option<Box<Caller>> {
        self.callers.pop()
    }

    pub(super) fn pop_stream(&mut self) -> Option<Box<Stream>> {
        self.voices.pop().map(|voice| voice.stream)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, sink: &mut impl Sink) {
        for caller in &mut self.callers {
            caller.handle_timeout(now, sink);
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Deadline> {
        crate::time::earliest(self.callers.iter().map(|caller| caller.next_timeout()))
    }

    /// Sums every voice once, then gives each telephone the sum without its own.
    pub(super) fn tick(&mut self, now: Instant, missed: u32, sink: &mut impl Sink) {
        self.bus.clear();
        self.comfort_noise.clear();
        for voice in &mut self.voices {
            match voice.play(now, missed, &mut self.frame) {
                Played::Sound => self.bus.add(&self.frame),
                Played::Background(background) => self.comfort_noise.add(&background),
                Played::Nothing => {}
            }
        }
        if self.comfort_noise.fill(&mut self.frame) {
            self.bus.add(&self.frame);
        }
        // With nobody to hear it, a lone telephone's voice need not go through the bus to be taken out again.
        let has_neighbours = self.callers.len() > 1;
        for caller in &mut self.callers {
            caller.tick_up(now, missed, sink);
            if let OwnVoice::Contributes = caller.play_locally(now, has_neighbours) {
                self.bus.add(caller.own_frame());
            }
        }
        self.shared.begin_tick();
        self.play_waiting_tone();
        for caller in &mut self.callers {
            if caller.hears(missed) {
                let bus = if caller.is_waiting() { &self.waiting } else { &self.bus };
                hear(caller, bus, &mut self.shared, sink);
            }
        }
    }

    fn play_waiting_tone(&mut self) {
        if self.callers.iter().any(|caller| caller.is_waiting()) {
            self.waiting_tone.fill(&mut self.frame);
            self.waiting.clear();
            self.waiting.add(&self.frame);
        } else {
            self.waiting_tone.rewind();
        }
    }
}

/// One telephone's share of a tick.
fn hear(caller: &mut Caller, bus: &Bus, shared: &mut Shared, sink: &mut impl Sink) {
    let Some(law) = caller.law() else { return caller.send_wide(bus, sink) };
    let tick = match caller.own_voice() {
        OwnVoice::Contributes => caller.render_apart(bus, law, &shared.before),
        OwnVoice::Silent if caller.is_waiting() => caller.render_apart(bus, law, &shared.before),
        OwnVoice::Silent => {
            let former = caller.join_shared();
            shared.encoded(bus, law, former)
        }
    };
    caller.send_down(&tick, sink);
}

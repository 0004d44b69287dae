//! galene-sip lets telephones into the rooms of a Galene server: a code map.
//!
//! A telephone calls over SIP; the gateway joins the Galene group as a member of its own for that caller, publishes the
//! caller's voice there as one stream, and gives the caller the mixed voices of the room.
//!
//! # Layers
//!
//! Imports go one way, and siblings never import each other (`tests/layering.rs` reads the sources):
//!
//! ```text
//! io ──► gateway ──► sip · galene · rtc · media::control ──► wire ──► time · random
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | every option: name, doc, default, validation |
//! | [`time`], [`random`] | instants, deadlines and randomness as values |
//! | [`wire`] | bytes to values and back: SIP, SDP, STUN, RTP, RTCP; stateless, total, fuzzed |
//! | [`sip`] | a user agent that answers: transactions, dialogs, digest, registration, transfers, connections |
//! | [`galene`] | a member of a group: joining, roster, streams' messages |
//! | [`rtc`] | one peer connection: ICE and DTLS, which end in an address and SRTP keys |
//! | [`media`] | a mix's work: jitter buffers, codecs, mixer; [`media::control`] are the only words spoken to it |
//! | [`gateway`] | introduces calls to rooms: who listens for whom, offer and answer, failures to SIP statuses |
//! | [`io`] | the only sockets, clocks, threads and async |
//!
//! # Threads
//!
//! - **signalling** (main, a smol executor): owns every machine of `sip`, `galene`, `rtc` and `gateway`. One turn is: one
//!   input or the earliest deadline, one `now`, one mutation, then all outputs are drained and carried out.
//! - **net** (one, no async): owns every media socket. SRTP both ways, latching, rate limits; STUN and DTLS pass to
//!   signalling only after a filter.
//! - **mix** (cores − 1, no async): each owns whole rooms. A telephone's packet is transcoded as it arrives; every 20 ms
//!   each room's voices are decoded once, summed once, and each caller gets the sum without its own voice. The first has its
//!   turns on the net thread (being woken costs as much as coding a frame), every other has a thread of its own.
//! - **log** (one), and **capture** with `-sip-pcap`: write what the others say, so that no disk and no reader stops those.
//!
//! They speak over lock-free single-producer rings, all in the same way. What a mix uses is built on the signalling thread, handed
//! over in a `Box` and comes back to be freed there.
//!
//! # Invariants
//!
//! - Every machine has the same calls with `now` as an argument: `handle_input`, `handle_timeout`, `poll_output`,
//!   `next_timeout`. Only `io::clock` reads a clock or entropy, so every test runs in virtual time.
//! - Bad input is one of three: noise (dropped, counted), a peer's misbehaviour (a typed error, one SIP status or log line),
//!   our own bug (a panic that says why it was thought impossible).
//! - Every table, queue, buffer and wait has a limit with its reason beside it.
//! - Passwords and tokens are [`config::Secret`]s and never reach a log.
//!
//! # Where to start
//!
//! A call's way is [`gateway`]; its sound's way is [`media`]; a turn of the loop is `io::driver`.
//!
//! # Words
//!
//! *Call*: one INVITE dialog. *Caller*: its person and place in the mix. *Room*: a Galene group with callers of ours in it.
//! *Voice* or *stream*: what one member of the room sends. *Up*: towards Galene; *down*: towards the telephone. *Leg*: one
//! media socket of the net thread. *Listener*: the one member of ours whose streams serve every caller of a room.
//! *Leaver*: a listener whose caller has hung up, until another one hears all that it hears.

pub mod config;
pub mod galene;
pub mod gateway;
pub mod io;
pub mod media;
pub mod random;
pub mod rtc;
pub mod sip;
pub mod time;
pub mod wire;

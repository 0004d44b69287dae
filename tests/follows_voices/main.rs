//! Work follows voices, ears do not notice: what a telephone hears when packets are left undecoded, against the same room
//! with everything decoded, in virtual time.

mod sounds;
#[path = "../common/telephone.rs"]
mod telephone;
mod upwards;
mod world;

use std::thread;

use galene_sip::media::opus;
use lab::opus::EncoderConfig;
use sounds::Sound;
use world::{Room, level_dbfs};

/// Windows louder than this must be alike.
const AUDIBLE_DBFS: f64 = -50.0;
/// 20 ms at 8 kHz, and 100.
const FRAME_SAMPLES: usize = 160;
const WINDOW_SAMPLES: usize = 800;

/// What browsers may send: 24 to 64 kbit/s are hybrid for speech, and at 64 kbit/s CELT for music.
fn encoders() -> [(&'static str, EncoderConfig); 5] {
    let browser = EncoderConfig { fec: false, loss_percent: 0, ..EncoderConfig::default() };
    [
        ("24 kbit/s", EncoderConfig { bitrate_bps: 24_000, ..browser }),
        ("32 kbit/s", browser),
        ("64 kbit/s", EncoderConfig { bitrate_bps: 64_000, ..browser }),
        ("SILK", EncoderConfig { wideband_only: true, ..browser }),
        ("DTX", EncoderConfig { dtx: true, ..browser }),
    ]
}

/// How one sound differs from what it is when everything is decoded.
#[derive(Debug)]
struct Difference {
    skipped: u32,
    /// Of audible windows, in dB.
    worst_db: f64,
    /// Frames by which the latest onset is late.
    latest_onset: usize,
    /// The mean over the windows that are not audible, in dB.
    background_db: f64,
}

fn compare(sound: &Sound, config: EncoderConfig) -> Difference {
    let packets = world::encode(&sound.samples, config);
    let (full, heard) = (Room::hear(&packets, true), Room::hear(&packets, false));
    let levels = |samples: usize| {
        let windows = full.samples.chunks_exact(samples).zip(heard.samples.chunks_exact(samples));
        windows.map(|(full, heard)| (level_dbfs(full), level_dbfs(heard))).collect::<Vec<_>>()
    };
    let windows = levels(WINDOW_SAMPLES);
    let (audible, background): (Vec<_>, Vec<_>) = windows.iter().skip(1).partition(|(full, _)| *full > AUDIBLE_DBFS);
    let worst_db = audible.iter().map(|(full, heard)| (heard - full).abs()).fold(0.0, f64::max);
    let background_db =
        background.iter().map(|(full, heard)| heard - full).sum::<f64>() / background.len().max(1) as f64;
    let frames = levels(FRAME_SAMPLES);
    let onsets = (1..frames.len()).filter(|&at| frames[at - 1].0 < AUDIBLE_DBFS && frames[at].0 > AUDIBLE_DBFS + 5.0);
    let late = |onset: usize| frames[onset..].iter().take_while(|(full, heard)| full - heard > 1.0).count();
    let latest_onset = onsets.map(late).max().unwrap_or(0);
    Difference { skipped: heard.skipped, worst_db, latest_onset, background_db }
}

#[test]
fn nothing_that_can_be_heard_is_missing_or_late_and_the_background_stays() {
    let sounds = sounds::all();
    let rows = thread::scope(|scope| {
        let rows = encoders().map(|(encoder, config)| {
            let sounds = &sounds;
            scope.spawn(move || sounds.iter().map(|sound| (sound, encoder, compare(sound, config))).collect::<Vec<_>>())
        });
        rows.map(|row| row.join().unwrap())
    });
    let mut skipped = 0;
    for (Sound { name, .. }, encoder, difference) in rows.into_iter().flatten() {
        println!("{name} dBFS, {encoder}: {difference:?}");
        let Difference { worst_db, latest_onset, background_db, .. } = difference;
        assert!(worst_db <= 1.0 && latest_onset <= 1, "{name} dBFS, {encoder}: {difference:?}");
        assert!(background_db.abs() <= 2.0, "{name} dBFS, {encoder}: {difference:?}");
        skipped += difference.skipped;
    }
    assert!(skipped > 10_000, "{skipped}");
}

#[test]
fn a_silent_voices_socket_is_read_every_other_tick() {
    let browser = EncoderConfig { fec: false, loss_percent: 0, ..EncoderConfig::default() };
    let packets = world::encode(&sounds::in_a_room(&[0.0; 10 * sounds::RATE_HZ], -70.0), browser);
    let (full, heard) = (Room::hear(&packets, true), Room::hear(&packets, false));
    assert_eq!((packets.len(), full.looks), (600, 600));
    // All of the first half second, and then half, but for a probe in 25.
    assert!((300..340).contains(&heard.looks), "{}", heard.looks);
}

#[test]
fn a_muted_microphone_of_high_quality_is_not_decoded_and_no_bit_changes() {
    let config = EncoderConfig { bitrate_bps: 128_000, fec: false, loss_percent: 0, ..EncoderConfig::default() };
    // The web client's mute sends zeros.
    let mut samples = sounds::all().remove(5).samples;
    samples[2 * sounds::RATE_HZ..5 * sounds::RATE_HZ].fill(0.0);
    let packets = world::encode(&samples, config);
    assert!(packets.iter().flatten().all(|packet| opus::packet::is_celt(packet)));
    let (full, heard) = (Room::hear(&packets, true), Room::hear(&packets, false));
    assert!((140..150).contains(&heard.skipped), "{}", heard.skipped);
    assert!(full.samples == heard.samples);
}

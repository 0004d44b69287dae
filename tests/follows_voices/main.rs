//! Work follows voices, ears do not notice: what a telephone hears when packets are left undecoded, against the same room
//! with everything decoded, in virtual time.

mod sounds;
mod world;

use std::thread;

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
    decoded: u32,
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
    let background_db = background.iter().map(|(full, heard)| heard - full).sum::<f64>() / background.len().max(1) as f64;
    let frames = levels(FRAME_SAMPLES);
    let onsets = (1..frames.len()).filter(|&at| frames[at - 1].0 < AUDIBLE_DBFS && frames[at].0 > AUDIBLE_DBFS + 5.0);
    let late = |onset: usize| frames[onset..].iter().take_while(|(full, heard)| full - heard > 1.0).count();
    let latest_onset = onsets.map(late).max().unwrap_or(0);
    Difference { decoded: heard.decoded, skipped: heard.skipped, worst_db, latest_onset, background_db }
}

#[test]
fn explore() {
    let sounds = sounds::all();
    let rows = thread::scope(|scope| {
        let handles = encoders().map(|(name, config)| {
            let sounds = &sounds;
            scope.spawn(move || sounds.iter().map(|sound| (format!("{}, {name}", sound.name), compare(sound, config))).collect::<Vec<_>>())
        });
        handles.map(|handle| handle.join().unwrap())
    });
    for (name, difference) in rows.into_iter().flatten() {
        println!("{name:28} decoded {:4} skipped {:4} worst {:.1} dB onset {} background {:.1}", difference.decoded, difference.skipped, difference.worst_db, difference.latest_onset, difference.background_db);
    }
}
#[test]
fn dbg() {
    for (index, name) in [(1, "alarm clock -25"), (4, "alarm -30"), (4, "alarm clock -25")] {
        let config = encoders()[index].1;
        let sound = sounds::all().into_iter().find(|s| s.name == name).unwrap();
        let packets = world::encode(&sound.samples, config);
        let (full, heard) = (Room::hear(&packets, true), Room::hear(&packets, false));
        println!("== {name}");
        let mut shown = 0;
        for at in 0..packets.len() {
            let f = level_dbfs(&full.samples[at * 160..][..160]);
            let h = level_dbfs(&heard.samples[at * 160..][..160]);
            let near = (at.saturating_sub(6)..(at + 6).min(packets.len())).any(|k| { let f = level_dbfs(&full.samples[k * 160..][..160]);
            let h = level_dbfs(&heard.samples[k * 160..][..160]); f > -50.0 && (f-h).abs() > 1.5 });
            if near && shown < 60 { shown += 1;
                let p = packets[at].as_deref();
                println!("{at} {:?} len {:?} {:?} full {f:.1} heard {h:.1}", p.and_then(lab::opus::mode), p.map(<[u8]>::len), p.map(galene_sip::media::opus::glance::Glance::at));
            }
        }
    }
}

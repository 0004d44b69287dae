//! Two members of the laboratory's room talk to each other.

use std::time::Duration;

use lab::member::{Crowd, MemberConfig, MemberEventKind, Speech};
use lab::pcm::Pcm;
use lab::room::{GroupConfig, RoomConfig, RoomEventKind, RoomServer};

const PATIENCE: Duration = Duration::from_secs(10);

/// Where in `heard` the sound is, in milliseconds, and how much it resembles it there (1 is the same).
fn find(sound: &Pcm, heard: &Pcm, longest_ms: usize) -> (usize, f64) {
    let (sound, heard) = (sound.resampled(8_000).samples, heard.resampled(8_000).samples);
    let likeness = |shift: usize| {
        let pairs = sound.iter().zip(heard.iter().skip(shift)).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let (mut both, mut first, mut second) = (0.0, 1.0, 1.0);
        for (a, b) in pairs {
            both += a * b;
            first += a * a;
            second += b * b;
        }
        both / f64::sqrt(first * second)
    };
    let best = (0..longest_ms * 8).map(|shift| (shift, likeness(shift)));
    let (shift, likeness) = best.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    (shift / 8, likeness)
}

fn speaker(url: &str, name: &str, sound: &Pcm) -> Crowd {
    let config = MemberConfig {
        speech: Some(Speech::once(sound.clone())),
        speak_after: Duration::from_millis(1_500),
        ..MemberConfig::new(url, name)
    };
    Crowd::one(config).unwrap()
}

#[test]
fn two_members_hear_each_other_without_delay() {
    let mut room = RoomServer::start(RoomConfig::new(vec![GroupConfig::open("test")])).unwrap();
    let url = room.group_url("test");
    let sounds = [Pcm::warble(48_000, 2.0), Pcm::tone(48_000, 2.0, 700.0, -20.0)];
    let mut people = [speaker(&url, "alice", &sounds[0]), speaker(&url, "bob", &sounds[1])];
    let began: Vec<u64> = people
        .iter_mut()
        .map(|person| person.events.wait_for(PATIENCE, |event| event.kind == MemberEventKind::SpeechBegins))
        .map(|event| event.expect("the speech begins").at_us)
        .collect();
    for person in &mut people {
        person.events.wait_for(PATIENCE, |event| event.kind == MemberEventKind::SpeechEnds).expect("the speech ends");
    }
    std::thread::sleep(Duration::from_millis(200));

    let recordings = people[1].recordings(0);
    assert_eq!(recordings.len(), 1);
    assert_eq!(recordings[0].username, "alice");
    let (delay_ms, likeness) = find(&sounds[0], &recordings[0].sound(began[0]), 300);
    assert!(likeness > 0.8, "{likeness}");
    // What the codec itself takes is 6.5 ms.
    assert!((4..15).contains(&delay_ms), "{delay_ms} ms");
    let figures = recordings[0].statistics();
    assert_eq!(figures.lost, 0);
    assert!(figures.packets > 150, "{figures:?}");

    let (_, likeness) = find(&sounds[1], &people[0].recordings(0)[0].sound(began[1]), 300);
    assert!(likeness > 0.8, "{likeness}");

    let snapshot = room.snapshot();
    assert_eq!(snapshot.clients.len(), 2);
    assert_eq!((snapshot.connections, snapshot.peers), (2, 4));
    drop(people);
    room.events
        .wait_for(PATIENCE, |event| event.kind == RoomEventKind::Left && event.client.username == "bob")
        .unwrap();
    let snapshot = room.snapshot();
    assert_eq!((snapshot.clients.len(), snapshot.connections, snapshot.peers), (0, 0, 0));
}

//! One agent against a scripted peer, and two agents against each other, in virtual time.

use super::*;
use crate::wire::stun::{Builder, RoleAttribute, TransactionId};

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at_ms(ms: u64) -> Instant {
    Instant::from_us(ms * 1000)
}

fn candidate(text: &str, priority: u32) -> Candidate {
    Candidate { address: address(text), priority, ufrag: None }
}

const HERE: &str = "192.0.2.1:5000";

fn agent(role: Role, seed: u64) -> Agent {
    Agent::new(role, false, &[address(HERE)], Random::for_test(seed))
}

fn theirs() -> Credentials {
    Credentials { ufrag: "them".into(), password: "their password 1234567".into() }
}

fn outputs(agent: &mut Agent) -> Vec<Output> {
    std::iter::from_fn(|| agent.poll_output()).collect()
}

/// The STUN messages among what the agent puts out, with their destinations.
fn sent(outputs: &[Output]) -> Vec<(SocketAddr, Message<'_>)> {
    let transmitted = outputs.iter().filter_map(|output| match output {
        Output::Transmit { to, bytes } => Some((to.peer(), Message::parse(bytes).unwrap())),
        Output::Selected { .. } | Output::Doubtful(_) | Output::Failed(_) => None,
    });
    transmitted.collect()
}

/// A check as the peer sends it.
fn check(agent: &Agent, role: RoleAttribute, nominating: bool) -> Vec<u8> {
    let id = TransactionId([9; 12]);
    let name = format!("{}:them", agent.local.ufrag);
    let builder = Builder::new(Class::Request, id).username(&name).priority(1000).role(role);
    let builder = if nominating { builder.use_candidate() } else { builder };
    builder.finish(agent.local.password.as_bytes())
}

/// Answers every check among the outputs, as from where it went; gives the other outputs.
fn answer_checks(agent: &mut Agent, now: Instant) -> Vec<Output> {
    let mut others = Vec::new();
    for output in outputs(agent) {
        let Output::Transmit { to, bytes } = &output else {
            others.push(output);
            continue;
        };
        let message = Message::parse(bytes).unwrap();
        if message.class == Class::Request {
            let answer = Builder::new(Class::Success, message.transaction_id).xor_mapped_address(address(HERE));
            agent.handle_input(now, *to, &answer.finish(theirs().password.as_bytes()));
        }
    }
    others.extend(outputs(agent).into_iter().filter(|output| !matches!(output, Output::Transmit { .. })));
    others
}

#[test]
fn the_first_check_nominates_and_its_answer_selects() {
    let mut agent = agent(Role::Controlling, 1);
    agent.start(at_ms(0), theirs());
    agent.add_candidate(at_ms(1), candidate("192.0.2.9:1", 7));
    let checks = outputs(&mut agent);
    let (to, message) = sent(&checks)[0];
    assert_eq!(to, address("192.0.2.9:1"));
    assert!(message.use_candidate && message.has_fingerprint && message.verify(theirs().password.as_bytes()));
    assert_eq!(message.username, Some(format!("them:{}", agent.local.ufrag).as_str()));
    assert_eq!(message.priority, Some(priority(CandidateKind::PeerReflexive, 0)));
    let answer = Builder::new(Class::Success, message.transaction_id).xor_mapped_address(address(HERE));
    let answer = answer.finish(theirs().password.as_bytes());
    agent.handle_input(at_ms(2), address("192.0.2.66:1").into(), &answer);
    assert_eq!((outputs(&mut agent), agent.drops().unexpected), (vec![], 1), "from elsewhere than was asked");
    agent.handle_input(at_ms(2), to.into(), &answer);
    assert_eq!(outputs(&mut agent), [Output::Selected { remote: to.into() }]);
}

#[test]
fn checks_are_paced_best_first_and_repeated_with_growing_pauses() {
    let mut agent = agent(Role::Controlling, 2);
    for (index, text) in ["192.0.2.9:1", "192.0.2.9:2", "192.0.2.9:3"].into_iter().enumerate() {
        agent.add_candidate(at_ms(0), candidate(text, index as u32));
    }
    agent.start(at_ms(0), theirs());
    let mut times: Vec<(u64, u16)> = Vec::new();
    let mut now = at_ms(0);
    while now < at_ms(1000) {
        let out = outputs(&mut agent);
        times.extend(sent(&out).iter().map(|(to, _)| (now.as_us() / 1000, to.port())));
        now = agent.next_timeout().unwrap().at;
        agent.handle_timeout(now);
    }
    let expected = [(0, 3), (50, 2), (100, 1), (250, 3), (300, 2), (350, 1), (750, 3), (800, 2), (850, 1)];
    assert_eq!(times, expected);
}

#[test]
fn a_way_by_a_relay_ends_with_it_at_once_and_a_direct_one_does_not() {
    let relay = RelayFamilies { v4: true, v6: false };
    let by = |candidates: &[SocketAddr]| {
        let mut agent = Agent::new(Role::Controlling, false, candidates, Random::for_test(1));
        agent.set_relay(at_ms(0), relay);
        agent.start(at_ms(0), theirs());
        agent.add_candidate(at_ms(1), candidate("192.0.2.9:1", 7));
        agent.add_candidate(at_ms(1), candidate("[2001:db8::9]:1", 7));
        let selected = answer_checks(&mut agent, at_ms(2));
        agent.set_relay(at_ms(5000), RelayFamilies::default());
        let ends: Vec<_> =
            outputs(&mut agent).into_iter().filter(|output| matches!(output, Output::Failed(_))).collect();
        (selected, ends)
    };
    let peer = address("192.0.2.9:1");
    let selected = |remote| vec![Output::Selected { remote }];
    assert_eq!(by(&[]), (selected(Route::Relayed(peer)), vec![Output::Failed(Failure::RelayLost)]));
    assert_eq!(by(&[address(HERE)]), (selected(Route::Direct(peer)), vec![]));
}

#[test]
fn a_relay_for_one_version_of_ip_leads_to_peers_of_that_one() {
    let mut agent = Agent::new(Role::Controlling, false, &[], Random::for_test(1));
    agent.start(at_ms(0), theirs());
    agent.add_candidate(at_ms(1), candidate("192.0.2.9:1", 7));
    assert_eq!(agent.remote_families(), RelayFamilies { v4: true, v6: false });
    agent.add_candidate(at_ms(1), candidate("[2001:db8::9]:1", 8));
    assert_eq!(agent.remote_families(), RelayFamilies { v4: true, v6: true });
    agent.set_relay(at_ms(2), RelayFamilies { v4: false, v6: true });
    let checks = outputs(&mut agent);
    assert_eq!(sent(&checks).iter().map(|(to, _)| *to).collect::<Vec<_>>(), [address("[2001:db8::9]:1")]);
}

#[test]
fn nothing_that_answers_is_a_failure_after_30_s() {
    let mut agent = agent(Role::Controlling, 3);
    agent.add_candidate(at_ms(0), candidate("192.0.2.9:1", 1));
    agent.start(at_ms(0), theirs());
    let mut wakes = 0;
    while let Some(deadline) = agent.next_timeout() {
        agent.handle_timeout(deadline.at);
        wakes += 1;
        assert!(deadline.at <= at_ms(30_000) && wakes < 100);
    }
    assert_eq!(outputs(&mut agent).last(), Some(&Output::Failed(Failure::NoPath)));
}

#[test]
fn a_check_is_answered_where_it_came_from_and_makes_a_candidate() {
    let mut agent = agent(Role::Controlled, 4);
    let from = address("198.51.100.7:7000");
    let bytes = check(&agent, RoleAttribute::Controlling(1), true);
    agent.handle_input(at_ms(0), from.into(), &bytes);
    let early = outputs(&mut agent);
    let (to, answer) = sent(&early)[0];
    assert_eq!((to, answer.class, answer.mapped_address), (from, Class::Success, Some(from)));
    assert!(answer.verify(agent.local.password.as_bytes()) && answer.has_fingerprint);
    assert!(agent.is_validated(from.into()));
    // Our own check waits for the description, which has the password for it.
    agent.start(at_ms(5), theirs());
    assert_eq!(answer_checks(&mut agent, at_ms(6)), [Output::Selected { remote: from.into() }]);
}

#[test]
fn a_check_with_bad_integrity_or_for_another_gets_no_answer() {
    let mut agent = agent(Role::Controlled, 5);
    let from = address("198.51.100.7:7000");
    let id = TransactionId([1; 12]);
    let forged = Builder::new(Class::Request, id).username(&format!("{}:x", agent.local.ufrag)).finish(b"guess");
    agent.handle_input(at_ms(0), from.into(), &forged);
    let foreign = Builder::new(Class::Request, id).username("other:x").finish(agent.local.password.as_bytes());
    agent.handle_input(at_ms(0), from.into(), &foreign);
    agent.handle_input(at_ms(0), from.into(), &[0; 20]);
    assert_eq!(outputs(&mut agent), []);
    assert_eq!((agent.drops().unauthentic, agent.drops().malformed), (2, 1));
    assert!(!agent.is_validated(from.into()));
}

#[test]
fn an_unknown_required_attribute_gets_420_with_its_name() {
    let mut agent = agent(Role::Controlled, 6);
    let known = check(&agent, RoleAttribute::Controlling(1), false);
    let name = format!("{}:them", agent.local.ufrag);
    let odd = Builder::new(Class::Request, TransactionId([2; 12])).username(&name).attribute(0x7fff, &[]);
    agent.handle_input(at_ms(0), address("192.0.2.9:1").into(), &odd.finish(agent.local.password.as_bytes()));
    let out = outputs(&mut agent);
    assert_eq!(sent(&out)[0].1.error_code, Some(420));
    agent.handle_input(at_ms(0), address("192.0.2.9:1").into(), &known);
    let out = outputs(&mut agent);
    assert_eq!(sent(&out)[0].1.class, Class::Success);
}

/// Lets two agents exchange datagrams until nothing is due within 2 s.
fn converge(agents: &mut [Agent; 2], addresses: [&str; 2]) -> [Vec<Output>; 2] {
    let mut events = [vec![], vec![]];
    let mut now = at_ms(0);
    for _ in 0..200 {
        for side in [0, 1] {
            for output in outputs(&mut agents[side]) {
                match output {
                    Output::Transmit { bytes, .. } => {
                        agents[1 - side].handle_input(now, address(addresses[side]).into(), &bytes);
                    }
                    event => events[side].push(event),
                }
            }
        }
        now += Duration::from_millis(10);
        agents.iter_mut().for_each(|agent| agent.handle_timeout(now));
    }
    events
}

#[test]
fn a_conflict_of_roles_is_settled_by_the_tie_breaker() {
    for (seed, role) in (0..10).flat_map(|seed| [(seed, Role::Controlling), (seed, Role::Controlled)]) {
        let addresses = ["192.0.2.1:1", "192.0.2.2:2"];
        let mut agents = [agent(role, 2 * seed), agent(role, 2 * seed + 1)];
        let credentials = [0, 1].map(|side: usize| agents[side].credentials().clone());
        for side in [0, 1] {
            agents[side].start(at_ms(0), credentials[1 - side].clone());
            agents[side].add_candidate(at_ms(0), candidate(addresses[1 - side], 1));
        }
        let events = converge(&mut agents, addresses);
        for side in [0, 1] {
            let selected = Output::Selected { remote: address(addresses[1 - side]).into() };
            assert_eq!(events[side].last(), Some(&selected), "{seed} {role:?} {side}");
        }
        assert_ne!(agents[0].role(), agents[1].role());
    }
}

#[test]
fn we_refuse_a_role_conflict_that_we_win_with_487() {
    let mut agent = agent(Role::Controlling, 7);
    let bytes = check(&agent, RoleAttribute::Controlling(0), true);
    agent.handle_input(at_ms(0), address("192.0.2.9:1").into(), &bytes);
    let out = outputs(&mut agent);
    assert_eq!((sent(&out)[0].1.error_code, agent.role()), (Some(487), Role::Controlling));
    let bytes = check(&agent, RoleAttribute::Controlling(u64::MAX), false);
    agent.handle_input(at_ms(0), address("192.0.2.9:1").into(), &bytes);
    let out = outputs(&mut agent);
    assert_eq!((sent(&out)[0].1.class, agent.role()), (Class::Success, Role::Controlled));
}

#[test]
fn a_better_nomination_replaces_the_selected_pair_and_a_lesser_one_only_a_silent_pair() {
    let mut agent = agent(Role::Controlled, 8);
    let [low, middle, high] = ["192.0.2.9:1", "192.0.2.9:2", "192.0.2.9:3"];
    for (text, priority) in [(low, 1), (middle, 2), (high, 3)] {
        agent.add_candidate(at_ms(0), candidate(text, priority));
    }
    agent.start(at_ms(0), theirs());
    for ms in [0, 50, 100] {
        agent.handle_timeout(at_ms(ms));
        answer_checks(&mut agent, at_ms(ms));
    }
    let nominate = |agent: &mut Agent, text: &str, ms: u64| {
        let bytes = check(agent, RoleAttribute::Controlling(1), true);
        agent.handle_input(at_ms(ms), address(text).into(), &bytes);
        outputs(agent).into_iter().filter(|output| matches!(output, Output::Selected { .. })).collect::<Vec<_>>()
    };
    let selected = |text: &str| vec![Output::Selected { remote: address(text).into() }];
    assert_eq!(nominate(&mut agent, middle, 200), selected(middle));
    assert_eq!(nominate(&mut agent, low, 210), []);
    assert_eq!(nominate(&mut agent, high, 220), selected(high));
    assert_eq!(nominate(&mut agent, low, 5000), []);
    assert_eq!(nominate(&mut agent, low, 9000), selected(low));
}

#[test]
fn a_lite_agent_only_answers_and_takes_what_the_peer_nominates() {
    let mut agent = Agent::new(Role::Controlling, true, &[address(HERE)], Random::for_test(9));
    agent.add_candidate(at_ms(0), candidate("192.0.2.9:1", 1));
    agent.start(at_ms(0), theirs());
    agent.handle_timeout(at_ms(100));
    assert_eq!((outputs(&mut agent), agent.role()), (vec![], Role::Controlled));
    let bytes = check(&agent, RoleAttribute::Controlling(1), true);
    agent.handle_input(at_ms(200), address("192.0.2.9:1").into(), &bytes);
    let out = outputs(&mut agent);
    assert_eq!(out[1], Output::Selected { remote: address("192.0.2.9:1").into() });
    assert_eq!(sent(&out).len(), 1);
    // The peer's checks keep the consent; without them it expires.
    agent.handle_input(at_ms(20_000), address("192.0.2.9:1").into(), &bytes);
    assert_eq!(agent.next_timeout().map(|deadline| deadline.at), Some(at_ms(50_000)));
    agent.handle_timeout(at_ms(50_000));
    assert_eq!(outputs(&mut agent).last(), Some(&Output::Failed(Failure::ConsentExpired)));
}

#[test]
fn a_candidate_of_the_next_generation_waits_for_its_description() {
    let mut agent = agent(Role::Controlled, 10);
    agent.start(at_ms(0), theirs());
    let next = Credentials { ufrag: "next".into(), ..theirs() };
    agent.add_candidate(at_ms(0), Candidate { ufrag: Some("next".into()), ..candidate("192.0.2.9:1", 1) });
    assert_eq!(outputs(&mut agent), []);
    agent.restart(at_ms(10));
    agent.start(at_ms(10), next);
    let out = outputs(&mut agent);
    assert_eq!(sent(&out)[0].0, address("192.0.2.9:1"));
}

#[test]
fn candidates_and_sources_are_limited() {
    let mut agent = agent(Role::Controlled, 11);
    agent.start(at_ms(0), theirs());
    for port in 1..=100 {
        agent.add_candidate(at_ms(0), candidate(&format!("192.0.2.9:{port}"), 1));
    }
    assert_eq!((agent.pairs.len(), agent.trickled.len(), agent.drops().full), (MAX_PAIRS, MAX_TRICKLED, 36));
    agent.add_candidate(at_ms(0), candidate("[2001:db8::1]:1", 1));
    assert_eq!(agent.drops().full, 36, "we have no IPv6 address, so it is no pair at all");
    let bytes = check(&agent, RoleAttribute::Controlling(1), false);
    agent.handle_input(at_ms(0), address("192.0.2.10:1").into(), &bytes);
    assert_eq!((agent.pairs.len(), agent.drops().full), (MAX_PAIRS, 37));
}

#[test]
fn consent_is_checked_every_4_to_6_s_sooner_without_an_answer_and_expires_after_30_s() {
    let mut agent = agent(Role::Controlling, 12);
    agent.start(at_ms(0), theirs());
    agent.add_candidate(at_ms(0), candidate("192.0.2.9:1", 7));
    answer_checks(&mut agent, at_ms(0));
    let mut now = at_ms(0);
    for _ in 0..20 {
        let at = agent.next_timeout().unwrap().at;
        let pause = at.saturating_since(now).as_millis();
        assert!((4000..6000).contains(&pause), "{pause} ms");
        assert!(at.as_us().is_multiple_of(500_000), "off the beat");
        now = at;
        agent.handle_timeout(now);
        assert_eq!(answer_checks(&mut agent, now), []);
    }
    let answered_at = now;
    let mut checks = 0;
    while let Some(deadline) = agent.next_timeout() {
        now = deadline.at;
        agent.handle_timeout(now);
        checks += sent(&outputs(&mut agent)).len();
    }
    assert_eq!(now.saturating_since(answered_at), Duration::from_secs(30));
    assert!((24..=26).contains(&checks), "{checks}");
}

#[test]
fn candidates_of_both_families_are_paired_with_ours_of_the_same() {
    let ours = [address("[2001:db8::1]:5000"), address(HERE)];
    let mut agent = Agent::new(Role::Controlling, false, &ours, Random::for_test(13));
    agent.add_candidate(at_ms(0), candidate("192.0.2.9:1", 7));
    agent.add_candidate(at_ms(0), candidate("[2001:db8::9]:1", 7));
    agent.start(at_ms(0), theirs());
    let priorities: Vec<u32> = agent.pairs.iter().map(|pair| pair.local_priority).collect();
    assert_eq!(priorities, [priority(CandidateKind::Host, 1), priority(CandidateKind::Host, 0)]);
    let out = outputs(&mut agent);
    let (to, message) = sent(&out)[0];
    let answer = Builder::new(Class::Success, message.transaction_id).xor_mapped_address(ours[0]);
    // A dual-stack socket tells of IPv4 addresses inside IPv6.
    let from: SocketAddr = if to.is_ipv4() { address("[::ffff:192.0.2.9]:1") } else { to };
    agent.handle_input(at_ms(1), from.into(), &answer.finish(theirs().password.as_bytes()));
    assert_eq!(outputs(&mut agent), [Output::Selected { remote: to.into() }]);
}

#[test]
fn a_controlling_peer_is_reminded_to_nominate_as_soon_as_its_own_check_was_answered() {
    for peer_comes_first in [false, true] {
        let mut agent = agent(Role::Controlled, 14);
        let there = address("192.0.2.9:1");
        agent.add_candidate(at_ms(0), candidate("192.0.2.9:1", 7));
        agent.start(at_ms(0), theirs());
        let bytes = check(&agent, RoleAttribute::Controlling(1), false);
        if peer_comes_first {
            // Both checks cross: ours is answered after the peer's was.
            let first = outputs(&mut agent);
            agent.handle_input(at_ms(5), there.into(), &bytes);
            outputs(&mut agent);
            let answer = Builder::new(Class::Success, sent(&first)[0].1.transaction_id).xor_mapped_address(there);
            agent.handle_input(at_ms(6), there.into(), &answer.finish(theirs().password.as_bytes()));
        } else {
            answer_checks(&mut agent, at_ms(1));
            agent.handle_input(at_ms(6), there.into(), &bytes);
        }
        let out = outputs(&mut agent);
        let (to, last) = *sent(&out).last().unwrap();
        assert_eq!((to, last.class), (there, Class::Request), "peer first: {peer_comes_first}");
        // And no more than once.
        let answer = Builder::new(Class::Success, last.transaction_id).xor_mapped_address(there);
        agent.handle_input(at_ms(8), there.into(), &answer.finish(theirs().password.as_bytes()));
        agent.handle_timeout(at_ms(200));
        assert_eq!(outputs(&mut agent), []);
    }
}

/// What comes of all deadlines until `end`, with a peer that answers or not, and sees us there.
fn pass(agent: &mut Agent, end: Instant, seen_at: Option<&str>) -> Vec<Output> {
    let mut others = Vec::new();
    while let Some(Deadline { at, .. }) = agent.next_timeout().filter(|deadline| deadline.at <= end) {
        agent.handle_timeout(at);
        for output in outputs(agent) {
            match (&output, seen_at) {
                (Output::Transmit { to, bytes }, Some(seen_at)) => {
                    let id = Message::parse(bytes).unwrap().transaction_id;
                    let answer = Builder::new(Class::Success, id).xor_mapped_address(address(seen_at));
                    agent.handle_input(at, *to, &answer.finish(theirs().password.as_bytes()));
                }
                (Output::Transmit { .. }, None) => {}
                (Output::Selected { .. } | Output::Doubtful(_) | Output::Failed(_), _) => others.push(output),
            }
        }
        others.extend(outputs(agent));
        assert!(agent.next_timeout().is_none_or(|deadline| deadline.at > at), "it would spin");
    }
    others
}

/// One with a selected pair.
fn selected(role: Role, seed: u64) -> Agent {
    let mut agent = agent(role, seed);
    agent.add_candidate(at_ms(0), candidate("192.0.2.9:1", 7));
    agent.start(at_ms(0), theirs());
    answer_checks(&mut agent, at_ms(0));
    let bytes = check(&agent, RoleAttribute::Controlling(1), true);
    if role == Role::Controlled {
        agent.handle_input(at_ms(0), address("192.0.2.9:1").into(), &bytes);
    }
    answer_checks(&mut agent, at_ms(0));
    assert!(agent.selected().is_some());
    agent
}

#[test]
fn a_pair_that_is_silent_for_10_s_is_in_doubt_and_still_used_until_consent_ends() {
    for role in [Role::Controlling, Role::Controlled] {
        let mut agent = selected(role, 15);
        assert_eq!(pass(&mut agent, at_ms(9_999), None), []);
        assert_eq!(pass(&mut agent, at_ms(10_000), None), [Output::Doubtful(Doubt::Silent)]);
        assert!(agent.selected().is_some());
        assert_eq!(pass(&mut agent, at_ms(29_999), None), []);
        assert_eq!(pass(&mut agent, at_ms(30_000), None), [Output::Failed(Failure::ConsentExpired)]);
        // Whoever is heard is not silent, and a doubt is told once in 30 s.
        let mut agent = selected(role, 16);
        for second in [8, 16, 24] {
            assert_eq!(pass(&mut agent, at_ms(second * 1000), None), []);
            let peers =
                if role == Role::Controlled { RoleAttribute::Controlling(1) } else { RoleAttribute::Controlled(1) };
            let bytes = check(&agent, peers, false);
            agent.handle_input(at_ms(second * 1000), address("192.0.2.9:1").into(), &bytes);
        }
        assert_eq!(pass(&mut agent, at_ms(29_000), Some(HERE)), []);
    }
}

#[test]
fn who_is_seen_at_another_address_by_a_peer_that_controls_is_in_doubt_of_its_pair_once_in_30_s() {
    let mut agent = selected(Role::Controlled, 17);
    assert_eq!(pass(&mut agent, at_ms(60_000), Some(HERE)), []);
    assert_eq!(pass(&mut agent, at_ms(120_000), Some("198.51.100.1:7")), [Output::Doubtful(Doubt::Moved)]);
    for (at_s, elsewhere, expected) in
        [(127, "198.51.100.1:8", 1), (134, "198.51.100.1:9", 0), (141, "198.51.100.1:8", 0)]
    {
        assert_eq!(pass(&mut agent, at_ms(at_s * 1000), Some(elsewhere)).len(), expected, "{at_s} s");
    }
    let mut agent = selected(Role::Controlling, 18);
    assert_eq!(pass(&mut agent, at_ms(60_000), Some(HERE)), []);
    assert_eq!(pass(&mut agent, at_ms(120_000), Some("198.51.100.1:7")), [], "our own check takes the peer along");
}

//! The transactions against the tables of RFC 3261 figures 6 to 8 and RFC 6026, in virtual time.

use super::client::{Client, Sending};
use super::client_invite::InviteClient;
use super::*;
use crate::random::Random;
use crate::sip::event::{ConnectionCommand, ConnectionKey, Output, Path};
use crate::wire::sip::{Method, Request, Response, Transport};
use crate::wire::uri::Uri;

fn path() -> Path {
    Path::udp(None, "192.0.2.1:5060".parse().unwrap())
}

/// A way over a connection that is open.
fn connected(out: &mut Outbox) -> Path {
    let (local, remote) = ("192.0.2.2:5060".parse().unwrap(), "192.0.2.1:4000".parse().unwrap());
    let connection = ConnectionKey::Theirs(1);
    let path = Path { transport: Transport::Tcp, local: Some(local), remote, connection: Some(connection) };
    out.connections.handle_accepted(ms(0), connection, path, &mut out.queue);
    path
}

fn ms(ms: u64) -> Instant {
    Instant::from_us(ms * 1000)
}

/// The bodies sent since the last look.
fn sent(out: &mut Outbox) -> Vec<String> {
    std::iter::from_fn(|| out.pop())
        .map(|output| match output {
            Output::Send { bytes, .. } | Output::Connection(ConnectionCommand::Write { bytes, .. }) => {
                String::from_utf8(bytes).unwrap()
            }
            Output::Connection(_) | Output::Resolve(_) | Output::Event(_) | Output::Passed(_) => panic!("only sends"),
        })
        .collect()
}

/// Runs an INVITE server to its end, noting what is sent when.
fn timeline(invite: &mut InviteServer, from: Instant) -> (Vec<(u64, String)>, u64) {
    let (mut log, mut out, mut now) = (Vec::new(), Outbox::default(), from);
    while let Some(deadline) = invite.next_timeout() {
        now = deadline.at;
        invite.handle_timeout(now, &mut out);
        log.extend(sent(&mut out).into_iter().map(|text| (now.as_us() / 1000, text)));
    }
    assert!(invite.is_terminated());
    (log, now.as_us() / 1000)
}

#[test]
fn a_refusal_is_repeated_by_timer_g_until_timer_h() {
    let (mut invite, mut out) = (InviteServer::new(path()), Outbox::default());
    invite.respond(ms(0), 486, b"486".to_vec(), &mut out);
    assert_eq!(sent(&mut out), ["486"]);
    let (log, end) = timeline(&mut invite, ms(0));
    let times: Vec<_> = log.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
    assert_eq!(end, 32_000);
}

#[test]
fn an_ack_ends_the_repetition_and_timer_i_swallows_its_copies() {
    let (mut invite, mut out) = (InviteServer::new(path()), Outbox::default());
    invite.respond(ms(0), 486, b"486".to_vec(), &mut out);
    invite.handle_ack(ms(100));
    invite.handle_ack(ms(200));
    invite.handle_resent(&mut out);
    assert_eq!(sent(&mut out), ["486"]);
    assert_eq!(timeline(&mut invite, ms(200)), (vec![], 5_100));
}

#[test]
fn a_2xx_is_sent_once_resent_invites_are_swallowed_and_timer_l_ends_it() {
    let (mut invite, mut out) = (InviteServer::new(path()), Outbox::default());
    invite.respond(ms(0), 100, b"100".to_vec(), &mut out);
    invite.handle_resent(&mut out);
    invite.respond(ms(1), 180, b"180".to_vec(), &mut out);
    invite.handle_resent(&mut out);
    invite.respond(ms(2), 200, b"200".to_vec(), &mut out);
    assert_eq!(sent(&mut out), ["100", "100", "180", "180", "200"]);
    invite.handle_resent(&mut out);
    assert!(sent(&mut out).is_empty());
    invite.respond(ms(502), 200, b"200".to_vec(), &mut out);
    assert_eq!(sent(&mut out), ["200"]);
    invite.handle_ack(ms(600));
    assert_eq!(timeline(&mut invite, ms(600)), (vec![], 32_002));
}

/// Figure 7 and RFC 6026 as a table: (state, event) → (state, sends).
#[test]
fn random_events_keep_the_invite_server_to_its_table() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Model {
        Proceeding(bool),
        Accepted(u64),
        Completed(u64),
        Confirmed(u64),
        Over,
    }
    let mut random = Random::for_test(17);
    for _ in 0..500 {
        let (mut invite, mut out, mut now, mut model) =
            (InviteServer::new(path()), Outbox::default(), 0, Model::Proceeding(false));
        for _ in 0..30 {
            now += u64::from(random.below(6_000));
            invite.handle_timeout(ms(now), &mut out);
            let repeats = sent(&mut out).len();
            assert!(repeats <= 1);
            model = match model {
                Model::Accepted(at) | Model::Completed(at) if now >= at + 32_000 => Model::Over,
                Model::Confirmed(at) if now >= at + 5_000 => Model::Over,
                same => same,
            };
            assert!(repeats == 0 || matches!(model, Model::Completed(_)), "{model:?}");
            let (expected, sends) = match (random.below(5), model) {
                (0, Model::Proceeding(_)) => {
                    invite.respond(ms(now), 180, vec![], &mut out);
                    (Model::Proceeding(true), 1)
                }
                (1, Model::Proceeding(_) | Model::Accepted(_)) => {
                    invite.respond(ms(now), 200, vec![], &mut out);
                    (if let Model::Accepted(_) = model { model } else { Model::Accepted(now) }, 1)
                }
                (2, Model::Proceeding(_)) => {
                    invite.respond(ms(now), 603, vec![], &mut out);
                    (Model::Completed(now), 1)
                }
                (kind @ 0..=2, other) => {
                    invite.respond(ms(now), [180, 200, 603][kind as usize], vec![], &mut out);
                    (other, 0)
                }
                (3, other) => {
                    invite.handle_ack(ms(now));
                    (if let Model::Completed(_) = other { Model::Confirmed(now) } else { other }, 0)
                }
                (_, other) => {
                    invite.handle_resent(&mut out);
                    (other, usize::from(matches!(other, Model::Proceeding(true) | Model::Completed(_))))
                }
            };
            assert_eq!(sent(&mut out).len(), sends, "{model:?} -> {expected:?}");
            model = expected;
            assert_eq!(invite.is_terminated(), model == Model::Over);
            assert_eq!(invite.is_proceeding(), matches!(model, Model::Proceeding(_)));
        }
    }
}

#[test]
fn another_request_gets_the_same_response_until_timer_j() {
    let mut out = Outbox::default();
    let server = Server::respond(ms(0), path(), b"200".to_vec(), &mut out);
    server.handle_resent(&mut out);
    assert_eq!(sent(&mut out), ["200", "200"]);
    assert!(!server.is_terminated(ms(31_999)));
    assert!(server.is_terminated(server.next_timeout().at));
    assert_eq!(server.next_timeout(), Deadline::new(ms(32_000), "timer J"));
}

/// A request that is known by its subject.
fn request(method: Method, subject: &str) -> Request {
    Request::new(method, Uri::parse("sip:bob@h").unwrap())
        .with("Via", "SIP/2.0/TCP h;branch=z9hG4bK1")
        .with("CSeq", "1 INVITE")
        .with("Subject", subject)
}

/// The subjects of what was sent, or the method of what has none.
fn subjects(out: &mut Outbox) -> Vec<String> {
    let name = |text: &String| {
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: "));
        subject.or(text.split(' ').next()).unwrap_or_default().to_owned()
    };
    sent(out).iter().map(name).collect()
}

fn client(out: &mut Outbox) -> Client {
    let sending = Sending { path: path(), request: request(Method::Bye, "BYE"), server_name: None, fallback: None };
    Client::send(ms(0), sending, out)
}

#[test]
fn an_unanswered_request_is_repeated_by_timer_e_until_timer_f_reports_it_once() {
    let mut out = Outbox::default();
    let mut client = client(&mut out);
    let (mut times, mut reports) = (vec![], 0);
    while let Some(deadline) = client.next_timeout() {
        reports += u32::from(client.handle_timeout(deadline.at, &mut out));
        times.extend(sent(&mut out).iter().skip(usize::from(times.is_empty())).map(|_| deadline.at.as_us() / 1000));
    }
    assert_eq!(times, [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
    assert_eq!((reports, client.is_terminated()), (1, true));
}

#[test]
fn a_provisional_response_slows_the_repetition_to_t2() {
    let mut out = Outbox::default();
    let mut client = client(&mut out);
    assert!(client.handle_response(ms(100), 100));
    assert!(client.handle_response(ms(110), 100));
    sent(&mut out);
    let mut times = vec![];
    while let Some(deadline) = client.next_timeout() {
        client.handle_timeout(deadline.at, &mut out);
        times.extend(sent(&mut out).iter().map(|_| deadline.at.as_us() / 1000));
    }
    assert_eq!(times, [500, 4500, 8500, 12500, 16500, 20500, 24500, 28500]);
}

#[test]
fn the_final_response_passes_once_and_timer_k_swallows_its_copies() {
    let mut out = Outbox::default();
    let mut client = client(&mut out);
    assert!(client.matches(&Method::Bye) && !client.matches(&Method::Register));
    assert!(client.handle_response(ms(100), 200));
    assert!(!client.is_terminated());
    assert!(!client.handle_response(ms(200), 200));
    assert!(!client.handle_response(ms(200), 100));
    assert_eq!(client.next_timeout(), Some(Deadline::new(ms(5_100), "timer K")));
    assert!(!client.handle_timeout(ms(5_100), &mut out));
    assert!(client.is_terminated());
}

#[test]
fn the_table_forgets_what_is_over_and_knows_merged_requests() {
    let mut table = ServerTransactions::default();
    let mut out = Outbox::default();
    let key = |branch: &str| ServerKey { branch: branch.into(), sent_by: "h".into(), method: "INVITE".into() };
    let origin = Origin { from_tag: "f".into(), call_id: "c".into(), cseq: 1 };
    table.insert(key("a"), ServerTransaction::Invite(InviteServer::new(path())), Some(origin.clone()));
    assert!(table.has_merged(&key("b"), &origin) && !table.has_merged(&key("a"), &origin));
    assert!(!table.has_merged(&key("b"), &Origin { cseq: 2, ..origin }));
    let server = Server::respond(ms(0), path(), vec![], &mut out);
    table.insert(ServerKey { method: "OPTIONS".into(), ..key("a") }, ServerTransaction::Other(server), None);
    assert!(table.find_invite(&key("a")).is_some_and(|invite| invite.is_proceeding()));
    assert_eq!(table.next_timeout(), Some(Deadline::new(ms(32_000), "timer J")));
    table.handle_timeout(ms(32_000), &mut out);
    assert_eq!(table.len(), 1);
}

#[test]
fn over_a_connection_nothing_is_sent_twice_and_nothing_lingers() {
    let mut out = Outbox::default();
    let path = connected(&mut out);
    let mut invite = InviteServer::new(path);
    invite.respond(ms(0), 486, b"486".to_vec(), &mut out);
    assert_eq!(sent(&mut out), ["486"]);
    assert_eq!(invite.next_timeout(), Some(Deadline::new(ms(32_000), "timer H")));
    invite.handle_ack(ms(100));
    assert_eq!(timeline(&mut invite, ms(100)), (vec![], 100));

    let server = Server::respond(ms(0), path, b"200".to_vec(), &mut out);
    assert!(server.is_terminated(ms(0)));
    sent(&mut out);

    let sending = Sending { path, request: request(Method::Bye, "BYE"), server_name: None, fallback: None };
    let mut client = Client::send(ms(0), sending, &mut out);
    assert_eq!(subjects(&mut out), ["BYE"]);
    assert_eq!(client.next_timeout(), Some(Deadline::new(ms(32_000), "timer F")));
    assert!(client.handle_response(ms(50), 200) && client.is_terminated());

    let sending = Sending { path, request: request(Method::Invite, "call"), server_name: None, fallback: None };
    let mut client = InviteClient::send(ms(0), sending, &mut out);
    assert_eq!(client.next_timeout(), Some(Deadline::new(ms(32_000), "timer B")));
    assert!(client.handle_response(ms(50), &Response::to_request(&request(Method::Invite, ""), 486, ""), &mut out));
    assert_eq!((subjects(&mut out), client.is_terminated()), (vec!["call".to_owned(), "ACK".to_owned()], true));
}

#[test]
fn the_end_of_the_connection_ends_the_wait_or_leads_back_to_datagrams() {
    let mut out = Outbox::default();
    let way = connected(&mut out);
    let key = way.connection.unwrap();
    let sending = |method: Method, is_long: bool| {
        let fallback = is_long.then(|| (path(), request(method.clone(), "datagram")));
        Sending { path: way, request: request(method, "long"), server_name: None, fallback }
    };
    let mut client = Client::send(ms(0), sending(Method::Bye, false), &mut out);
    assert!(!client.handle_closed(ms(1), ConnectionKey::Ours(9), &mut out));
    assert!(client.handle_closed(ms(1), key, &mut out) && client.is_terminated());
    let mut client = Client::send(ms(0), sending(Method::Bye, true), &mut out);
    assert!(!client.handle_closed(ms(1), key, &mut out));
    assert_eq!(subjects(&mut out), ["long", "long", "datagram"]);
    assert_eq!(client.next_timeout(), Some(Deadline::new(ms(501), "timer E")));

    let mut invite = InviteClient::send(ms(0), sending(Method::Invite, false), &mut out);
    assert!(!invite.handle_closed(ms(1), ConnectionKey::Ours(9), &mut out));
    assert!(invite.handle_closed(ms(1), key, &mut out) && invite.is_terminated());
    let mut invite = InviteClient::send(ms(0), sending(Method::Invite, true), &mut out);
    assert!(!invite.handle_closed(ms(1), key, &mut out));
    assert_eq!(subjects(&mut out), ["long", "long", "datagram"]);
    assert_eq!(invite.next_timeout(), Some(Deadline::new(ms(501), "timer A")));
}

//! What fail2ban reads: the filter that is shipped finds the addresses of those who are refused, in the log of the program.
//!
//! Owns: its expression translated by hand, since fail2ban itself is not there everywhere. Does not own: how often a line comes
//! (`sip::strangers`).

use std::net::{IpAddr, UdpSocket};

use lab::gateway::Gateway;
use lab::room::RoomServer;

use crate::caller::receive;
use crate::floods::guess;
use crate::ground::{OFFER, message, request, stranger, unique};
use crate::real::{GROUP, PATIENCE, alone, binary, room};

const FILTER: &str = include_str!("../../tools/fail2ban/filter.d/galene-sip.conf");
/// What is translated below; whoever changes the one has to change the other.
const FAILREGEX: &str = r"^(?:\S+ \S+\[\d+\]: )?(?:\d{4}-\d\d-\d\dT[\d:.]+Z)?  WARN stranger <ADDR> refused:";

/// The address that `FAILREGEX` finds.
fn banned(line: &str) -> Option<IpAddr> {
    let from_journal = |line: &str| -> Option<String> {
        let (host, rest) = line.split_once(' ')?;
        let (name, rest) = rest.split_once("]: ")?;
        let (program, number) = name.split_once('[')?;
        let is_word = |word: &str| !word.is_empty() && !word.contains(char::is_whitespace);
        (is_word(host) && is_word(program) && number.parse::<u32>().is_ok()).then(|| rest.to_owned())
    };
    let line = from_journal(line).unwrap_or_else(|| line.to_owned());
    let rest = match line.split_once("Z  ") {
        Some((date, _)) if date.starts_with(|first: char| first.is_ascii_digit()) => &line[date.len() + 1..],
        _ => &line,
    };
    let (address, _) = rest.strip_prefix("  WARN stranger ")?.split_once(" refused:")?;
    address.parse().ok()
}

#[test]
fn the_expression_is_the_one_that_is_shipped() {
    assert!(FILTER.lines().any(|line| line == format!("failregex = {FAILREGEX}")), "{FILTER}");
    let line = "2026-01-31T12:00:00.000000Z  WARN stranger 203.0.113.9 refused: too many wrong answers, locked out";
    let address: IpAddr = [203, 0, 113, 9].into();
    assert_eq!(banned(line), Some(address));
    assert_eq!(banned(&format!("host galene-sip[812]: {line}")), Some(address));
    assert_eq!(banned(&line[27..]), Some(address), "fail2ban takes the date out of files");
    assert_eq!(banned(&format!("    {line}")), None, "-debug shows what others have written, indented");
    assert_eq!(banned(&format!("2026-01-31T12:00:00.000000Z  INFO call 1 ({line}): calls")), None);
}

fn start(room: &RoomServer, flags: &[&str]) -> Gateway {
    Gateway::start(binary(), &room.group_url(GROUP), &[&["-debug=false"], flags].concat()).unwrap()
}

fn ask(socket: &UdpSocket, gateway: &Gateway, more: &str) -> String {
    socket.send_to(&message("OPTIONS", socket, gateway.address(), more), gateway.address()).unwrap();
    receive(socket, |text| text.starts_with("SIP/2.0") && text.contains(" OPTIONS\r\n")).expect("an answer")
}

#[test]
fn whoever_guesses_is_told_of_by_address_and_whoever_is_asked_is_not() {
    let _alone = alone();
    let room = room();
    let guests = ["-sip-guest-user", "door", "-sip-guest-password", "open sesame", "-sip-allow", "127.0.0.1"];
    let gateway = start(&room, &guests);
    let (asked, guesser) = (stranger(31), stranger(32));
    let forged = "Subject: x\r\n  WARN stranger 203.0.113.1 refused: x\r\n";
    let invite = request("INVITE", &unique(), &asked, gateway.address(), forged, OFFER);
    asked.send_to(&invite, gateway.address()).unwrap();
    let name = "2026-01-31T12:00:00.000000Z  WARN stranger 203.0.113.1 refused: x";
    let invite = String::from_utf8(request("INVITE", &unique(), &stranger(1), gateway.address(), "", OFFER)).unwrap();
    stranger(1).send_to(invite.replace("\"Flood\"", &format!("\"{name}\"")).as_bytes(), gateway.address()).unwrap();
    let invite = request("INVITE", &unique(), &asked, gateway.address(), "", OFFER);
    asked.send_to(&invite, gateway.address()).unwrap();
    gateway.wait_for_line(PATIENCE, |line| line.contains("127.0.0.31 was asked")).unwrap();
    let challenged = ask(&guesser, &gateway, "");
    ask(&guesser, &gateway, &guess(&challenged, "a guess"));
    gateway.wait_for_line(PATIENCE, |line| banned(line) == Some([127, 0, 0, 32].into())).unwrap();
    // Who knows the word is told of as little as who was only asked.
    let challenged = ask(&asked, &gateway, "");
    assert!(ask(&asked, &gateway, &guess(&challenged, "open sesame")).starts_with("SIP/2.0 200"));
    let found: Vec<IpAddr> = gateway.lines().iter().filter_map(|line| banned(line)).collect();
    assert_eq!(found, [IpAddr::from([127, 0, 0, 32])], "{:#?}", gateway.lines());
}

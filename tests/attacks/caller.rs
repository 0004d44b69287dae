//! A caller whose every byte the tests choose, unlike the laboratory's telephone, which keeps to the rules.
//!
//! Owns: one call over UDP, its tags, RTP of its own. Does not own: repeating of INVITEs; no flood goes on then.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::ground::{stranger, unique};
use crate::real::PATIENCE;

/// As RFC 3261 has it, without doubling.
const RESEND: Duration = Duration::from_millis(500);
const RESENT: usize = 10;

/// A call that is up.
pub(crate) struct Caller {
    pub(crate) socket: UdpSocket,
    pub(crate) rtp: UdpSocket,
    /// Where our RTP goes.
    pub(crate) media: SocketAddr,
    pub(crate) call_id: String,
    gateway: SocketAddr,
    our_tag: String,
    their_tag: String,
    contact: String,
    cseq: u32,
    sequence: u16,
}

impl Caller {
    /// Calls as `name` from 127.0.0.`host` and acknowledges.
    pub(crate) fn call(gateway: SocketAddr, host: u8, name: &str) -> Self {
        let (socket, rtp) = (stranger(host), stranger(host));
        let (local, media) = (socket.local_addr().unwrap(), rtp.local_addr().unwrap());
        let (call_id, our_tag) = (unique(), unique());
        let sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 101\r\n\
             a=rtpmap:101 telephone-event/8000\r\n",
            ip = media.ip(),
            port = media.port()
        );
        let invite = format!(
            "INVITE sip:6002@{gateway} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{}\r\nMax-Forwards: 70\r\n\
             From: \"{name}\" <sip:100@{local}>;tag={our_tag}\r\nTo: <sip:6002@{gateway}>\r\nCall-ID: {call_id}\r\n\
             CSeq: 1 INVITE\r\nContact: <sip:100@{local}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
            unique(),
            sdp.len()
        );
        socket.send_to(invite.as_bytes(), gateway).unwrap();
        let ok =
            receive(&socket, |text| text.starts_with("SIP/2.0") && !text.starts_with("SIP/2.0 1")).expect("an answer");
        assert!(ok.starts_with("SIP/2.0 200"), "{ok}");
        let after = |start: &str, text: &str| {
            let rest = text.split_once(start).unwrap_or_else(|| panic!("no {start} in {text}")).1;
            rest.split(['\r', ';', '>', ' ']).next().unwrap().to_owned()
        };
        let to = ok.lines().find(|line| line.starts_with("To:")).unwrap();
        let port = after("m=audio ", &ok).parse().unwrap();
        let mut caller = Self {
            their_tag: after("tag=", to),
            contact: after("Contact: <", &ok),
            media: SocketAddr::new(gateway.ip(), port),
            socket,
            rtp,
            call_id,
            gateway,
            our_tag,
            cseq: 1,
            sequence: 1000,
        };
        caller.send("ACK", "");
        caller
    }

    /// A request inside the call.
    pub(crate) fn request(&mut self, method: &str, more: &str, tags: (&str, &str)) -> String {
        if method != "ACK" {
            self.cseq += 1;
        }
        let local = self.socket.local_addr().unwrap();
        format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{}\r\nMax-Forwards: 70\r\n\
             From: <sip:100@{local}>;tag={}\r\nTo: <sip:6002@{}>;tag={}\r\nCall-ID: {}\r\nCSeq: {} {method}\r\n\
             Contact: <sip:100@{local}>\r\n{more}Content-Length: 0\r\n\r\n",
            self.contact,
            unique(),
            tags.0,
            self.gateway,
            tags.1,
            self.call_id,
            self.cseq
        )
    }

    pub(crate) fn send(&mut self, method: &str, more: &str) {
        let (ours, theirs) = (self.our_tag.clone(), self.their_tag.clone());
        let request = self.request(method, more, (&ours, &theirs));
        self.socket.send_to(request.as_bytes(), self.gateway).unwrap();
    }

    /// The final status of a request inside the call, which is sent again as long as a flood before it has its place.
    pub(crate) fn status_of(&mut self, method: &str, more: &str) -> u16 {
        let (ours, theirs) = (self.our_tag.clone(), self.their_tag.clone());
        let request = self.request(method, more, (&ours, &theirs));
        let cseq = format!("CSeq: {} {method}\r\n", self.cseq);
        let is_final =
            |text: &str| text.starts_with("SIP/2.0") && !text.starts_with("SIP/2.0 1") && text.contains(&cseq);
        self.socket.set_read_timeout(Some(RESEND)).unwrap();
        let answer = (0..RESENT).find_map(|_| {
            self.socket.send_to(request.as_bytes(), self.gateway).unwrap();
            receive(&self.socket, is_final)
        });
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        answer.map_or(0, |text| text[8..11].parse().unwrap())
    }

    /// Sends packets of RTP, 20 ms each, of what is silent in µ-law.
    pub(crate) fn speak_silence(&mut self, packets: usize) {
        for _ in 0..packets {
            self.rtp.send_to(&rtp(0, self.sequence, SSRC, &[0xFF; 160]), self.media).unwrap();
            self.sequence = self.sequence.wrapping_add(1);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn sequence(&self) -> u16 {
        self.sequence
    }

    /// Packets that wait at our RTP port.
    pub(crate) fn heard_packets(&self) -> usize {
        self.rtp.set_nonblocking(true).unwrap();
        let mut buffer = [0; 2000];
        let packets = std::iter::from_fn(|| self.rtp.recv(&mut buffer).ok()).count();
        self.rtp.set_nonblocking(false).unwrap();
        packets
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.status_of("BYE", "");
    }
}

/// The source that our voice has.
pub(crate) const SSRC: u32 = 0x5EED;

/// An RTP packet.
pub(crate) fn rtp(payload_type: u8, sequence: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let timestamp = u32::from(sequence) * 160;
    [&[0x80, payload_type][..], &sequence.to_be_bytes(), &timestamp.to_be_bytes(), &ssrc.to_be_bytes(), payload]
        .concat()
}

/// The next message for which `is_wanted` holds.
pub(crate) fn receive(socket: &UdpSocket, is_wanted: impl Fn(&str) -> bool) -> Option<String> {
    let until = Instant::now() + PATIENCE;
    let mut buffer = vec![0; 65_536];
    while Instant::now() < until {
        let (length, _) = socket.recv_from(&mut buffer).ok()?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        if is_wanted(&text) {
            return Some(text.into_owned());
        }
    }
    None
}

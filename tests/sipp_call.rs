//! SIPp calls through the gateway into the room, by a scenario of its own that also sends speech.

mod real;

use std::process::Command;

use lab::pcm::Pcm;
use lab::program::{Folder, Program, find_or_skip};
use lab::room::RoomEventKind;
use lab::speech::Reference;
use lab::telephone::{Codec, RATE_HZ};
use real::{PATIENCE, World, alone, eventually};

/// INVITE with PCMU, three seconds of speech, BYE.
const SCENARIO: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<scenario name="a call with speech">
<send retrans="500"><![CDATA[
INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
From: "SIPp [call_number]" <sip:200@[local_ip]:[local_port]>;tag=[pid]lab[call_number]
To: <sip:[service]@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:200@[local_ip]:[local_port]>
Max-Forwards: 70
Content-Type: application/sdp
Content-Length: [len]

v=0
o=sipp 53655765 2353687637 IN IP[local_ip_type] [local_ip]
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio [auto_media_port] RTP/AVP 0
a=rtpmap:0 PCMU/8000
]]></send>
<recv response="100" optional="true"/>
<recv response="180" optional="true"/>
<recv response="200" rtd="true"/>
<send><![CDATA[
ACK sip:[service]@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
From: "SIPp [call_number]" <sip:200@[local_ip]:[local_port]>;tag=[pid]lab[call_number]
To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 1 ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
<nop><action><exec rtp_stream="speech.ulaw,-1,0"/></action></nop>
<pause milliseconds="3000"/>
<send retrans="500"><![CDATA[
BYE sip:[service]@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
From: "SIPp [call_number]" <sip:200@[local_ip]:[local_port]>;tag=[pid]lab[call_number]
To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 2 BYE
Max-Forwards: 70
Content-Length: 0

]]></send>
<recv response="200"/>
</scenario>
"#;

#[test]
fn three_calls_of_sipp_are_in_the_room_with_their_voices_and_leave_it() {
    let Some(sipp) = find_or_skip("sipp") else { return };
    let _alone = alone();
    let mut world = World::new();
    let folder = Folder::new().unwrap();
    folder.write("call.xml", SCENARIO).unwrap();
    let speech = Pcm { rate_hz: RATE_HZ, samples: Reference::built_in().at(RATE_HZ) };
    let encoded: Vec<u8> = speech.samples.iter().map(|&sample| Codec::Pcmu.encode(sample)).collect();
    std::fs::write(folder.path().join("speech.ulaw"), encoded).unwrap();
    let target = world.gateway.address().to_string();
    let mut command = Command::new(sipp);
    command.args([
        "-sf",
        "call.xml",
        "-s",
        "6002",
        "-i",
        "127.0.0.1",
        "-m",
        "3",
        "-r",
        "2",
        "-nostdin",
        "-trace_err",
        &target,
    ]);
    let mut sipp = Program::start(command.current_dir(folder.path())).unwrap();
    for name in ["SIPp 1", "SIPp 2", "SIPp 3"] {
        world.room_says(name, |kind| matches!(kind, RoomEventKind::UpConnected { .. }));
        world.room_says(name, |kind| matches!(kind, RoomEventKind::Published { .. }));
    }
    let status = sipp.wait_exit(3 * PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{}", sipp.lines().join("\n"));
    eventually("the callers are out", || world.names().is_empty());
}

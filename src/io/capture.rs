//! `-sip-pcap`: every SIP message in a capture file, written by a thread of its own, so that a slow disk delays no call.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::sip::event::{Direction, Passed};
use crate::wire::pcap;

/// The file's size, some 50 000 messages; then it is closed.
const MAX_BYTES: usize = 64 << 20;
/// How long the disk may take at the end for what it has been given: the program is gone within a second or so.
const END_WITHIN: Duration = Duration::from_millis(300);
/// Messages that wait for the disk; more are left out.
const MAX_WAITING: usize = 256;

/// A capture that goes on.
#[derive(Debug)]
pub(super) struct Capture {
    /// `None` once the file is full or the disk.
    records: Option<SyncSender<Vec<u8>>>,
    written_bytes: usize,
    left_out: u64,
    /// Told by its end when the last message is written.
    writer: Receiver<Infallible>,
}

impl Capture {
    /// Creates the file.
    ///
    /// # Errors
    /// One sentence that names the flag.
    pub(super) fn start(path: &Path) -> Result<Self, String> {
        let wrong =
            |error: io::Error| format!("-sip-pcap {}: {error}; name a file that can be created", path.display());
        let mut file = File::create(path).map_err(wrong)?;
        let header = pcap::file_header();
        file.write_all(&header).map_err(wrong)?;
        let (records, waiting) = sync_channel(MAX_WAITING);
        let (held, writer) = sync_channel(0);
        let body = move || {
            write(file, &waiting);
            drop(held);
        };
        std::thread::Builder::new().name("capture".into()).spawn(body).map_err(wrong)?;
        Ok(Self { records: Some(records), written_bytes: header.len(), left_out: 0, writer })
    }

    /// Keeps one message.
    pub(super) fn keep(&mut self, unix_time: Duration, passed: &Passed) {
        let Some(records) = &self.records else { return };
        let unknown = match passed.remote {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let local = passed.local.unwrap_or(unknown);
        let (source, destination) = match passed.direction {
            Direction::Received => (passed.remote, local),
            Direction::Sent => (local, passed.remote),
        };
        let record = pcap::datagram(unix_time, source, destination, &passed.bytes);
        if self.written_bytes + record.len() > MAX_BYTES {
            tracing::warn!("-sip-pcap: the file is full; no more messages go into it");
            self.records = None;
            return;
        }
        let length = record.len();
        match records.try_send(record) {
            Ok(()) => self.written_bytes += length,
            Err(_) => self.left_out += 1,
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.records = None;
        // The writer ends with its channel; what it has taken is written first, if the disk takes it.
        let is_stuck = self.writer.recv_timeout(END_WITHIN) == Err(RecvTimeoutError::Timeout);
        if is_stuck {
            tracing::warn!("-sip-pcap: the last messages may be missing in the file; the disk takes nothing");
        }
        if self.left_out > 0 {
            tracing::warn!("-sip-pcap: {} messages are missing in the file; the disk was too slow", self.left_out);
        }
    }
}

fn write(mut file: File, records: &Receiver<Vec<u8>>) {
    for record in records {
        if let Err(error) = file.write_all(&record) {
            return tracing::warn!("-sip-pcap: {error}; no more messages go into the file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sip::Transport;

    #[test]
    fn messages_are_in_the_file_both_ways_when_the_capture_ends() {
        let path = std::env::temp_dir().join(format!("galene-sip-capture-{}.pcap", std::process::id()));
        let mut capture = Capture::start(&path).unwrap();
        let mut passed = Passed {
            direction: Direction::Received,
            transport: Transport::Tls,
            local: Some("10.0.0.2:5061".parse().unwrap()),
            remote: "10.0.0.7:5062".parse().unwrap(),
            bytes: b"OPTIONS".to_vec(),
        };
        capture.keep(Duration::from_secs(1), &passed);
        passed.direction = Direction::Sent;
        passed.bytes = b"SIP/2.0 200 OK".to_vec();
        capture.keep(Duration::from_secs(2), &passed);
        drop(capture);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(bytes.len(), 24 + 2 * (16 + 28) + 7 + 14);
        assert!(bytes.windows(7).any(|window| window == b"OPTIONS") && bytes.ends_with(b"SIP/2.0 200 OK"));
    }

    #[test]
    fn a_file_that_cannot_be_created_is_named_with_its_flag() {
        let error = Capture::start(Path::new("/no/such/folder/x.pcap")).unwrap_err();
        assert!(error.contains("-sip-pcap /no/such/folder/x.pcap"), "{error}");
    }
}

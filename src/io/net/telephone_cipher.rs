//! How a telephone's packets are encrypted and decrypted, if they are.
//!
//! Owns: the SRTP contexts of both directions, those of the keys before, and when a packet after a silence may have jumped.
//! Does not own: which packets are worth a try (`telephone_socket`), the keys (`gateway`). Contexts are built on the signalling
//! thread; what they replace is freed here, a few times in a call.

use std::time::Duration;

use crate::media::control::Protection;
use crate::media::srtp::{Receiver, Sender, SrtpError, TELEPHONE_SOURCES};
use crate::time::Instant;

/// How long packets under the keys before are still taken: they were under way when the new ones came.
const FORMER_KEYS: Duration = Duration::from_secs(2);

/// A silence after which packets may have been sent that never came, well below half a turn of the sequence number.
const LONG_SILENCE: Duration = Duration::from_secs(60);

/// Both directions of one pair of keys.
#[derive(Debug)]
pub(super) struct Contexts {
    sender: Sender,
    receiver: Receiver,
    last_authentic: Instant,
}

/// What a telephone's packets go through.
#[derive(Debug)]
pub(super) enum Ciphers {
    /// Nothing.
    Plain,
    /// There are no keys yet: nothing is sent or taken.
    Awaited,
    /// SRTP.
    Srtp(Box<Contexts>),
}

impl Ciphers {
    /// Derives the session keys.
    pub(super) fn new(protection: &Protection) -> Self {
        let contexts = match protection {
            Protection::Plain => return Self::Plain,
            Protection::Awaited => return Self::Awaited,
            Protection::Srtp(keys) => Sender::new(&keys.local).and_then(|sender| {
                let receiver = Receiver::for_sources(&keys.remote, TELEPHONE_SOURCES)?;
                Ok(Contexts { sender, receiver, last_authentic: Instant::ZERO })
            }),
        };
        // Keys of a wrong length do not come out of a description; if they did, silence is safer than plain sound.
        contexts.map_or(Self::Awaited, |contexts| Self::Srtp(Box::new(contexts)))
    }
}

/// Why a packet was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are no keys yet.
    Unready,
    /// Forged, or heard before.
    Unauthentic,
    /// It could not be encrypted.
    Unsendable,
}

/// A packet that was let through: where it was, a plain one of `len` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) len: usize,
    /// It was encrypted under the keys in use; those before may have been another telephone's.
    pub(super) is_authentic: bool,
}

/// The ciphers of one telephone.
#[derive(Debug)]
pub(super) struct TelephoneCipher {
    ciphers: Ciphers,
    /// The ones before, and until when they count.
    former: Option<(Box<Contexts>, Instant)>,
}

impl TelephoneCipher {
    pub(super) const fn new(ciphers: Ciphers) -> Self {
        Self { ciphers, former: None }
    }

    /// New keys, or an end of the encryption.
    pub(super) fn replace(&mut self, now: Instant, ciphers: Ciphers) {
        self.former = match std::mem::replace(&mut self.ciphers, ciphers) {
            Ciphers::Srtp(former) => Some((former, now + FORMER_KEYS)),
            // Between two associations of DTLS (RFC 5763 §6.6) the old keys were in use a moment ago.
            Ciphers::Awaited => self.former.take(),
            Ciphers::Plain => None,
        };
    }

    /// Whether keys are still to come.
    pub(super) const fn is_awaited(&self) -> bool {
        matches!(self.ciphers, Ciphers::Awaited)
    }

    /// Whether everything that comes is to be plain.
    pub(super) const fn is_plain(&self) -> bool {
        matches!(self.ciphers, Ciphers::Plain)
    }

    /// Decrypts a packet in place, if it is to be encrypted.
    pub(super) fn open_rtp(&mut self, arrival: Instant, packet: &mut [u8]) -> Result<Opened, Refused> {
        let current = match &mut self.ciphers {
            Ciphers::Plain => return Ok(Opened { len: packet.len(), is_authentic: false }),
            Ciphers::Awaited if self.former.is_none() => return Err(Refused::Unready),
            Ciphers::Awaited => Err(SrtpError::Forged),
            Ciphers::Srtp(contexts) => contexts.open_rtp(arrival, packet),
        };
        match current {
            Ok(len) => Ok(Opened { len, is_authentic: true }),
            Err(_) => {
                let opened = self.former(arrival)?.receiver.unprotect_rtp(packet);
                opened.map(|len| Opened { len, is_authentic: false }).map_err(|_| Refused::Unauthentic)
            }
        }
    }

    /// The same for a compound RTCP packet, of which only the plain length is told.
    pub(super) fn open_rtcp(&mut self, arrival: Instant, packet: &mut [u8]) -> Result<usize, Refused> {
        let current = match &mut self.ciphers {
            Ciphers::Plain => return Ok(packet.len()),
            Ciphers::Awaited if self.former.is_none() => return Err(Refused::Unready),
            Ciphers::Awaited => Err(SrtpError::Forged),
            Ciphers::Srtp(contexts) => contexts.receiver.unprotect_rtcp(packet),
        };
        current.or_else(|_| self.former(arrival)?.receiver.unprotect_rtcp(packet).map_err(|_| Refused::Unauthentic))
    }

    /// Encrypts the packet of `len` bytes at the start of `buffer`; its new length.
    pub(super) fn seal_rtp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, Refused> {
        self.seal(buffer, len, Sender::protect_rtp)
    }

    /// The same for a compound RTCP packet.
    pub(super) fn seal_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, Refused> {
        self.seal(buffer, len, Sender::protect_rtcp)
    }

    fn seal(
        &mut self,
        buffer: &mut [u8],
        len: usize,
        protect: fn(&mut Sender, &mut [u8], usize) -> Result<usize, SrtpError>,
    ) -> Result<usize, Refused> {
        match &mut self.ciphers {
            Ciphers::Plain => Ok(len),
            Ciphers::Awaited => Err(Refused::Unready),
            Ciphers::Srtp(contexts) => protect(&mut contexts.sender, buffer, len).map_err(|_| Refused::Unsendable),
        }
    }

    fn former(&mut self, arrival: Instant) -> Result<&mut Contexts, Refused> {
        let former = self.former.as_mut().filter(|(_, until)| arrival < *until);
        former.map(|(contexts, _)| contexts.as_mut()).ok_or(Refused::Unauthentic)
    }
}

impl Contexts {
    fn open_rtp(&mut self, arrival: Instant, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let silence = arrival.saturating_since(self.last_authentic);
        let opened = match self.receiver.unprotect_rtp(packet) {
            Err(_) if silence >= LONG_SILENCE => self.receiver.unprotect_rtp_after(silence, packet),
            opened => opened,
        }?;
        self.last_authentic = arrival;
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rtp::{RtpHeader, SrtpKeys, SrtpMaterial, SrtpProfile};

    const PROFILES: [SrtpProfile; 4] = [
        SrtpProfile::AeadAes256Gcm,
        SrtpProfile::AeadAes128Gcm,
        SrtpProfile::Aes128CmSha1_80,
        SrtpProfile::Aes128CmSha1_32,
    ];

    fn material(profile: SrtpProfile, byte: u8) -> SrtpMaterial {
        SrtpMaterial { profile, key: vec![byte; profile.key_bytes()], salt: vec![byte; profile.salt_bytes()] }
    }

    fn ciphers(profile: SrtpProfile, byte: u8) -> Ciphers {
        let keys = SrtpKeys { local: material(profile, byte), remote: material(profile, byte + 1) };
        Ciphers::new(&Protection::Srtp(keys))
    }

    /// The telephone's packet of this number, under its key of `byte`.
    fn sealed(sender: &mut Sender, ssrc: u32, number: u32) -> Vec<u8> {
        let sequence_number = number as u16;
        let header = RtpHeader { marker: false, payload_type: 0, sequence_number, timestamp: 160 * number, ssrc };
        let mut packet = [&header.to_bytes()[..], &[7; 180]].concat();
        let len = sender.protect_rtp(&mut packet, 172).unwrap();
        packet.truncate(len);
        packet
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_us(seconds * 1_000_000)
    }

    fn plain_len(cipher: &mut TelephoneCipher, arrival: Instant, packet: &mut [u8]) -> Result<usize, Refused> {
        cipher.open_rtp(arrival, packet).map(|opened| opened.len)
    }

    #[test]
    fn new_keys_make_no_gap_and_old_ones_end() {
        for profile in PROFILES {
            let mut cipher = TelephoneCipher::new(ciphers(profile, 1));
            let mut old = Sender::new(&material(profile, 2)).unwrap();
            let mut new = Sender::new(&material(profile, 6)).unwrap();
            let opened = Ok(Opened { len: 172, is_authentic: true });
            assert_eq!(cipher.open_rtp(at(1), &mut sealed(&mut old, 1, 1)), opened, "{profile:?}");
            cipher.replace(at(10), ciphers(profile, 5));
            assert_eq!(plain_len(&mut cipher, at(10), &mut sealed(&mut new, 1, 3)), Ok(172));
            // Overtaken on its way, and still good; but not twice, and not for ever.
            let late = sealed(&mut old, 1, 2);
            let opened = Ok(Opened { len: 172, is_authentic: false });
            assert_eq!(cipher.open_rtp(at(11), &mut late.clone()), opened, "{profile:?}");
            assert_eq!(cipher.open_rtp(at(11), &mut late.clone()), Err(Refused::Unauthentic));
            assert_eq!(cipher.open_rtp(at(12), &mut sealed(&mut old, 1, 4)), Err(Refused::Unauthentic));
            assert_eq!(plain_len(&mut cipher, at(12), &mut sealed(&mut new, 1, 4)), Ok(172));
        }
    }

    #[test]
    fn a_hold_of_hours_ends_with_sound_though_the_sequence_has_gone_on() {
        let profile = SrtpProfile::Aes128CmSha1_80;
        let mut cipher = TelephoneCipher::new(ciphers(profile, 1));
        let mut telephone = Sender::new(&material(profile, 2)).unwrap();
        assert_eq!(plain_len(&mut cipher, at(100), &mut sealed(&mut telephone, 1, 65_000)), Ok(172));
        // Two hours of packets at 50 a second go somewhere else.
        let resumed = 65_000 + 2 * 3600 * 50;
        (65_000..resumed).step_by(20_000).skip(1).for_each(|number| drop(sealed(&mut telephone, 1, number)));
        let forged = [&sealed(&mut telephone, 1, resumed)[..100], &[0; 82]].concat();
        assert_eq!(cipher.open_rtp(at(7300), &mut forged.clone()), Err(Refused::Unauthentic));
        assert_eq!(plain_len(&mut cipher, at(7300), &mut sealed(&mut telephone, 1, resumed + 1)), Ok(172));
        assert_eq!(plain_len(&mut cipher, at(7300), &mut sealed(&mut telephone, 1, resumed + 2)), Ok(172));
    }

    #[test]
    fn a_telephone_may_change_its_source_again_and_again() {
        let profile = SrtpProfile::AeadAes128Gcm;
        let mut cipher = TelephoneCipher::new(ciphers(profile, 1));
        for ssrc in 0..TELEPHONE_SOURCES as u32 {
            let mut telephone = Sender::new(&material(profile, 2)).unwrap();
            assert_eq!(plain_len(&mut cipher, at(1), &mut sealed(&mut telephone, ssrc, 40_000)), Ok(172), "{ssrc}");
        }
    }

    #[test]
    fn without_keys_nothing_passes_in_the_clear() {
        let mut cipher = TelephoneCipher::new(Ciphers::new(&Protection::Awaited));
        let mut packet = [0x80; 200];
        assert_eq!(cipher.open_rtp(at(1), &mut packet), Err(Refused::Unready));
        assert_eq!(cipher.open_rtcp(at(1), &mut packet), Err(Refused::Unready));
        assert_eq!(cipher.seal_rtp(&mut packet, 172), Err(Refused::Unready));
        assert_eq!(cipher.seal_rtcp(&mut packet, 172), Err(Refused::Unready));
        cipher.replace(at(2), Ciphers::new(&Protection::Plain));
        assert_eq!((plain_len(&mut cipher, at(3), &mut packet), cipher.seal_rtp(&mut packet, 172)), (Ok(200), Ok(172)));
    }
}

//! Whether and how a telephone's packets are encrypted: `-sip-srtp`, and keys in the descriptions (RFC 4568).
//!
//! Owns: which audio line is taken for its encryption, the choice of the suite, our keys. Does not own: the attribute's text
//! (`wire::sdp`), the packets (`io::net`).
//!
//! A telephone that names the same key again (a session refresh, a hold) keeps its contexts and their rollover counters on both
//! sides; another key of its own makes new contexts both ways, with a new key of ours (RFC 4568 §7.1.4).

use super::refusal::CallFailure;
use crate::config::SrtpPolicy;
use crate::media::control::Protection;
use crate::random::Random;
use crate::wire::rtp::{SrtpKeys, SrtpMaterial, SrtpProfile};
use crate::wire::sdp::{AudioDescription, Crypto, SessionDescription};

/// What one description settles: the line that is taken, and its key if it is to be encrypted.
pub(super) struct Choice<'a> {
    pub(super) index: usize,
    pub(super) audio: &'a AudioDescription,
    pub(super) crypto: Option<&'a Crypto>,
}

/// One telephone's encryption.
#[derive(Debug)]
pub(super) struct Encryption {
    policy: SrtpPolicy,
    /// Keys may stand in descriptions: nobody else reads them, or the operator does not mind.
    may_tell_keys: bool,
    random: Random,
    /// What is in use; `None` is plain RTP.
    agreed: Option<SrtpKeys>,
    /// Our open offer's keys.
    offered: Vec<Crypto>,
    /// An answer or offer of the telephone's has been taken.
    is_settled: bool,
}

impl Encryption {
    /// Nothing is agreed on.
    pub(super) const fn new(policy: SrtpPolicy, may_tell_keys: bool, random: Random) -> Self {
        Self { policy, may_tell_keys, random, agreed: None, offered: Vec::new(), is_settled: false }
    }

    /// For another telephone at the same end of ours, with which nothing is agreed on.
    pub(super) fn for_another(&mut self, may_tell_keys: bool) -> Self {
        Self::new(self.policy, may_tell_keys, self.random.fork())
    }

    /// For the net thread.
    pub(super) fn protection(&self) -> Protection {
        match &self.agreed {
            Some(keys) => Protection::Srtp(keys.clone()),
            // The answer may bring a key, so nothing is said in the clear before it.
            None if !self.is_settled && !self.offered.is_empty() => Protection::Awaited,
            None => Protection::Plain,
        }
    }

    /// The line of an offer that is taken: the first that can be encrypted, else the first in the clear.
    pub(super) fn choose<'a>(&self, offer: &'a SessionDescription) -> Result<Choice<'a>, CallFailure> {
        let open = || offer.audio_lines().filter(|(_, audio)| is_open(audio));
        let encrypted = open().find_map(|(index, audio)| {
            let crypto = self.best(audio)?;
            Some(Choice { index, audio, crypto: Some(crypto) })
        });
        let plain = || {
            let (index, audio) = offer.first_audio()?;
            Some(Choice { index, audio, crypto: None }).filter(|_| self.policy != SrtpPolicy::Required)
        };
        encrypted.or_else(plain).ok_or_else(|| self.why_none(&open().map(|(_, audio)| audio).collect::<Vec<_>>()))
    }

    fn best<'a>(&self, audio: &'a AudioDescription) -> Option<&'a Crypto> {
        if self.policy == SrtpPolicy::Off || !self.may_tell_keys {
            return None;
        }
        let in_use = audio.crypto.iter().find(|crypto| self.uses(&crypto.material));
        in_use.or_else(|| audio.crypto.iter().min_by_key(|crypto| crypto.rank()))
    }

    fn uses(&self, remote: &SrtpMaterial) -> bool {
        self.agreed.as_ref().is_some_and(|keys| keys.remote == *remote)
    }

    fn why_none(&self, open: &[&AudioDescription]) -> CallFailure {
        let has_keys = open.iter().any(|audio| audio.is_srtp() || !audio.crypto.is_empty());
        match self.policy {
            _ if open.is_empty() => CallFailure::NoAudio,
            SrtpPolicy::Off => CallFailure::SrtpOff,
            SrtpPolicy::Optional | SrtpPolicy::Required if has_keys && !self.may_tell_keys => CallFailure::KeysInClear,
            SrtpPolicy::Optional | SrtpPolicy::Required if has_keys => CallFailure::NoSrtpSuite,
            SrtpPolicy::Optional | SrtpPolicy::Required => CallFailure::SrtpRequired,
        }
    }

    /// Takes what [`Self::choose`] gave, and returns our line's key.
    pub(super) fn answer(&mut self, theirs: Option<&Crypto>) -> Vec<Crypto> {
        self.is_settled = true;
        self.offered.clear();
        let Some(theirs) = theirs else {
            self.agreed = None;
            return Vec::new();
        };
        let local = match self.agreed.take().filter(|keys| keys.remote == theirs.material) {
            Some(keys) => keys.local,
            None => self.new_key(theirs.material.profile),
        };
        self.agreed = Some(SrtpKeys { local: local.clone(), remote: theirs.material.clone() });
        vec![Crypto { tag: theirs.tag, material: local }]
    }

    /// The transport and the keys of an offer of ours. Where encryption is optional the offer is one of plain RTP with keys, which
    /// a telephone without encryption passes over.
    pub(super) fn offer(&mut self) -> Result<(&'static str, Vec<Crypto>), CallFailure> {
        let is_required = self.policy == SrtpPolicy::Required;
        if is_required && !self.may_tell_keys {
            return Err(CallFailure::KeysInClear);
        }
        self.offered.clear();
        if self.policy != SrtpPolicy::Off && self.may_tell_keys {
            self.offered =
                (1..).zip(Crypto::suites()).map(|(tag, suite)| Crypto { tag, material: self.new_key(suite) }).collect();
        }
        let must_encrypt = is_required || self.agreed.is_some();
        Ok((if must_encrypt { "RTP/SAVP" } else { "RTP/AVP" }, self.offered.clone()))
    }

    /// The line of the telephone's answer to our offer; [`Self::take_answer`] agrees to it.
    pub(super) fn read_answer<'a>(&self, answer: &'a SessionDescription) -> Result<Choice<'a>, CallFailure> {
        let (index, audio) = answer.audio_lines().find(|(_, audio)| is_open(audio)).ok_or(CallFailure::NoAudio)?;
        let crypto = audio.crypto.first();
        let is_ours = |crypto: &Crypto| self.offer_taken(crypto).is_some();
        match crypto {
            Some(crypto) if !is_ours(crypto) => {
                Err(CallFailure::BadDescription("the answer takes a key that was not offered".into()))
            }
            None if audio.is_srtp() => Err(CallFailure::NoSrtpSuite),
            None if self.policy == SrtpPolicy::Required => Err(CallFailure::SrtpRequired),
            Some(_) | None => Ok(Choice { index, audio, crypto }),
        }
    }

    /// Agrees to what [`Self::read_answer`] gave.
    pub(super) fn take_answer(&mut self, theirs: Option<&Crypto>) {
        self.is_settled = true;
        let keys = theirs.and_then(|theirs| {
            let ours = self.offer_taken(theirs)?;
            Some(SrtpKeys { local: ours.material.clone(), remote: theirs.material.clone() })
        });
        self.agreed = keys;
        self.offered.clear();
    }

    fn offer_taken(&self, theirs: &Crypto) -> Option<&Crypto> {
        let is_taken = |ours: &&Crypto| ours.tag == theirs.tag && ours.material.profile == theirs.material.profile;
        self.offered.iter().find(is_taken)
    }

    fn new_key(&mut self, profile: SrtpProfile) -> SrtpMaterial {
        let (mut key, mut salt) = (vec![0; profile.key_bytes()], vec![0; profile.salt_bytes()]);
        self.random.fill(&mut key);
        self.random.fill(&mut salt);
        SrtpMaterial { profile, key, salt }
    }
}

fn is_open(audio: &AudioDescription) -> bool {
    audio.port != 0 && (audio.is_plain_rtp() || audio.is_srtp())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY_80: &str = "AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";
    const OTHER_80: &str = "AES_CM_128_HMAC_SHA1_80 inline:PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR|2^31";
    const KEY_32: &str = "AES_CM_128_HMAC_SHA1_32 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

    fn encryption(policy: SrtpPolicy, may_tell_keys: bool) -> Encryption {
        Encryption::new(policy, may_tell_keys, Random::for_test(1))
    }

    fn description(lines: &str) -> SessionDescription {
        let text = format!("v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\n{lines}");
        SessionDescription::parse(text.replace('\n', "\r\n").as_bytes()).unwrap()
    }

    /// One line with keys under the tags 1, 2 ….
    fn line(transport: &str, keys: &[&str]) -> String {
        let keys: String = (1..).zip(keys).map(|(tag, key)| format!("a=crypto:{tag} {key}\n")).collect();
        format!("m=audio 4000 {transport} 0\n{keys}")
    }

    /// Index and tag of what is taken, or why nothing is.
    fn taken(encryption: &Encryption, lines: &str) -> Result<(usize, Option<u32>), CallFailure> {
        encryption.choose(&description(lines)).map(|choice| (choice.index, choice.crypto.map(|crypto| crypto.tag)))
    }

    #[test]
    fn a_policy_decides_what_is_taken_and_says_why_nothing_is() {
        use SrtpPolicy::{Off, Optional, Required};
        let (plain, both) = (line("RTP/AVP", &[]), line("RTP/AVP", &[KEY_80]));
        let (only, other) = (line("RTP/SAVP", &[KEY_80]), line("RTP/SAVP", &["F8_128_HMAC_SHA1_80 inline:x"]));
        for (policy, may_tell_keys, offer, expected) in [
            (Off, true, &plain, Ok((0, None))),
            (Off, true, &both, Ok((0, None))),
            (Off, true, &only, Err(CallFailure::SrtpOff)),
            (Optional, true, &plain, Ok((0, None))),
            (Optional, true, &both, Ok((0, Some(1)))),
            (Optional, true, &only, Ok((0, Some(1)))),
            (Optional, true, &other, Err(CallFailure::NoSrtpSuite)),
            (Optional, false, &both, Ok((0, None))),
            (Optional, false, &only, Err(CallFailure::KeysInClear)),
            (Required, true, &plain, Err(CallFailure::SrtpRequired)),
            (Required, true, &both, Ok((0, Some(1)))),
            (Required, false, &both, Err(CallFailure::KeysInClear)),
            (Required, false, &plain, Err(CallFailure::SrtpRequired)),
        ] {
            assert_eq!(
                taken(&encryption(policy, may_tell_keys), offer),
                expected,
                "{policy:?} {may_tell_keys} {offer}"
            );
        }
        let two = [plain.clone(), only].concat();
        assert_eq!(taken(&encryption(Optional, true), &two), Ok((1, Some(1))));
        assert_eq!(taken(&encryption(Optional, false), &two), Ok((0, None)));
        assert_eq!(taken(&encryption(Optional, true), "m=audio 0 RTP/SAVP 0\n"), Err(CallFailure::NoAudio));
    }

    #[test]
    fn the_strongest_suite_is_taken_whatever_stands_first() {
        let gcm = "AEAD_AES_256_GCM inline:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKis=";
        for (keys, tag) in [(&[KEY_32, KEY_80][..], 2), (&[KEY_80, KEY_32], 1), (&[KEY_32, KEY_80, gcm], 3)] {
            assert_eq!(taken(&encryption(SrtpPolicy::Optional, true), &line("RTP/SAVP", keys)), Ok((0, Some(tag))));
        }
    }

    #[test]
    fn the_same_key_again_changes_nothing_and_another_makes_two_new_ones() {
        let mut encryption = encryption(SrtpPolicy::Optional, true);
        let mut answer = |keys: &[&str]| {
            let offer = description(&line("RTP/SAVP", keys));
            let choice = encryption.choose(&offer).unwrap();
            let ours = encryption.answer(choice.crypto);
            (ours[0].clone(), encryption.protection())
        };
        let (first, in_use) = answer(&[KEY_80]);
        assert!(matches!(&in_use, Protection::Srtp(keys) if keys.local == first.material && keys.remote != keys.local));
        // Another tag and a better suite beside it: the key in use stays.
        let (again, still) = answer(&[KEY_32, KEY_80]);
        assert_eq!((again.tag, &again.material, &still), (2, &first.material, &in_use));
        let (renewed, renewed_keys) = answer(&[OTHER_80]);
        assert!(renewed.material != first.material && renewed_keys != in_use);
    }

    #[test]
    fn our_own_offer_has_every_suite_and_the_answer_must_be_to_it() {
        let mut encryption = encryption(SrtpPolicy::Optional, true);
        let (transport, keys) = encryption.offer().unwrap();
        assert_eq!((transport, keys.len(), encryption.protection()), ("RTP/AVP", 4, Protection::Awaited));
        let wrong = description(&line("RTP/AVP", &[KEY_80]));
        assert!(matches!(encryption.read_answer(&wrong), Err(CallFailure::BadDescription(_))));
        let right = description(&format!("m=audio 4000 RTP/AVP 0\na=crypto:3 {KEY_80}\n"));
        let choice = encryption.read_answer(&right).unwrap();
        encryption.take_answer(choice.crypto);
        assert!(matches!(encryption.protection(), Protection::Srtp(agreed) if agreed.local == keys[2].material));
        // Asked for another offer in the call, it stays encrypted.
        assert_eq!(encryption.offer().unwrap().0, "RTP/SAVP");
    }

    #[test]
    fn an_answer_without_a_key_is_plain_unless_that_is_forbidden() {
        let plain = description(&line("RTP/AVP", &[]));
        let mut optional = encryption(SrtpPolicy::Optional, true);
        optional.offer().unwrap();
        let choice = optional.read_answer(&plain).unwrap();
        optional.take_answer(choice.crypto);
        assert_eq!(optional.protection(), Protection::Plain);
        let mut required = encryption(SrtpPolicy::Required, true);
        assert_eq!(required.offer().unwrap().0, "RTP/SAVP");
        assert_eq!(required.read_answer(&plain).err(), Some(CallFailure::SrtpRequired));
        assert_eq!(encryption(SrtpPolicy::Required, false).offer(), Err(CallFailure::KeysInClear));
        for quiet in [encryption(SrtpPolicy::Optional, false), encryption(SrtpPolicy::Off, true)] {
            let mut quiet = quiet;
            assert_eq!((quiet.offer().unwrap(), quiet.protection()), (("RTP/AVP", Vec::new()), Protection::Plain));
        }
    }
}

//! Whether and how a telephone's packets are encrypted: `-sip-srtp`, keys in the descriptions (RFC 4568), DTLS (RFC 5763).
//!
//! Owns: which audio line is taken for its encryption, the choice of the suite, our keys. Does not own: the attribute's text
//! (`wire::sdp`), the packets (`io::net`), whether an association goes on (`dtls_terms`), its handshake (`association`).
//!
//! A telephone that names the same key again (a session refresh, a hold) keeps its contexts and their rollover counters on both
//! sides; another key of its own makes new contexts both ways, with a new key of ours (RFC 4568 §7.1.4).

use super::dtls_terms::{DtlsPeer, DtlsTerms};
use super::refusal::CallFailure;
use crate::config::SrtpPolicy;
use crate::media::control::Protection;
use crate::random::Random;
use crate::wire::rtp::{SrtpKeys, SrtpMaterial, SrtpProfile};
use crate::wire::sdp::{AudioDescription, Crypto, LocalDtls, SessionDescription, Setup};

/// Characters of our `a=tls-id`: 20 at least (RFC 8842 §4).
const TLS_ID_CHARS: usize = 24;

/// What the offer of a telephone's leg says where DTLS is all that is left (RFC 5764 §8).
const DTLS_TRANSPORT: &str = "UDP/TLS/RTP/SAVP";

/// What one description settles: the line that is taken, and how it is encrypted.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    pub(super) index: usize,
    pub(super) audio: &'a AudioDescription,
    pub(super) way: Way<'a>,
}

/// How a line is encrypted.
#[derive(Debug)]
pub(super) enum Way<'a> {
    Plain,
    /// With the key in the description.
    Key(&'a Crypto),
    Dtls(DtlsPeer),
}

/// What our line says of its encryption.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) crypto: Vec<Crypto>,
    pub(super) dtls: Option<LocalDtls>,
}

#[derive(Debug)]
enum Agreed {
    Plain,
    Keys(SrtpKeys),
    Dtls(DtlsTerms),
}

/// One telephone's encryption.
#[derive(Debug)]
pub(super) struct Encryption {
    policy: SrtpPolicy,
    /// Keys may stand in descriptions: nobody else reads them, or the operator does not mind.
    may_tell_keys: bool,
    /// Our certificate's, for `a=fingerprint`.
    fingerprint: String,
    random: Random,
    /// What is in use.
    agreed: Agreed,
    /// Our open offer's keys.
    offered: Vec<Crypto>,
    /// Our open offer is of DTLS, under this `a=tls-id`.
    offered_dtls: Option<String>,
    /// An answer or offer of the telephone's has been taken.
    is_settled: bool,
}

impl Encryption {
    /// Nothing is agreed on.
    pub(super) fn new(policy: SrtpPolicy, may_tell_keys: bool, fingerprint: String, random: Random) -> Self {
        let (agreed, offered) = (Agreed::Plain, Vec::new());
        Self { policy, may_tell_keys, fingerprint, random, agreed, offered, offered_dtls: None, is_settled: false }
    }

    /// For another telephone at the same end of ours, with which nothing is agreed on.
    pub(super) fn for_another(&mut self, may_tell_keys: bool) -> Self {
        Self::new(self.policy, may_tell_keys, self.fingerprint.clone(), self.random.fork())
    }

    /// For the net thread, as far as descriptions say it: the keys of DTLS come from the handshake.
    pub(super) fn protection(&self) -> Protection {
        match &self.agreed {
            Agreed::Keys(keys) => Protection::Srtp(keys.clone()),
            Agreed::Dtls(_) => Protection::Awaited,
            // The answer may bring a key, so nothing is said in the clear before it.
            Agreed::Plain if !self.is_settled && self.has_offered() => Protection::Awaited,
            Agreed::Plain => Protection::Plain,
        }
    }

    /// The association that is agreed on.
    pub(super) const fn dtls(&self) -> Option<&DtlsTerms> {
        match &self.agreed {
            Agreed::Dtls(terms) => Some(terms),
            Agreed::Plain | Agreed::Keys(_) => None,
        }
    }

    const fn has_offered(&self) -> bool {
        !self.offered.is_empty() || self.offered_dtls.is_some()
    }

    /// The line of an offer that is taken: the first that can be encrypted, else the first in the clear.
    pub(super) fn choose<'a>(&self, offer: &'a SessionDescription) -> Result<Choice<'a>, CallFailure> {
        let open = || offer.audio_lines().filter(|(_, audio)| is_open(audio));
        let encrypted = open().find_map(|(index, audio)| {
            let way = self.way(audio)?;
            Some(Choice { index, audio, way })
        });
        let plain = || {
            let (index, audio) = offer.first_audio()?;
            Some(Choice { index, audio, way: Way::Plain }).filter(|_| self.policy != SrtpPolicy::Required)
        };
        encrypted.or_else(plain).ok_or_else(|| self.why_none(&open().map(|(_, audio)| audio).collect::<Vec<_>>()))
    }

    /// How a line can be encrypted, if it can. With DTLS no key is in the description, so that anybody may read it.
    fn way<'a>(&self, audio: &'a AudioDescription) -> Option<Way<'a>> {
        match DtlsPeer::read(audio, Setup::Active) {
            Some(peer) if self.policy != SrtpPolicy::Off => peer.ok().map(Way::Dtls),
            Some(_) => None,
            None => self.best(audio).map(Way::Key),
        }
    }

    fn best<'a>(&self, audio: &'a AudioDescription) -> Option<&'a Crypto> {
        if self.policy == SrtpPolicy::Off || !self.may_tell_keys {
            return None;
        }
        let in_use = audio.crypto.iter().find(|crypto| self.uses(&crypto.material));
        in_use.or_else(|| audio.crypto.iter().min_by_key(|crypto| crypto.rank()))
    }

    fn uses(&self, remote: &SrtpMaterial) -> bool {
        matches!(&self.agreed, Agreed::Keys(keys) if keys.remote == *remote)
    }

    fn why_none(&self, open: &[&AudioDescription]) -> CallFailure {
        let why_no_dtls = || open.iter().find_map(|audio| DtlsPeer::read(audio, Setup::Active)?.err());
        let has_keys = open.iter().any(|audio| audio.is_srtp() || !audio.crypto.is_empty());
        match self.policy {
            _ if open.is_empty() => CallFailure::NoAudio,
            SrtpPolicy::Off => CallFailure::SrtpOff,
            SrtpPolicy::Optional | SrtpPolicy::Required if has_keys && !self.may_tell_keys => CallFailure::KeysInClear,
            SrtpPolicy::Optional | SrtpPolicy::Required if has_keys => CallFailure::NoSrtpSuite,
            SrtpPolicy::Optional | SrtpPolicy::Required => why_no_dtls().unwrap_or(CallFailure::SrtpRequired),
        }
    }

    /// Takes what [`Self::choose`] gave, and returns what our line says.
    pub(super) fn answer(&mut self, way: Way<'_>) -> Said {
        self.settled();
        match way {
            Way::Plain => {
                self.agreed = Agreed::Plain;
                Said::default()
            }
            Way::Key(theirs) => {
                let local = match std::mem::replace(&mut self.agreed, Agreed::Plain) {
                    Agreed::Keys(keys) if keys.remote == theirs.material => keys.local,
                    Agreed::Plain | Agreed::Keys(_) | Agreed::Dtls(_) => self.new_key(theirs.material.profile),
                };
                self.agreed = Agreed::Keys(SrtpKeys { local: local.clone(), remote: theirs.material.clone() });
                Said { crypto: vec![Crypto { tag: theirs.tag, material: local }], dtls: None }
            }
            Way::Dtls(peer) => {
                // RFC 8842 §4: the name is given where the offer has one.
                let is_named = peer.has_tls_id();
                let terms = self.associate(peer, None);
                let (setup, tls_id) = (terms.setup(), is_named.then(|| terms.tls_id.clone()));
                Said { crypto: Vec::new(), dtls: Some(self.local_dtls(setup, tls_id)) }
            }
        }
    }

    /// Goes on with the association in use, or agrees to a new one, under the name that we have offered if we have.
    fn associate(&mut self, peer: DtlsPeer, offered: Option<String>) -> &DtlsTerms {
        match &mut self.agreed {
            Agreed::Dtls(terms) if terms.goes_on(&peer) => terms.go_on(peer),
            Agreed::Plain | Agreed::Keys(_) | Agreed::Dtls(_) => {
                // The name in use would pass a new association off as the old one.
                let offered = offered.filter(|offered| self.dtls().is_none_or(|terms| terms.tls_id != *offered));
                let tls_id = offered.unwrap_or_else(|| self.random.token(TLS_ID_CHARS));
                self.agreed = Agreed::Dtls(DtlsTerms::new(peer, tls_id));
            }
        }
        match &self.agreed {
            Agreed::Dtls(terms) => terms,
            Agreed::Plain | Agreed::Keys(_) => unreachable!("the match before leaves an association"),
        }
    }

    fn local_dtls(&self, setup: Setup, tls_id: Option<String>) -> LocalDtls {
        LocalDtls { fingerprint: self.fingerprint.clone(), setup, tls_id }
    }

    fn settled(&mut self) {
        self.is_settled = true;
        self.offered.clear();
        self.offered_dtls = None;
    }

    /// The transport of an offer of ours, and what its line says. Where encryption is optional the offer is one of plain RTP
    /// with keys, which a telephone without encryption passes over. DTLS is offered where it is in use, and where encryption
    /// is required and keys must not be told.
    pub(super) fn offer(&mut self) -> (&'static str, Said) {
        self.offered.clear();
        self.offered_dtls = None;
        let is_required = self.policy == SrtpPolicy::Required;
        let in_use = self.dtls().map(|terms| terms.tls_id.clone());
        if in_use.is_some() || (is_required && !self.may_tell_keys) {
            let tls_id = in_use.unwrap_or_else(|| self.random.token(TLS_ID_CHARS));
            self.offered_dtls = Some(tls_id.clone());
            // RFC 8842 §5.2: also in the call, where the answer keeps to the parts there are.
            let dtls = Some(self.local_dtls(Setup::ActPass, Some(tls_id)));
            return (DTLS_TRANSPORT, Said { crypto: Vec::new(), dtls });
        }
        if self.policy != SrtpPolicy::Off && self.may_tell_keys {
            self.offered =
                (1..).zip(Crypto::suites()).map(|(tag, suite)| Crypto { tag, material: self.new_key(suite) }).collect();
        }
        let must_encrypt = is_required || matches!(self.agreed, Agreed::Keys(_));
        let said = Said { crypto: self.offered.clone(), dtls: None };
        (if must_encrypt { "RTP/SAVP" } else { "RTP/AVP" }, said)
    }

    /// The line of the telephone's answer to our offer; [`Self::take_answer`] agrees to it.
    pub(super) fn read_answer<'a>(&self, answer: &'a SessionDescription) -> Result<Choice<'a>, CallFailure> {
        let (index, audio) = answer.audio_lines().find(|(_, audio)| is_open(audio)).ok_or(CallFailure::NoAudio)?;
        let way = match DtlsPeer::read(audio, Setup::Passive).transpose()? {
            Some(peer) if self.offered_dtls.is_some() && !peer.is_undecided() => Way::Dtls(peer),
            Some(_) => return Err(CallFailure::BadDescription("the answer takes DTLS that was not offered so".into())),
            None if self.offered_dtls.is_some() => return Err(CallFailure::SrtpRequired),
            None => audio.crypto.first().map_or(Way::Plain, Way::Key),
        };
        match &way {
            Way::Key(crypto) if self.offer_taken(crypto).is_none() => {
                Err(CallFailure::BadDescription("the answer takes a key that was not offered".into()))
            }
            Way::Plain if audio.is_srtp() => Err(CallFailure::NoSrtpSuite),
            Way::Plain if self.policy == SrtpPolicy::Required => Err(CallFailure::SrtpRequired),
            Way::Plain | Way::Key(_) | Way::Dtls(_) => Ok(Choice { index, audio, way }),
        }
    }

    /// Agrees to what [`Self::read_answer`] gave.
    pub(super) fn take_answer(&mut self, way: Way<'_>) {
        match way {
            Way::Plain => self.agreed = Agreed::Plain,
            Way::Key(theirs) => {
                let ours = self.offer_taken(theirs).map(|ours| ours.material.clone());
                let keys = ours.map(|local| SrtpKeys { local, remote: theirs.material.clone() });
                self.agreed = keys.map_or(Agreed::Plain, Agreed::Keys);
            }
            Way::Dtls(peer) => {
                let offered = self.offered_dtls.take();
                self.associate(peer, offered);
            }
        }
        self.settled();
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
    audio.port != 0 && (audio.is_plain_rtp() || audio.is_srtp() || audio.dtls.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY_80: &str = "AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";
    const OTHER_80: &str = "AES_CM_128_HMAC_SHA1_80 inline:PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR|2^31";
    const KEY_32: &str = "AES_CM_128_HMAC_SHA1_32 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

    const OURS: &str = "sha-256 AA:BB";

    fn encryption(policy: SrtpPolicy, may_tell_keys: bool) -> Encryption {
        Encryption::new(policy, may_tell_keys, OURS.into(), Random::for_test(1))
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

    fn tag(way: &Way<'_>) -> Option<u32> {
        match way {
            Way::Key(crypto) => Some(crypto.tag),
            Way::Plain | Way::Dtls(_) => None,
        }
    }

    /// Index and tag of what is taken, or why nothing is.
    fn taken(encryption: &Encryption, lines: &str) -> Result<(usize, Option<u32>), CallFailure> {
        encryption.choose(&description(lines)).map(|choice| (choice.index, tag(&choice.way)))
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
            let ours = encryption.answer(choice.way).crypto;
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
        let (transport, said) = encryption.offer();
        let keys = said.crypto;
        assert_eq!((transport, keys.len(), encryption.protection()), ("RTP/AVP", 4, Protection::Awaited));
        let wrong = description(&line("RTP/AVP", &[KEY_80]));
        assert!(matches!(encryption.read_answer(&wrong), Err(CallFailure::BadDescription(_))));
        let right = description(&format!("m=audio 4000 RTP/AVP 0\na=crypto:3 {KEY_80}\n"));
        let choice = encryption.read_answer(&right).unwrap();
        encryption.take_answer(choice.way);
        assert!(matches!(encryption.protection(), Protection::Srtp(agreed) if agreed.local == keys[2].material));
        // Asked for another offer in the call, it stays encrypted.
        assert_eq!(encryption.offer().0, "RTP/SAVP");
    }

    #[test]
    fn an_answer_without_a_key_is_plain_unless_that_is_forbidden() {
        let plain = description(&line("RTP/AVP", &[]));
        let mut optional = encryption(SrtpPolicy::Optional, true);
        optional.offer();
        let choice = optional.read_answer(&plain).unwrap();
        optional.take_answer(choice.way);
        assert_eq!(optional.protection(), Protection::Plain);
        let mut required = encryption(SrtpPolicy::Required, true);
        assert_eq!(required.offer().0, "RTP/SAVP");
        assert_eq!(required.read_answer(&plain).err(), Some(CallFailure::SrtpRequired));
        for quiet in [encryption(SrtpPolicy::Optional, false), encryption(SrtpPolicy::Off, true)] {
            let mut quiet = quiet;
            assert_eq!((quiet.offer(), quiet.protection()), (("RTP/AVP", Said::default()), Protection::Plain));
        }
    }
}

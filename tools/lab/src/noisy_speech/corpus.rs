//! Who speaks: voices of espeak-ng in several languages and speeds, and recorded prompts of Debian's Asterisk packages.
//!
//! Owns: which of them a detector may learn from and which judge it; no voice, sentence or recording is in both parts.

use std::path::Path;

use super::RATE_HZ;
use crate::pcm::Pcm;
use crate::speech::espeak;

/// Where Debian puts Asterisk's prompts.
const PROMPTS: &str = "/usr/share/asterisk/sounds";
/// Shorter prompts are single words.
const SHORTEST_PROMPT_S: f64 = 1.5;
/// So many of each speaker's.
const PROMPTS_A_SPEAKER: usize = 48;
/// Of every talker's utterances; full scale is 1.
const ROOT_MEAN_SQUARE: f64 = 0.05;
/// What is no speech among them.
const NO_SPEECH: [&str; 4] = ["tt-monkeys", "beep", "ascending", "tone"];

/// What the material is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// To learn from.
    Learn,
    /// To be judged by.
    Judge,
}

/// A speaker.
#[derive(Clone, Debug)]
pub struct Talker {
    /// For people.
    pub name: String,
    /// What he or she says, full scale being 1.
    pub utterances: Vec<Vec<f64>>,
}

impl Talker {
    /// All talkers are equally loud, so that in a babble none stands out by more than `noise` says.
    fn new(name: String, mut utterances: Vec<Vec<f64>>) -> Self {
        let samples = || utterances.iter().flatten();
        let power = samples().map(|sample| sample * sample).sum::<f64>() / samples().count().max(1) as f64;
        let gain = ROOT_MEAN_SQUARE / power.sqrt().max(1e-9);
        utterances.iter_mut().flatten().for_each(|sample| *sample *= gain);
        Self { name, utterances }
    }
}

/// Voice, words a minute, language of the text.
type Voice = (&'static str, u32, usize);

const LEARN_VOICES: [Voice; 20] = [
    ("en-us+m1", 150, 0),
    ("en-us+f1", 170, 0),
    ("en-gb+m3", 130, 0),
    ("en-gb+f3", 190, 0),
    ("en-us+m5", 210, 0),
    ("de+m4", 150, 1),
    ("de+f1", 180, 1),
    ("fr+m1", 140, 2),
    ("fr+f4", 170, 2),
    ("es+m7", 160, 3),
    ("es+f3", 200, 3),
    ("it+m3", 150, 4),
    ("it+f4", 120, 4),
    ("en-us+klatt2", 160, 0),
    ("en-us+m7", 180, 0),
    ("en-gb+f4", 140, 0),
    ("de+m5", 130, 1),
    ("fr+m3", 200, 2),
    ("es+m1", 150, 3),
    ("it+m4", 170, 4),
];

const JUDGE_VOICES: [Voice; 8] = [
    ("en-us+m2", 160, 0),
    ("en-gb+f2", 150, 0),
    ("en-gb+m6", 200, 0),
    ("en-us+f5", 120, 0),
    ("de+m8", 170, 1),
    ("fr+f2", 150, 2),
    ("es+m6", 140, 3),
    ("it+f5", 180, 4),
];

/// Texts by language: English, German, French, Spanish, Italian.
const LEARN_TEXTS: [&[&str]; 5] = [
    &[
        "Could you tell me again at what time the meeting begins on Thursday?",
        "I have sent the papers by post, but they have not arrived.",
        "Yes.",
        "The bridge over the river will be closed for three weeks in June.",
        "Well, I think we should ask Susan before we decide anything.",
        "Hello, can you hear me now?",
        "Five hundred and twenty six, if I counted correctly.",
        "My car would not start this morning, so I took the bus.",
        "He said that fish, chips and vinegar are what he misses most.",
    ],
    &[
        "Guten Tag, ich rufe wegen der Rechnung vom letzten Monat an.",
        "Der Zug nach Hamburg hat heute leider zwanzig Minuten Verspätung.",
        "Ja, das stimmt.",
        "Wir treffen uns am besten um halb neun vor dem Rathaus.",
        "Schicken Sie mir bitte die Unterlagen noch einmal.",
    ],
    &[
        "Bonjour, je voudrais parler à Monsieur Dupont, s'il vous plaît.",
        "Le train pour Lyon partira avec un retard de dix minutes.",
        "Non, merci.",
        "Nous avons reçu votre lettre et nous vous en remercions.",
        "Il fait très beau aujourd'hui sur toute la côte.",
    ],
    &[
        "Buenos días, quisiera hablar con la señora García.",
        "El autobús sale a las ocho y cuarto de la plaza mayor.",
        "Sí, claro.",
        "No he recibido todavía la respuesta de la oficina.",
        "Mañana tendremos la reunión en la sala pequeña.",
    ],
    &[
        "Buongiorno, vorrei prenotare un tavolo per quattro persone.",
        "Il treno per Bologna è in partenza dal binario sette.",
        "Va bene.",
        "Non ho ancora ricevuto la vostra risposta.",
        "Domani ci vediamo davanti alla stazione alle nove.",
    ],
];

const JUDGE_TEXTS: [&[&str]; 5] = [
    &[
        "Good evening, this is the garage; your motorcycle is ready.",
        "Please move the second chart a little further to the left.",
        "No, not yet.",
        "A thousand sheep were grazing quietly under the old oak trees.",
        "Which of the two proposals would be cheaper over ten years?",
        "The password is written on a yellow note beside the screen.",
        "Okay.",
        "She laughed, put down the phone and went out for a walk.",
    ],
    &[
        "Können Sie mich jetzt besser verstehen als vorhin?",
        "Die Sitzung wurde auf den dritten November verschoben.",
        "Nein, noch nicht.",
        "Im Garten blühen seit gestern die ersten Schneeglöckchen.",
        "Bitte sprechen Sie etwas lauter, die Leitung ist schlecht.",
    ],
    &[
        "Est-ce que vous m'entendez mieux maintenant?",
        "La réunion aura lieu jeudi prochain à quatorze heures.",
        "Oui.",
        "Les enfants jouent dans le jardin derrière la maison.",
        "Pouvez-vous répéter la dernière phrase, je vous prie?",
    ],
    &[
        "¿Me escucha usted mejor ahora que antes?",
        "La biblioteca estará cerrada durante todo el mes de agosto.",
        "Todavía no.",
        "Los niños juegan en el parque detrás de la iglesia.",
        "Por favor, repita el número de teléfono otra vez.",
    ],
    &[
        "Mi sente meglio adesso?",
        "La riunione è stata spostata al quindici di marzo.",
        "Non ancora.",
        "I bambini giocano nel cortile dietro la scuola.",
        "Per favore, ripeta il numero ancora una volta.",
    ],
];

/// Speakers of prompts: folder, part. One voice that speaks English and Spanish is used in English alone.
const SPEAKERS: [(&str, Part); 5] = [
    ("fr_CA_f_June", Part::Learn),
    ("ru_RU_f_IvrvoiceRU", Part::Learn),
    ("it_IT_f_Menardi", Part::Learn),
    ("en_US_f_Allison", Part::Judge),
    ("it_IT_m_Carlo", Part::Judge),
];

/// The voices of espeak-ng; none if that is not installed.
pub fn espeak_talkers(part: Part) -> Vec<Talker> {
    let (voices, texts) = match part {
        Part::Learn => (&LEARN_VOICES[..], &LEARN_TEXTS),
        Part::Judge => (&JUDGE_VOICES[..], &JUDGE_TEXTS),
    };
    let talker = |&(voice, speed, language): &Voice| {
        let utterances =
            texts[language].iter().map(|text| espeak(voice, speed, text, RATE_HZ)).collect::<Option<_>>()?;
        Some(Talker::new(format!("{voice}, {speed} words a minute"), utterances))
    };
    voices.iter().filter_map(talker).collect()
}

/// The speakers of recorded prompts below `folder`, or where Debian has them; those that are installed.
pub fn recorded_talkers(part: Part, folder: Option<&Path>) -> Vec<Talker> {
    let folder = folder.unwrap_or_else(|| Path::new(PROMPTS));
    let speakers = SPEAKERS.iter().filter(|(_, of)| *of == part);
    let talkers = speakers.map(|(name, _)| Talker::new((*name).to_owned(), prompts(&folder.join(name))));
    talkers.filter(|talker| !talker.utterances.is_empty()).collect()
}

fn prompts(folder: &Path) -> Vec<Vec<f64>> {
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let is_speech = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".wav") && !NO_SPEECH.iter().any(|no_speech| name.contains(no_speech))
    };
    let mut files: Vec<_> = files.filter(is_speech).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let pcm = Pcm::read_wav(path).ok()?.resampled(RATE_HZ);
        let samples: Vec<f64> = pcm.samples.iter().map(|&sample| f64::from(sample) / 32_768.0).collect();
        (samples.len() as f64 >= SHORTEST_PROMPT_S * f64::from(RATE_HZ)).then_some(samples)
    };
    files.iter().filter_map(read).take(PROMPTS_A_SPEAKER).collect()
}

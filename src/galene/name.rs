//! The user name that a caller bears in the room.
//!
//! Owns: Galene's rule for names and what is done to a caller's own to fit it. Does not own: what a From header shows
//! (`wire::sip`).
//!
//! Galene takes a name apart at its slashes like a path and says `not authorised` to any that is not the path that it
//! means: no part may be empty, `.` or `..`, and a backslash may not stand anywhere. Ours begin with no dot either, as
//! group names may not. Control characters and invisible ones that turn the direction of writing are ours to keep out:
//! Galene shows a name to others as it is.

/// The longest name we ask for: what fits a roster, while Galene itself has no limit.
pub const MAX_NAME_CHARS: usize = 64;

/// The name of a caller who shows neither name nor number.
const NAMELESS: &str = "SIP user";

/// The user name to ask for, and whether another may be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedName {
    name: String,
    fixed: bool,
}

impl WantedName {
    /// The operator's choice (`-username`): asked for as it is, never changed.
    pub fn fixed(name: &str) -> Self {
        Self { name: name.into(), fixed: true }
    }

    /// The caller's display name, else the number, else `SIP user`, cleaned.
    pub fn of_caller(display_name: Option<&str>, number: Option<&str>) -> Self {
        let shown = [display_name, number].into_iter().flatten().map(clean).find(|name| !name.is_empty());
        Self { name: shown.unwrap_or_else(|| NAMELESS.into()), fixed: false }
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// 'NAME (telephone)', once, for a name of the caller's choosing: nobody may call himself like a user of the group
    /// and have the operator's password blamed for it.
    pub(crate) fn fall_back(&mut self) -> bool {
        if self.fixed {
            return false;
        }
        self.name.push_str(" (telephone)");
        self.fixed = true;
        true
    }
}

/// Makes any text a name that Galene takes; empty if nothing is left of it.
pub fn clean(raw: &str) -> String {
    let visible: String =
        raw.chars().filter(|c| !is_deceptive(*c)).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let spaced = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut name = as_path(&spaced);
    if let Some((end, _)) = name.char_indices().nth(MAX_NAME_CHARS) {
        name.truncate(end);
        name = as_path(&name);
    }
    name
}

/// Drops the parts that Galene's rule forbids.
fn as_path(text: &str) -> String {
    let parts = text.split(['/', '\\']).map(str::trim).filter(|part| !matches!(*part, "" | "." | ".."));
    parts.collect::<Vec<_>>().join("/").trim_start_matches(['.', '/', ' ']).into()
}

/// Marks that show nothing themselves and turn or hide what stands beside them. The joiners U+200C and U+200D stay:
/// Persian and Indic names need them.
fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{ad}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_caller_is_named_by_display_name_then_number_then_sip_user() {
        assert_eq!(WantedName::of_caller(Some("Alice"), Some("1001")).as_str(), "Alice");
        assert_eq!(WantedName::of_caller(Some(" \u{202e}"), Some("1001")).as_str(), "1001");
        assert_eq!(WantedName::of_caller(None, Some("..")).as_str(), "SIP user");
        assert_eq!(WantedName::of_caller(None, None).as_str(), "SIP user");
    }

    #[test]
    fn names_are_cleaned_by_the_rule_of_galene() {
        for (raw, expected) in [
            ("/etc/passwd", "etc/passwd"),
            ("\\\\server\\share", "server/share"),
            (".hidden", "hidden"),
            ("a/../b", "a/b"),
            ("a/./b//c/", "a/b/c"),
            ("Alice c/o Bob", "Alice c/o Bob"),
            ("Eve\r\nX: y\0\u{7f}", "Eve X: y"),
            (".../x", "x"),
            ("\u{202e}ecilA", "ecilA"),
            ("Zoë  Müller", "Zoë Müller"),
        ] {
            assert_eq!(clean(raw), expected, "{raw:?}");
        }
        assert_eq!(clean(&"ü".repeat(1000)).chars().count(), MAX_NAME_CHARS);
    }

    #[test]
    fn only_a_name_of_the_callers_choosing_falls_back_and_only_once() {
        let mut name = WantedName::of_caller(Some("admin"), None);
        assert!(name.fall_back());
        assert_eq!(name.as_str(), "admin (telephone)");
        assert!(!name.fall_back());
        assert!(!WantedName::fixed("door").fall_back());
    }

    /// Galene's rule as its source has it: no backslash, and the path that a clean of it gives.
    fn galene_takes(name: &str) -> bool {
        !name.contains('\\') && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
    }

    proptest! {
        #[test]
        fn whatever_a_caller_is_called_galene_takes_it(raw in "[a./\\\\ \u{202e}\u{0}ü\t]{0,90}") {
            let name = WantedName::of_caller(Some(&raw), None);
            prop_assert!(galene_takes(name.as_str()), "{:?} -> {:?}", raw, name);
            prop_assert!(!name.as_str().starts_with(['.', '/', ' ']));
            prop_assert_eq!(clean(name.as_str()), name.as_str());
        }
    }
}

//! Who may enter a group, under which name and with which permissions. A pure function of the configuration and of
//! who is inside, with Galene's texts.

use super::config::{GroupConfig, Permissions};

/// What a client shows at the door.
#[derive(Clone, Debug, Default)]
pub(super) struct Credentials<'a> {
    pub(super) username: Option<&'a str>,
    pub(super) password: &'a str,
    pub(super) token: &'a str,
}

/// What a group's door looks at besides its configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occupancy<'a> {
    pub(super) locked: Option<&'a str>,
    pub(super) clients: usize,
    pub(super) has_operator: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Admission {
    pub(super) username: String,
    pub(super) permissions: Vec<String>,
}

/// Why somebody stays outside.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Told after a while, so that passwords cannot be tried quickly.
    NotAuthorised,
    NeedUsername,
    DuplicateUsername,
    Other(String),
}

impl Refusal {
    /// The `error` and the text of the answer.
    pub(super) fn words(&self) -> (&'static str, &str) {
        match self {
            Self::NotAuthorised => ("", "not authorised"),
            Self::NeedUsername => ("need-username", "username required"),
            Self::DuplicateUsername => ("duplicate-username", "this username is taken"),
            Self::Other(text) => ("", text),
        }
    }
}

pub(super) fn admit(
    group: &GroupConfig,
    inside: Occupancy<'_>,
    credentials: &Credentials<'_>,
) -> Result<Admission, Refusal> {
    let (username, permissions) = permission(group, credentials)?;
    if !is_valid_username(&username) {
        return Err(Refusal::NotAuthorised);
    }
    if !permissions.contains(&"op") {
        if let Some(message) = inside.locked {
            let message = if message.is_empty() { "this group is locked" } else { message };
            return Err(Refusal::Other(message.to_owned()));
        }
        if group.autokick && !inside.has_operator {
            return Err(Refusal::Other("there are no operators in this group".to_owned()));
        }
        if group.max_clients.is_some_and(|most| inside.clients >= most) {
            return Err(Refusal::Other("too many users".to_owned()));
        }
    }
    Ok(Admission { username, permissions: permissions.into_iter().map(str::to_owned).collect() })
}

fn permission(group: &GroupConfig, credentials: &Credentials<'_>) -> Result<(String, Vec<&'static str>), Refusal> {
    if !credentials.token.is_empty() {
        let known = group.tokens.iter().find(|known| known.token == credentials.token);
        let token = known.ok_or(Refusal::NotAuthorised)?;
        let username = match (&token.username, credentials.username) {
            (Some(fixed), _) => fixed.clone(),
            (None, None) => return Err(Refusal::NeedUsername),
            (None, Some(name)) if group.users.iter().any(|user| user.name == name) => {
                return Err(Refusal::DuplicateUsername);
            }
            (None, Some(name)) => name.to_owned(),
        };
        return Ok((username, token.permissions.clone()));
    }
    let username = credentials.username.ok_or(Refusal::NotAuthorised)?;
    if let Some(user) = group.users.iter().find(|user| user.name == username) {
        let right = user.password == credentials.password;
        return right.then(|| (username.to_owned(), user.permissions.clone())).ok_or(Refusal::NotAuthorised);
    }
    let wildcard = group.wildcard.as_ref().ok_or(Refusal::NotAuthorised)?;
    let right = wildcard.password.as_ref().is_none_or(|password| password == credentials.password);
    right.then(|| (username.to_owned(), wildcard.permissions.clone())).ok_or(Refusal::NotAuthorised)
}

/// Galene's rule: a name is a clean path without a leading slash, or empty.
fn is_valid_username(name: &str) -> bool {
    let clean = |segment: &str| !matches!(segment, "" | "." | "..");
    name.is_empty() || (!name.contains('\\') && name.split('/').all(clean))
}

/// Adds or takes a permission as the operator's action of that name does; false for an action of another name.
pub(super) fn change_permission(action: &str, permissions: &mut Vec<String>) -> bool {
    let (name, add) = match action {
        "op" => ("op", true),
        "unop" => ("op", false),
        "present" => ("present", true),
        "unpresent" => ("present", false),
        "shutup" => ("message", false),
        "unshutup" => ("message", true),
        _ => return false,
    };
    permissions.retain(|held| held != name);
    if add {
        permissions.push(name.to_owned());
    }
    debug_assert!(Permissions::OP.contains(&name));
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::{TokenConfig, WildcardConfig};

    const EMPTY: Occupancy<'_> = Occupancy { locked: None, clients: 0, has_operator: false };

    fn group() -> GroupConfig {
        let mut group = GroupConfig::closed("g").user("jane", "secret", Permissions::OP);
        group.tokens = vec![
            TokenConfig { token: "fixed".into(), username: Some("bob".into()), permissions: vec!["present"] },
            TokenConfig { token: "free".into(), username: None, permissions: vec!["present"] },
        ];
        group.wildcard =
            Some(WildcardConfig { password: Some("open".into()), permissions: Permissions::MESSAGE.to_vec() });
        group
    }

    fn enter(username: Option<&str>, password: &str, token: &str) -> Result<String, Refusal> {
        admit(&group(), EMPTY, &Credentials { username, password, token }).map(|admission| admission.username)
    }

    #[test]
    fn a_configured_user_needs_the_password_and_others_the_wildcards() {
        assert_eq!(enter(Some("jane"), "secret", ""), Ok("jane".into()));
        assert_eq!(enter(Some("jane"), "open", ""), Err(Refusal::NotAuthorised));
        assert_eq!(enter(Some("john"), "open", ""), Ok("john".into()));
        assert_eq!(enter(Some("john"), "", ""), Err(Refusal::NotAuthorised));
        assert_eq!(enter(None, "open", ""), Err(Refusal::NotAuthorised));
    }

    #[test]
    fn a_token_fixes_the_name_or_lets_it_be_chosen() {
        assert_eq!(enter(Some("x"), "", "fixed"), Ok("bob".into()));
        assert_eq!(enter(Some("x"), "", "free"), Ok("x".into()));
        assert_eq!(enter(None, "", "free"), Err(Refusal::NeedUsername));
        assert_eq!(enter(Some("jane"), "", "free"), Err(Refusal::DuplicateUsername));
        assert_eq!(enter(Some("x"), "secret", "wrong"), Err(Refusal::NotAuthorised));
    }

    #[test]
    fn a_name_that_is_no_clean_path_is_refused() {
        for name in ["/a", "a/", "a//b", "..", "a/../b", "./a", "a\\b"] {
            assert_eq!(enter(Some(name), "open", ""), Err(Refusal::NotAuthorised), "{name}");
        }
        for name in ["", "Alice c/o Bob", "jch@work", "0123 456", "…"] {
            assert_eq!(enter(Some(name), "open", ""), Ok(name.into()), "{name}");
        }
    }

    #[test]
    fn a_locked_or_full_group_lets_operators_in_alone() {
        let mut group = group();
        group.max_clients = Some(2);
        let john = Credentials { username: Some("john"), password: "open", token: "" };
        let jane = Credentials { username: Some("jane"), password: "secret", token: "" };
        let full = Occupancy { clients: 2, ..EMPTY };
        assert_eq!(admit(&group, full, &john), Err(Refusal::Other("too many users".into())));
        assert!(admit(&group, full, &jane).is_ok());
        let locked = Occupancy { locked: Some("back at nine"), ..EMPTY };
        assert_eq!(admit(&group, locked, &john), Err(Refusal::Other("back at nine".into())));
        assert!(admit(&group, locked, &jane).is_ok());
        group.autokick = true;
        assert!(admit(&group, EMPTY, &john).is_err());
        assert!(admit(&group, Occupancy { has_operator: true, ..EMPTY }, &john).is_ok());
    }
}

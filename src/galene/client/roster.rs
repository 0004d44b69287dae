//! Who is in the group, as its `user` messages tell.

use std::collections::BTreeMap;

/// The most members that are kept: five times the largest Galene groups that are heard of, and at most 0.4 MB each
/// client. Events come for the others as well; they are only not listed.
pub const MAX_MEMBERS: usize = 1024;

/// Client ids with names.
#[derive(Debug, Default)]
pub struct Roster {
    members: BTreeMap<String, String>,
}

impl Roster {
    pub(super) const EMPTY: &'static Self = &Self { members: BTreeMap::new() };

    /// The name, perhaps empty, of the member with this client id.
    pub fn username(&self, id: &str) -> Option<&str> {
        self.members.get(id).map(String::as_str)
    }

    /// How many members are listed.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// True before the first `user` message.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Client ids and names, by client id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members.iter().map(|(id, username)| (id.as_str(), username.as_str()))
    }

    /// Says whether the member was listed before.
    pub(super) fn set(&mut self, id: &str, username: &str) -> bool {
        if let Some(listed) = self.members.get_mut(id) {
            username.clone_into(listed);
            return true;
        }
        if self.members.len() < MAX_MEMBERS {
            self.members.insert(id.into(), username.into());
        }
        false
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.members.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_does_not_outgrow_the_roster() {
        let mut roster = Roster::default();
        for member in 0..2 * MAX_MEMBERS {
            assert!(!roster.set(&member.to_string(), "x"));
        }
        assert_eq!(roster.len(), MAX_MEMBERS);
        assert!(roster.set("0", "y"));
        assert_eq!(roster.username("0"), Some("y"));
        roster.remove("0");
        assert_eq!((roster.username("0"), roster.len()), (None, MAX_MEMBERS - 1));
    }
}

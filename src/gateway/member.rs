//! One membership of the group, and what it is called towards `io`.

use super::event::MemberKey;
use crate::galene::client::Client;

/// A member that was begun for one call.
pub(super) struct Member {
    pub(super) key: MemberKey,
    pub(super) client: Client,
}

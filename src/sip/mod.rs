//! An answering SIP user agent (RFC 3261).

pub mod auth;
pub mod event;
pub mod timer;
pub(crate) mod transaction;

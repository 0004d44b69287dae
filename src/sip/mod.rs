//! An answering SIP user agent (RFC 3261).

pub mod auth;
mod body;
mod dialog;
pub mod event;
mod layer;
pub mod timer;
mod transaction;

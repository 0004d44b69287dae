//! An answering SIP user agent (RFC 3261).

pub mod auth;
mod body;
mod call;
mod dialog;
pub mod endpoint;
pub mod event;
mod layer;
mod registration;
mod reply;
mod strangers;
pub mod timer;
mod transaction;

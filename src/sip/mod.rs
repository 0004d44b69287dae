//! An answering SIP user agent (RFC 3261) over UDP, TCP and TLS: it registers, takes calls and ends them. It calls only whom
//! a caller's telephone hands its caller on to.
//!
//! Owns: transactions (§17, RFC 6026), dialogs (§12), INVITE sessions (§13, §14, §15), registration (§10) with digest
//! (§22), admission. Does not own: the grammar (`wire::sip`), session descriptions (`wire::sdp`, `gateway`), sockets
//! and name look-ups (`io`).
//!
//! Read [`event`] for the words, then [`endpoint`], where everything comes by:
//!
//! ```text
//! Input ─▶ endpoint ─┬─▶ call ──▶ dialog      what the session may do
//!                    ├─▶ registration         who knows where we are
//!                    └─▶ layer ─▶ transaction what is sent again and when ─▶ Output
//! ```
//!
//! Pure: time and randomness are arguments. A state owns its data and its timers.

pub mod auth;
mod body;
mod call;
mod connections;
mod dialog;
mod digest;
pub mod endpoint;
pub mod event;
mod guests;
mod info;
mod layer;
mod passed;
mod registration;
mod reliable;
mod reply;
mod session_timer;
mod strangers;
pub mod timer;
mod transaction;
mod transfer;

pub use endpoint::Endpoint;
pub use event::CallKey;
pub use registration::instance_id;

//! Scenarios of the SIP user agent in virtual time: a scripted peer on one side, the gateway's wishes on the other.

mod admission;
mod bindings;
mod calls;
mod connections;
mod early_media;
mod moving;
mod noise;
mod nonsense;
mod peer;
mod refer;
mod refusals;
mod registration;
mod replaces;
mod rfc3665;
mod rfc5359;
mod session_timer;
mod shut_down;
mod silent;
mod torture;
mod update;

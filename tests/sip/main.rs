//! Scenarios of the SIP user agent in virtual time: a scripted peer on one side, the gateway's wishes on the other.

mod admission;
mod bindings;
mod calls;
mod noise;
mod peer;
mod refusals;
mod registration;
mod shut_down;
mod torture;

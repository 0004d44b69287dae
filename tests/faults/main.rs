//! Faults of everything around the running program: what it does meanwhile, and that it is itself again afterwards without
//! anybody's help.
//!
//! One module a fault; most of them have a call in progress, which goes on. Tests run side by side, since they mostly wait: none
//! measures finer than half a second.

mod clock;
mod descriptors;
mod dns;
mod galene;
mod ground;
mod killed;
#[path = "../common/name_server.rs"]
mod name_server;
mod output;
mod ports;
#[path = "../real/mod.rs"]
mod real;
mod registrar;
mod stopped;
#[path = "../common/wire.rs"]
mod wire;

//! What the mixing thread runs, and the stages it is made of.

mod caller;
pub mod control;
mod room;
mod stream;
mod up;

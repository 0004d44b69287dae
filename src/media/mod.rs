//! What the mixing thread runs, and the stages it is made of.

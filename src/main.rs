//! Flags to configuration to `io::run`.

fn main() {}

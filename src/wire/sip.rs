//! SIP messages (RFC 3261 §7, §20, §25): bytes to values and back.

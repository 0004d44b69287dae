//! RTCP packets (RFC 3550 §6, RFC 4585).

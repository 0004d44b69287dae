//! An answering SIP user agent (RFC 3261).

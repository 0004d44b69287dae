//! SIP, SIPS and tel addresses (RFC 3261 §19.1).

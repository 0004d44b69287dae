//! Session descriptions (RFC 8866), of which audio is read.

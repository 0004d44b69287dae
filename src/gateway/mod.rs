//! Introduces SIP calls to Galene members and rooms.

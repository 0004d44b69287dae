//! A member of a Galene group: messages, joining, streams.

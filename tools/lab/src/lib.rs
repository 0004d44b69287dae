//! The laboratory: what stands around the gateway when it is tested or shown.

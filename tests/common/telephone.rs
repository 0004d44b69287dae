//! A telephone's side of a caller, for what runs the engine without SDP.

use galene_sip::media::control::{Telephone, TelephoneCodec};

/// A telephone that sends and receives.
pub(crate) fn telephone(codec: TelephoneCodec, ptime_ms: u8) -> Telephone {
    Telephone { ptime_ms, ..Telephone::new(codec, 0) }
}

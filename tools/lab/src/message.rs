//! Galene's protocol messages (version 2) as one JSON object with optional fields.
//!
//! Owns: field names and which of them are left out when empty. Does not own: what a message means, see
//! [`crate::room`] and [`crate::member`].

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One message, in either direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    /// The kind of message: `handshake`, `join`, `offer` …
    #[serde(rename = "type")]
    pub type_: String,
    /// Protocol versions, in `handshake` alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub version: Vec<String>,
    /// The subtype.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// A stable name for an error.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// The client, stream or chat message that this is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The stream that an offered one replaces.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub replace: String,
    /// Id of the client that this comes from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Id of the client that this is for, empty for all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dest: String,
    /// Name of the client that this comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// In `join`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// In `join`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub token: String,
    /// The server vouches for the sender's being an operator.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// In `joined` and `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<String>>,
    /// The group's status, in `joined`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
    /// The group's or the user's data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// The group's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Whatever the kind calls for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// The sender wants no copy of its own chat message.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub noecho: bool,
    /// ISO 8601.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub time: String,
    /// An offer's or answer's description.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sdp: String,
    /// In `ice`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<IceCandidate>,
    /// `camera`, `screenshare` or `video`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// What is wanted: a map in `request`, a list in `requestStream`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Value>,
    /// STUN and TURN servers, in `joined`.
    #[serde(rename = "rtcConfiguration", skip_serializing_if = "Option::is_none")]
    pub rtc_configuration: Option<Value>,
}

/// A candidate as browsers write it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IceCandidate {
    /// `candidate:…`, empty at the end of candidates.
    pub candidate: String,
    /// The media section's name.
    #[serde(rename = "sdpMid")]
    pub sdp_mid: Option<String>,
    /// The media section's index.
    #[serde(rename = "sdpMLineIndex")]
    pub sdp_m_line_index: Option<u16>,
}

impl Message {
    /// An empty message of a type.
    pub fn new(type_: &str) -> Self {
        Self { type_: type_.into(), ..Self::default() }
    }

    /// A message of a type and kind.
    pub fn of_kind(type_: &str, kind: &str) -> Self {
        Self { type_: type_.into(), kind: kind.into(), ..Self::default() }
    }

    /// A message of a type about a stream.
    pub fn about(type_: &str, id: &str) -> Self {
        Self { type_: type_.into(), id: id.into(), ..Self::default() }
    }

    /// An `ice` message for the only media section of a stream.
    pub fn ice(id: &str, mid: &str, candidate: &str) -> Self {
        let candidate =
            IceCandidate { candidate: candidate.into(), sdp_mid: Some(mid.into()), sdp_m_line_index: Some(0) };
        Self { candidate: Some(candidate), ..Self::about("ice", id) }
    }

    /// The message as JSON text.
    pub fn to_text(&self) -> String {
        // Strings, maps with string keys and lists always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A random identifier: 8 bytes in base64url, as is usual.
pub fn random_id() -> String {
    use base64::Engine;
    let mut bytes = [0u8; 8];
    // The system's random source fails on no system that runs this; an id of zeros would only be refused as a duplicate.
    let _ = getrandom::fill(&mut bytes);
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_fields_are_left_out() {
        assert_eq!(Message::new("ping").to_text(), r#"{"type":"ping"}"#);
        let message = Message { username: Some(String::new()), ..Message::of_kind("join", "join") };
        assert_eq!(message.to_text(), r#"{"type":"join","kind":"join","username":""}"#);
    }

    #[test]
    fn an_unknown_field_is_ignored_and_a_wrong_type_is_an_error() {
        let message: Message = serde_json::from_str(r#"{"type":"pong","novel":[1]}"#).unwrap();
        assert_eq!(message, Message::new("pong"));
        assert!(serde_json::from_str::<Message>(r#"{"type":7}"#).is_err());
    }
}

//! JSON text to [`ServerMessage`].

use serde_json::{Map, Value};

use super::*;

/// The longest list of permissions, versions, ICE servers or URLs that is read; the rest is ignored.
const MAX_LIST: usize = 32;

impl ServerMessage {
    /// Reads one text message.
    ///
    /// # Errors
    /// If the text is too long, no JSON object with a `type`, or lacks what its type is about.
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        if text.len() > MAX_MESSAGE_BYTES {
            return Err(MessageError::TooLong);
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Fields(fields).message(),
            Ok(_) => Err(MessageError::NoType),
            Err(_) => Err(MessageError::NotJson),
        }
    }
}

/// An object's fields: absent, null, empty and of the wrong type are all one.
struct Fields(Map<String, Value>);

impl Fields {
    fn message(&self) -> Result<ServerMessage, MessageError> {
        Ok(match self.text("type").ok_or(MessageError::NoType)? {
            "handshake" => ServerMessage::Handshake { versions: strings(self.0.get("version")) },
            "joined" => ServerMessage::Joined(Box::new(self.joined())),
            "user" => self.user()?,
            "offer" => ServerMessage::Offer(Box::new(self.offer()?)),
            "answer" => ServerMessage::Answer { id: self.id("answer")?, sdp: self.sdp("answer")? },
            "ice" => ServerMessage::Ice { id: self.id("ice")?, candidate: self.candidate()? },
            "renegotiate" => ServerMessage::Renegotiate { id: self.id("renegotiate")? },
            "close" => ServerMessage::Close { id: self.id("close")? },
            "abort" => ServerMessage::Abort { id: self.id("abort")? },
            "chat" => ServerMessage::Chat(Box::new(self.chat(false)?)),
            "chathistory" => ServerMessage::Chat(Box::new(self.chat(true)?)),
            "usermessage" => ServerMessage::UserMessage(Box::new(self.user_message())),
            "ping" => ServerMessage::Ping,
            "pong" => ServerMessage::Pong,
            _ => ServerMessage::Unknown,
        })
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    fn id(&self, kind: &'static str) -> Result<String, MessageError> {
        let id = self.text("id").filter(|id| id.len() <= MAX_ID_BYTES);
        id.map(Into::into).ok_or(MessageError::Incomplete(kind))
    }

    fn sdp(&self, kind: &'static str) -> Result<String, MessageError> {
        self.text("sdp").map(Into::into).ok_or(MessageError::Incomplete(kind))
    }

    /// A name that may be empty.
    fn username(&self) -> String {
        self.text("username").map(|name| cut(name, MAX_USERNAME_BYTES)).unwrap_or_default()
    }

    fn permissions(&self) -> Permissions {
        let list = strings(self.0.get("permissions"));
        let has = |permission| list.iter().any(|given| given == permission);
        Permissions { present: has("present"), message: has("message"), op: has("op") }
    }

    fn joined(&self) -> JoinedMessage {
        JoinedMessage {
            kind: match self.text("kind") {
                Some("join") => JoinedKind::Join,
                Some("fail") => JoinedKind::Fail,
                Some("change") => JoinedKind::Change,
                Some("leave") => JoinedKind::Leave,
                Some("redirect") => JoinedKind::Redirect,
                _ => JoinedKind::Unknown,
            },
            error: self.text("error").map(|error| cut(error, MAX_TEXT_BYTES)),
            value: self.text("value").map(one_line),
            group: self.text("group").unwrap_or_default().into(),
            username: self.text("username").map(|name| cut(name, MAX_USERNAME_BYTES)),
            permissions: self.permissions(),
            rtc: rtc_configuration(self.0.get("rtcConfiguration")),
        }
    }

    fn user(&self) -> Result<ServerMessage, MessageError> {
        let kind = match self.text("kind") {
            Some("add") => UserKind::Add,
            Some("change") => UserKind::Change,
            Some("delete") => UserKind::Delete,
            _ => return Ok(ServerMessage::Unknown),
        };
        let (id, username, permissions) = (self.id("user")?, self.username(), self.permissions());
        Ok(ServerMessage::User { kind, id, username, permissions })
    }

    fn offer(&self) -> Result<Offer, MessageError> {
        Ok(Offer {
            id: self.id("offer")?,
            label: self.text("label").map(|label| cut(label, MAX_ID_BYTES)).unwrap_or_default(),
            source: self.text("source").map(|source| cut(source, MAX_ID_BYTES)).unwrap_or_default(),
            username: self.username(),
            sdp: self.sdp("offer")?,
            replace: self.text("replace").filter(|id| id.len() <= MAX_ID_BYTES).map(Into::into),
        })
    }

    fn candidate(&self) -> Result<Candidate, MessageError> {
        let Some(Value::Object(fields)) = self.0.get("candidate") else { return Err(MessageError::Incomplete("ice")) };
        let text = |name| fields.get(name).and_then(Value::as_str);
        let index = fields.get("sdpMLineIndex").and_then(Value::as_u64);
        Ok(Candidate {
            candidate: text("candidate").ok_or(MessageError::Incomplete("ice"))?.into(),
            sdp_mid: text("sdpMid").map(Into::into),
            sdp_m_line_index: index.and_then(|index| u16::try_from(index).ok()),
        })
    }

    fn chat(&self, history: bool) -> Result<Chat, MessageError> {
        Ok(Chat {
            source: self.text("source").map(|source| cut(source, MAX_ID_BYTES)).unwrap_or_default(),
            username: self.username(),
            private: self.text("dest").is_some(),
            history,
            privileged: self.is_privileged(),
            text: self.text("value").map(|text| cut(text, MAX_TEXT_BYTES)).ok_or(MessageError::Incomplete("chat"))?,
        })
    }

    fn user_message(&self) -> UserMessage {
        UserMessage {
            kind: self.text("kind").map(|kind| cut(kind, MAX_ID_BYTES)).unwrap_or_default(),
            from: self.text("id").or_else(|| self.text("source")).map(|id| cut(id, MAX_ID_BYTES)),
            username: self.text("username").map(|name| cut(name, MAX_USERNAME_BYTES)),
            privileged: self.is_privileged(),
            value: self.text("value").map(one_line),
        }
    }

    fn is_privileged(&self) -> bool {
        self.0.get("privileged") == Some(&Value::Bool(true))
    }
}

/// An `RTCConfiguration` (W3C WebRTC §4.2.1), whose `urls` may be one string or a list.
fn rtc_configuration(value: Option<&Value>) -> RtcConfiguration {
    let Some(Value::Object(fields)) = value else { return RtcConfiguration::default() };
    let servers = fields.get("iceServers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let server = |server: &Value| {
        let urls = match server.get("urls") {
            Some(Value::String(url)) => vec![url.clone()],
            list => strings(list),
        };
        let text = |name| server.get(name).and_then(Value::as_str).map(Into::into);
        (!urls.is_empty()).then(|| IceServer { urls, username: text("username"), credential: text("credential") })
    };
    RtcConfiguration {
        ice_servers: servers.iter().take(MAX_LIST).filter_map(server).collect(),
        relay_only: fields.get("iceTransportPolicy").and_then(Value::as_str) == Some("relay"),
    }
}

/// The strings of a list.
fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).take(MAX_LIST).map(Into::into).collect()
}

/// The first `max_bytes` of a text, or a little less so that no character is torn.
fn cut(text: &str, max_bytes: usize) -> String {
    let mut end = text.len().min(max_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

/// A text for people, on one line, since it ends in log lines and reason phrases.
fn one_line(text: &str) -> String {
    let visible: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    cut(&visible.split_whitespace().collect::<Vec<_>>().join(" "), MAX_TEXT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn garbled_text_is_refused_with_its_reason() {
        for (text, error) in [
            ("", MessageError::NotJson),
            ("{", MessageError::NotJson),
            ("[1]", MessageError::NoType),
            ("{}", MessageError::NoType),
            (r#"{"type":7}"#, MessageError::NoType),
            (r#"{"type":"close"}"#, MessageError::Incomplete("close")),
            (r#"{"type":"close","id":["a"]}"#, MessageError::Incomplete("close")),
            (r#"{"type":"offer","id":"a"}"#, MessageError::Incomplete("offer")),
            (r#"{"type":"ice","id":"a","candidate":null}"#, MessageError::Incomplete("ice")),
            (r#"{"type":"user","kind":"add","id":""}"#, MessageError::Incomplete("user")),
        ] {
            assert_eq!(ServerMessage::parse(text), Err(error), "{text}");
        }
        let deep = format!("{}{}", r#"{"type":"ping","x":"#, "[".repeat(100_000));
        assert_eq!(ServerMessage::parse(&deep), Err(MessageError::NotJson));
        assert_eq!(ServerMessage::parse(&" ".repeat(MAX_MESSAGE_BYTES + 1)), Err(MessageError::TooLong));
    }

    #[test]
    fn fields_of_the_wrong_type_count_as_absent() {
        let text = r#"{"type":"joined","kind":{},"permissions":"op","username":5,"rtcConfiguration":[],"value":{}}"#;
        assert_eq!(ServerMessage::parse(text), Ok(ServerMessage::Joined(Box::default())));
        let text = r#"{"type":"usermessage","kind":"kicked","privileged":"true"}"#;
        let message = UserMessage { kind: "kicked".into(), ..UserMessage::default() };
        assert_eq!(ServerMessage::parse(text), Ok(ServerMessage::UserMessage(Box::new(message))));
    }

    #[test]
    fn ice_servers_come_with_one_url_or_a_list() {
        let text = r#"{"type":"joined","kind":"join","rtcConfiguration":{"iceTransportPolicy":"relay","iceServers":[
            {"urls":"stun:a"},{"urls":["turn:b","turn:b?transport=tcp"],"username":"u","credential":"c"},{"urls":[]},7]}}"#;
        let Ok(ServerMessage::Joined(joined)) = ServerMessage::parse(text) else { panic!() };
        assert!(joined.rtc.relay_only);
        let server = |urls: &[&str], secret: Option<&str>, username: Option<&str>| IceServer {
            urls: urls.iter().map(|url| (*url).into()).collect(),
            username: username.map(Into::into),
            credential: secret.map(Into::into),
        };
        let expected =
            [server(&["stun:a"], None, None), server(&["turn:b", "turn:b?transport=tcp"], Some("c"), Some("u"))];
        assert_eq!(joined.rtc.ice_servers, expected);
        assert!(!format!("{:?}", joined.rtc).contains("\"c\""), "a credential in a debug print");
    }

    #[test]
    fn long_names_are_cut_and_notices_are_one_line() {
        let text = format!(r#"{{"type":"user","kind":"add","id":"a","username":"{}"}}"#, "ü".repeat(1000));
        let Ok(ServerMessage::User { username, .. }) = ServerMessage::parse(&text) else { panic!() };
        assert_eq!(username.len(), MAX_USERNAME_BYTES);
        let text = r#"{"type":"usermessage","kind":"error","value":"a\r\nb\u0000"}"#;
        let Ok(ServerMessage::UserMessage(message)) = ServerMessage::parse(text) else { panic!() };
        assert_eq!(message.value.as_deref(), Some("a b"));
    }

    #[test]
    fn what_we_send_is_what_the_protocol_shows() {
        let candidate =
            Candidate { candidate: "candidate:1".into(), sdp_mid: Some("0".into()), sdp_m_line_index: Some(0) };
        for (message, expected) in [
            (ClientMessage::Handshake { version: ["2"], id: "i" }, r#"{"type":"handshake","version":["2"],"id":"i"}"#),
            (
                ClientMessage::Join { kind: "join", group: "g", username: "u", password: None, token: Some("t") },
                r#"{"type":"join","kind":"join","group":"g","username":"u","token":"t"}"#,
            ),
            (
                ClientMessage::Request { request: Requested { any_label: &["audio"] } },
                r#"{"type":"request","request":{"":["audio"]}}"#,
            ),
            (ClientMessage::Request { request: Requested { any_label: &[] } }, r#"{"type":"request","request":{}}"#),
            (
                ClientMessage::Ice { id: "s", candidate: &candidate },
                r#"{"type":"ice","id":"s","candidate":{"candidate":"candidate:1","sdpMid":"0","sdpMLineIndex":0}}"#,
            ),
            (ClientMessage::Ping, r#"{"type":"ping"}"#),
        ] {
            assert_eq!(message.to_text(), expected);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(kind in "[a-z]{0,12}", body in "\\PC{0,80}", tail in "[\\[\\]{}:,\"0-9a-z]{0,60}") {
            let _ = ServerMessage::parse(&body);
            let _ = ServerMessage::parse(&format!(r#"{{"type":"{kind}",{tail}}}"#));
            for kind in ["joined", "user", "offer", "ice", "usermessage", "chat"] {
                let value = Value::from(body.as_str());
                let _ = ServerMessage::parse(&format!(r#"{{"type":"{kind}","id":{value},"kind":{value},"candidate":{{"candidate":{value}}}}}"#));
            }
        }
    }
}

//! Messages as `-debug` shows them: whole, but for secrets.

use std::net::SocketAddr;

use serde_json::Value;

use crate::sip::event::CallKey;

/// A SIP message, one line for each of its lines.
pub(super) fn sip(direction: &str, remote: SocketAddr, bytes: &[u8]) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        let text = String::from_utf8_lossy(bytes);
        let text: Vec<_> = text.lines().map(|line| format!("    {}", masked_header(line))).collect();
        tracing::debug!("SIP {direction} {remote}\n{}", text.join("\n"));
    }
}

/// A message of Galene's protocol.
pub(super) fn galene(call: CallKey, direction: &str, text: &str) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        tracing::debug!("call {}: {direction} Galene: {}", call.0, masked_json(text));
    }
}

/// The digest in it would let a weak password be guessed.
fn masked_header(line: &str) -> &str {
    // The key of a telephone's encryption (RFC 4568).
    if line.get(..8).is_some_and(|name| name.eq_ignore_ascii_case("a=crypto")) {
        return "a=crypto:***";
    }
    let name = line.split(':').next().unwrap_or_default().trim();
    let is_secret = ["Authorization", "Proxy-Authorization"].iter().any(|secret| name.eq_ignore_ascii_case(secret));
    if is_secret { "Authorization: ***" } else { line }
}

/// The text with every password, token and TURN credential masked; text that is no JSON is not shown at all.
fn masked_json(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(mut value) => {
            mask(&mut value);
            value.to_string()
        }
        Err(_) => format!("{} bytes that are not JSON", text.len()),
    }
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if ["password", "token", "credential"].contains(&name.as_str()) {
                    *member = Value::from("***");
                } else {
                    mask(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_tokens_and_digests_are_masked_wherever_they_stand() {
        let shown = masked_json(
            r#"{"type":"join","password":"s1","x":[{"token":"s2"}],"rtc":{"iceServers":[{"credential":"s3"}]}}"#,
        );
        assert!(["s1", "s2", "s3"].iter().all(|secret| !shown.contains(secret)) && shown.contains("join"));
        assert!(!masked_json("token=s4").contains("s4"));
        assert_eq!(masked_header("Proxy-Authorization: Digest response=\"x\""), "Authorization: ***");
        assert_eq!(masked_header("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:s5"), "a=crypto:***");
        assert_eq!(masked_header("From: <sip:a@b>"), "From: <sip:a@b>");
    }
}

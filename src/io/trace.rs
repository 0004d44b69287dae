//! Messages as `-debug` shows them: whole, but for secrets. Those of SIP come with theirs masked already.

use serde_json::Value;

use crate::sip::event::{CallKey, Direction, Passed};

/// A SIP message, one line for each of its lines.
pub(super) fn sip(passed: &Passed) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        let direction = match passed.direction {
            Direction::Received => "from",
            Direction::Sent => "to",
        };
        let text = String::from_utf8_lossy(&passed.bytes);
        let text: Vec<_> = text.lines().map(|line| format!("    {line}")).collect();
        tracing::debug!("SIP {direction} {}\n{}", passed.remote, text.join("\n"));
    }
}

/// A message of Galene's protocol.
pub(super) fn galene(call: CallKey, direction: &str, text: &str) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        tracing::debug!("call {}: {direction} Galene: {}", call.0, masked_json(text));
    }
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
    fn passwords_tokens_and_credentials_are_masked_wherever_they_stand() {
        let shown = masked_json(
            r#"{"type":"join","password":"s1","x":[{"token":"s2"}],"rtc":{"iceServers":[{"credential":"s3"}]}}"#,
        );
        assert!(["s1", "s2", "s3"].iter().all(|secret| !shown.contains(secret)) && shown.contains("join"));
        assert!(!masked_json("token=s4").contains("s4"));
    }
}

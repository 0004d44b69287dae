//! The room server's HTTP: a group's status, the way to the WebSocket, and the authorisation server.

use serde_json::{Value, json};

use super::config::{AuthVerdict, GroupConfig, TokenConfig};
use crate::http::{Request, response};
use crate::message::random_id;
use crate::websocket;

/// What a request leads to.
pub(super) enum Reply {
    /// These bytes, and then the end.
    Document(Vec<u8>),
    /// These bytes, and then a WebSocket.
    Upgrade(Vec<u8>),
    /// 200 with a new token, which from now on opens this group.
    Token { group: usize, token: TokenConfig },
}

/// What of a group changes while the server runs.
pub(super) struct Occupancy {
    pub(super) locked: bool,
    pub(super) clients: usize,
}

pub(super) fn reply(request: &Request, scheme: &str, groups: &[&GroupConfig]) -> Reply {
    let path = request.target.split('?').next().unwrap_or_default();
    let host = request.header("host").unwrap_or("localhost");
    match (request.method.as_str(), path) {
        ("GET", "/ws") => upgrade(request),
        ("GET", path) if path.starts_with("/group/") => Reply::Document(group_page(path, scheme, host, groups)),
        ("POST", path) if path.starts_with("/auth/") => authorise(path, &request.body, groups),
        ("GET", _) => Reply::Document(response("404 Not Found", &[], "not found\n")),
        (_, _) => Reply::Document(response("405 Method Not Allowed", &[], "")),
    }
}

fn upgrade(request: &Request) -> Reply {
    let wants = request.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    let Some(key) = request.header("sec-websocket-key").filter(|_| wants) else {
        return Reply::Document(response("400 Bad Request", &[], "this is a WebSocket\n"));
    };
    Reply::Upgrade(websocket::upgrade(key))
}

fn group_page(path: &str, scheme: &str, host: &str, groups: &[&GroupConfig]) -> Vec<u8> {
    let rest = path.trim_start_matches("/group/");
    let (name, file) = rest.rsplit_once('/').unwrap_or((rest, ""));
    let name = percent_decoded(name);
    let Some(group) = groups.iter().find(|group| group.name == name) else {
        return response("404 Not Found", &[], "not found\n");
    };
    match file {
        ".status" => {
            let status = public_status(group, scheme, host).to_string();
            response("200 OK", &[("Content-Type", "application/json"), ("Cache-Control", "no-cache")], &status)
        }
        ".status.json" => {
            let location = format!("{}.status", path.trim_end_matches(".status.json"));
            response("301 Moved Permanently", &[("Location", &location)], "")
        }
        "" => match &group.redirect {
            Some(url) => response("307 Temporary Redirect", &[("Location", url)], ""),
            None => response("200 OK", &[("Content-Type", "text/plain")], "A room of the laboratory.\n"),
        },
        _ => response("404 Not Found", &[], "not found\n"),
    }
}

fn public_status(group: &GroupConfig, scheme: &str, host: &str) -> Value {
    if let Some(redirect) = &group.redirect {
        return json!({"name": group.name, "redirect": redirect});
    }
    let socket_scheme = if scheme == "https" { "wss" } else { "ws" };
    let mut status = json!({
        "name": group.name,
        "location": format!("{scheme}://{host}/group/{}/", percent_encoded(&group.name)),
        "endpoint": format!("{socket_scheme}://{host}/ws"),
    });
    if !group.display_name.is_empty() {
        status["displayName"] = json!(group.display_name);
    }
    if group.auth.is_some() {
        status["authServer"] = json!(format!("{scheme}://{host}/auth/{}", percent_encoded(&group.name)));
    }
    status
}

/// The status that those inside are told.
pub(super) fn private_status(group: &GroupConfig, occupancy: &Occupancy) -> Value {
    let mut status = json!({"name": group.name, "clientCount": occupancy.clients});
    if !group.display_name.is_empty() {
        status["displayName"] = json!(group.display_name);
    }
    if occupancy.locked {
        status["locked"] = json!(true);
    }
    status
}

fn authorise(path: &str, body: &[u8], groups: &[&GroupConfig]) -> Reply {
    let name = percent_decoded(path.trim_start_matches("/auth/"));
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let refused = || Reply::Document(response("403 Forbidden", &[], "not authorised\n"));
    let (Some(username), Some(password)) = (body["username"].as_str(), body["password"].as_str()) else {
        return Reply::Document(response("400 Bad Request", &[], ""));
    };
    let Some(group) = groups.iter().position(|group| group.name == name) else { return refused() };
    let rule = groups[group].auth.iter().flatten().find(|rule| rule.username == username);
    match rule.filter(|rule| rule.password == password).map(|rule| &rule.verdict) {
        Some(AuthVerdict::Token(permissions)) => {
            let token = format!("{}{}", random_id(), random_id());
            let (username, permissions) = (Some(username.to_owned()), permissions.clone());
            Reply::Token { group, token: TokenConfig { token, username, permissions } }
        }
        Some(AuthVerdict::UsePassword) => Reply::Document(response("204 No Content", &[], "")),
        Some(AuthVerdict::Refuse) | None => refused(),
    }
}

/// RFC 3986 §2.1; what is no escape stays as it is.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *byte == b'%') {
            Some(value) => {
                decoded.push(value);
                at += 3;
            }
            None => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::AuthRule;

    fn ask(text: &str, groups: &[&GroupConfig]) -> Reply {
        reply(&Request::parse(text.as_bytes()).unwrap().unwrap(), "http", groups)
    }

    fn document(reply: Reply) -> String {
        match reply {
            Reply::Document(bytes) | Reply::Upgrade(bytes) => String::from_utf8(bytes).unwrap(),
            Reply::Token { .. } => String::new(),
        }
    }

    #[test]
    fn a_groups_status_names_its_endpoint_as_the_client_reached_it() {
        let group = GroupConfig::open("the room");
        let groups = [&group];
        let page = document(ask("GET /group/the%20room/.status HTTP/1.1\r\nHost: h:8\r\n\r\n", &groups));
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
        let status: Value = serde_json::from_str(page.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(status["name"], "the room");
        assert_eq!(status["endpoint"], "ws://h:8/ws");
        assert_eq!(status["location"], "http://h:8/group/the%20room/");
        let old = document(ask("GET /group/the%20room/.status.json HTTP/1.1\r\n\r\n", &groups));
        assert!(old.contains("301") && old.contains("Location: /group/the%20room/.status\r\n"), "{old}");
        assert!(document(ask("GET /group/other/.status HTTP/1.1\r\n\r\n", &groups)).contains("404"));
    }

    #[test]
    fn the_authorisation_server_grants_refuses_or_has_no_opinion() {
        let rule = |username: &str, verdict| AuthRule { username: username.into(), password: "p".into(), verdict };
        let rules = vec![
            rule("a", AuthVerdict::Token(vec!["present"])),
            rule("b", AuthVerdict::UsePassword),
            rule("c", AuthVerdict::Refuse),
        ];
        let group = GroupConfig { auth: Some(rules), ..GroupConfig::closed("g") };
        let post = |username: &str, password: &str| {
            let body = json!({"location": "x", "username": username, "password": password}).to_string();
            let text = format!("POST /auth/g HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            ask(&text, &[&group])
        };
        assert!(matches!(post("a", "p"), Reply::Token { group: 0, token } if token.username == Some("a".into())));
        assert!(document(post("a", "wrong")).contains("403"));
        assert!(document(post("b", "p")).contains("204"));
        assert!(document(post("c", "p")).contains("403"));
    }

    #[test]
    fn escapes_go_both_ways() {
        assert_eq!(percent_decoded(&percent_encoded("a b/ü%")), "a b/ü%");
        assert_eq!(percent_decoded("%zz%4"), "%zz%4");
    }
}

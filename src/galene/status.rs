//! A group's status: what `GET <group>/.status` answers (`galene-protocol.md`, "Before connecting").
//!
//! Owns: where it is found and what it says. Does not own: fetching it (`io::http`), acting on it ([`super::client`]).

use serde_json::Value;
use url::Url;

/// The longest group name that is taken.
const MAX_NAME_BYTES: usize = 1024;

/// A group as its server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group's name, which `join` carries.
    pub name: String,
    /// A longer name for people.
    pub display_name: Option<String>,
    /// The group's own URL, as authorisation servers know it.
    pub location: Url,
    /// The WebSocket's URL, `ws:` or `wss:`.
    pub endpoint: Url,
    /// Where a token is fetched with name and password.
    pub auth_server: Option<Url>,
}

/// A status as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The group is here.
    Here(Box<GroupStatus>),
    /// The group is elsewhere.
    Redirect(Url),
}

/// A body that is no status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StatusError {
    #[error("it is no JSON object")]
    NotJson,
    #[error("it has no usable '{0}'")]
    Field(&'static str),
}

/// The group's URL as `location` has it: with a final slash, without query, fragment and credentials.
pub(crate) fn group_location(url: &Url) -> Url {
    let mut location = url.clone();
    location.set_query(None);
    location.set_fragment(None);
    // These two fail only for URLs without a host, which have no credentials either.
    let _ = location.set_username("");
    let _ = location.set_password(None);
    if !location.path().ends_with('/') {
        location.set_path(&format!("{}/", url.path()));
    }
    location
}

/// Where the status of the group at `location` is.
pub(crate) fn status_url(location: &Url) -> Url {
    let mut url = location.clone();
    url.set_path(&format!("{}.status", location.path()));
    url
}

/// The `token` in the query of a group's URL.
pub(crate) fn token_of(url: &Url) -> Option<String> {
    let token = url.query_pairs().find(|(name, _)| name == "token").map(|(_, value)| value.into_owned());
    token.filter(|token| !token.is_empty())
}

impl Status {
    /// Reads a body that came from `base`.
    pub(crate) fn parse(body: &[u8], base: &Url) -> Result<Self, StatusError> {
        let Ok(Value::Object(fields)) = serde_json::from_slice(body) else { return Err(StatusError::NotJson) };
        let text = |name| fields.get(name).and_then(Value::as_str).filter(|text: &&str| !text.is_empty());
        let url = |name: &'static str| match text(name) {
            None => Ok(None),
            Some(text) => base.join(text).map(Some).map_err(|_| StatusError::Field(name)),
        };
        // Whatever is asked by HTTP: Galene's own redirects and authorisation servers are.
        let http_url = |name| match url(name)? {
            Some(url) if !matches!(url.scheme(), "http" | "https") => Err(StatusError::Field(name)),
            url => Ok(url),
        };
        let name = text("name").filter(|name| name.len() <= MAX_NAME_BYTES).ok_or(StatusError::Field("name"))?;
        if let Some(redirect) = http_url("redirect")? {
            return Ok(Self::Redirect(redirect));
        }
        let endpoint = url("endpoint")?.filter(|url| matches!(url.scheme(), "ws" | "wss") && url.has_host());
        Ok(Self::Here(Box::new(GroupStatus {
            name: name.into(),
            display_name: text("displayName").map(Into::into),
            location: url("location")?.ok_or(StatusError::Field("location"))?,
            endpoint: endpoint.ok_or(StatusError::Field("endpoint"))?,
            auth_server: http_url("authServer")?,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn the_status_is_asked_for_without_token_and_with_the_final_slash() {
        for text in ["https://g.example:8443/group/a%20b?token=x#y", "https://u:p@g.example:8443/group/a%20b/?token=x"]
        {
            let location = group_location(&url(text));
            assert_eq!(location.as_str(), "https://g.example:8443/group/a%20b/");
            assert_eq!(status_url(&location).as_str(), "https://g.example:8443/group/a%20b/.status");
            assert_eq!(token_of(&url(text)).as_deref(), Some("x"));
        }
        assert_eq!(token_of(&url("https://g.example/group/a/?token=")), None);
    }

    #[test]
    fn a_status_needs_name_location_and_endpoint_and_nothing_else() {
        let base = url("https://g.example/group/a/.status");
        let body =
            br#"{"name":"a","location":"https://g.example/group/a/","endpoint":"wss://g.example/ws","locked":3}"#;
        let Ok(Status::Here(group)) = Status::parse(body, &base) else { panic!() };
        assert_eq!((group.name.as_str(), group.endpoint.as_str()), ("a", "wss://g.example/ws"));
        assert_eq!((group.display_name, group.auth_server), (None, None));
        for (body, error) in [
            (&b"<html>"[..], StatusError::NotJson),
            (b"[]", StatusError::NotJson),
            (br#"{"name":7}"#, StatusError::Field("name")),
            (br#"{"name":"a","location":"/group/a/"}"#, StatusError::Field("endpoint")),
            (
                br#"{"name":"a","location":"/group/a/","endpoint":"https://g.example/ws"}"#,
                StatusError::Field("endpoint"),
            ),
            (br#"{"name":"a","endpoint":"wss://g.example/ws"}"#, StatusError::Field("location")),
            (br#"{"name":"a","redirect":"https://["}"#, StatusError::Field("redirect")),
            (br#"{"name":"a","redirect":"wss://g.example/ws"}"#, StatusError::Field("redirect")),
            (
                br#"{"name":"a","location":"/group/a/","endpoint":"wss://g.example/ws","authServer":"wss://g.example/"}"#,
                StatusError::Field("authServer"),
            ),
        ] {
            assert_eq!(Status::parse(body, &base), Err(error));
        }
    }

    #[test]
    fn a_redirecting_group_says_only_where_to_go() {
        let base = url("https://g.example/group/a/.status");
        let status = Status::parse(br#"{"name":"a","redirect":"/group/b/"}"#, &base);
        assert_eq!(status, Ok(Status::Redirect(url("https://g.example/group/b/"))));
    }
}

//! Moves secrets from the command line, which every user of the machine can read, to the environment, which only the owner
//! of the process can.

use std::ffi::OsString;

use url::Url;

use super::arguments::normalise;

/// Environment variable of the group URL's token, set by [`conceal`] and read by [`super::parse`].
pub(super) const TOKEN: &str = "GALENE_TOKEN";

/// A command line without secrets, and the environment that carries them instead.
#[derive(Debug, PartialEq, Eq)]
pub struct Concealed {
    /// Arguments without the program's name.
    pub arguments: Vec<OsString>,
    /// Names and values to add to the environment.
    pub environment: Vec<(&'static str, String)>,
}

/// Takes the secrets out of `arguments`. `None` if there are none, or if the arguments are wrong anyway.
pub fn conceal(arguments: &[OsString]) -> Option<Concealed> {
    let mut concealed = Concealed { arguments: Vec::new(), environment: Vec::new() };
    for argument in normalise(arguments.iter().cloned()).ok()? {
        let text = argument.to_str()?;
        if let Some(password) = text.strip_prefix("--sip-password=") {
            concealed.environment.push(("GALENE_SIP_PASSWORD", password.to_owned()));
        } else if let Some(password) = text.strip_prefix("--sip-guest-password=") {
            concealed.environment.push(("GALENE_SIP_GUEST_PASSWORD", password.to_owned()));
        } else if let Some(password) = text.strip_prefix("--password=") {
            concealed.environment.push(("GALENE_PASSWORD", password.to_owned()));
        } else if let Some((url, token)) = without_token(text) {
            concealed.environment.push((TOKEN, token));
            concealed.arguments.push(url.into());
        } else {
            concealed.arguments.push(argument);
        }
    }
    (!concealed.environment.is_empty()).then_some(concealed)
}

fn without_token(text: &str) -> Option<(String, String)> {
    let mut url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let (_, token) = url.query_pairs().find(|(key, value)| key == "token" && !value.is_empty())?;
    let token = token.into_owned();
    url.set_query(None);
    Some((url.into(), token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn secrets_move_to_the_environment_and_the_rest_stays() {
        let given = words(&[
            "-sip",
            "sip:a@b",
            "-sip-password",
            "s1",
            "--password=s2",
            "-sip-guest-password",
            "s4",
            "https://h/group/g/?token=s3",
        ]);
        let concealed = conceal(&given).unwrap();
        assert_eq!(concealed.arguments, words(&["--sip=sip:a@b", "https://h/group/g/"]));
        let environment = [
            ("GALENE_SIP_PASSWORD", "s1"),
            ("GALENE_PASSWORD", "s2"),
            ("GALENE_SIP_GUEST_PASSWORD", "s4"),
            ("GALENE_TOKEN", "s3"),
        ];
        assert_eq!(concealed.environment, environment.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(conceal(&concealed.arguments), None);
    }
}

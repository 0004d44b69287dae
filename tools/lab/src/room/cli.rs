//! `lab room`: a room server from the command line, its events as JSON lines on standard output.

use std::io::Write;
use std::time::{Duration, Instant};

use super::{AudioCodec, Candidates, GroupConfig, Permissions, RoomConfig, RoomServer, WildcardConfig};
use crate::options::Options;

/// The text of `lab room --help`.
pub const USAGE: &str = "\
lab room [options]
  --group NAME                   a group that anyone may enter (may be given again; default: test)
  --user GROUP:NAME:PASSWORD     an operator of a group (may be given again)
  --password PASSWORD            what everybody else needs (default: anything will do)
  --codecs opus,pcmu,pcma,g722   what may be published (default: opus)
  --listen ADDRESS:PORT          where to serve (default: 127.0.0.1 and a free port)
  --media-address ADDRESS        where media is served (default: 127.0.0.1)
  --one-port                     all media on one port
  --tls                          https and wss
  --candidates description|after|before   when the server tells its candidates (default: after)
  --loss PERCENT                 lose so much on the way to listeners
  --jitter MS                    delay packets on the way to listeners by up to so much
  --seconds N                    shut down after so long (default: never)
";

/// Serves until the time is over; the first line names the groups' URLs.
///
/// # Errors
///
/// One sentence, when an option is wrong or the address is taken.
pub fn run(arguments: &[String]) -> Result<i32, String> {
    let mut options = Options::new(arguments);
    if options.switch("--help") {
        print!("{USAGE}");
        return Ok(0);
    }
    let length = options.seconds("--seconds")?;
    let config = parse(options)?;
    let names: Vec<String> = config.groups.iter().map(|group| group.name.clone()).collect();
    let mut room = RoomServer::start(config)?;
    let urls: Vec<String> = names.iter().map(|name| room.group_url(name)).collect();
    say(&serde_json::json!({"event": "listening", "urls": urls}).to_string());
    let deadline = length.map(|length| Instant::now() + length);
    while deadline.is_none_or(|deadline| deadline > Instant::now()) {
        if let Some(event) = room.events.next(Duration::from_millis(100)) {
            say(&event.to_json());
        }
        // Nobody waits for what has been told.
        room.events.forget_seen();
    }
    Ok(0)
}

fn say(line: &str) {
    // Whoever closed the pipe wants no more lines; the room stays open.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn parse(mut options: Options) -> Result<RoomConfig, String> {
    let mut groups: Vec<GroupConfig> = options.values("--group")?.iter().map(|name| GroupConfig::open(name)).collect();
    if groups.is_empty() {
        groups.push(GroupConfig::open("test"));
    }
    let password = options.value::<String>("--password")?;
    let codecs = options.value::<String>("--codecs")?.map(|names| parse_codecs(&names)).transpose()?;
    for group in &mut groups {
        group.wildcard =
            Some(WildcardConfig { password: password.clone(), permissions: Permissions::PRESENT.to_vec() });
        if let Some(codecs) = &codecs {
            group.codecs.clone_from(codecs);
        }
    }
    for user in options.values("--user")? {
        let mut parts = user.splitn(3, ':');
        let (Some(group), Some(name), Some(password)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(format!("--user {user}: not GROUP:NAME:PASSWORD"));
        };
        let group = groups.iter_mut().find(|known| known.name == group);
        let group = group.ok_or_else(|| format!("--user {user}: no such group"))?;
        *group = group.clone().user(name, password, Permissions::OP);
    }
    let mut config = RoomConfig::new(groups);
    config.listen = options.value("--listen")?.unwrap_or(config.listen);
    config.media_address = options.value("--media-address")?.unwrap_or(config.media_address);
    config.one_port = options.switch("--one-port");
    config.tls = options.switch("--tls");
    if let Some(when) = options.value::<String>("--candidates")? {
        config.candidates = match when.as_str() {
            "description" => Candidates::InDescription,
            "after" => Candidates::AfterDescription,
            "before" => Candidates::BeforeDescription,
            _ => return Err(format!("--candidates {when}: not understood")),
        };
    }
    if let Some(percent) = options.value::<f64>("--loss")? {
        config.down_impairment.loss_per_mille = (percent.clamp(0.0, 100.0) * 10.0) as u16;
    }
    if let Some(milliseconds) = options.value::<u64>("--jitter")? {
        config.down_impairment.jitter = Duration::from_millis(milliseconds);
    }
    match options.rest()?.first() {
        Some(surplus) => Err(format!("{surplus}: no argument is needed")),
        None => Ok(config),
    }
}

fn parse_codecs(names: &str) -> Result<Vec<AudioCodec>, String> {
    let codec = |name: &str| AudioCodec::ALL.into_iter().find(|codec| codec.name().eq_ignore_ascii_case(name));
    names.split(',').map(|name| codec(name).ok_or_else(|| format!("--codecs {name}: no such codec"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(line: &str) -> Result<RoomConfig, String> {
        parse(Options::new(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()))
    }

    #[test]
    fn options_shape_the_room() {
        let config = config("--group a --group b --user b:op:pw --codecs pcmu,OPUS --loss 2.5 --one-port").unwrap();
        assert_eq!(config.groups.len(), 2);
        assert_eq!(config.groups[1].users[0].name, "op");
        assert_eq!(config.groups[0].codecs, [AudioCodec::Pcmu, AudioCodec::Opus]);
        assert_eq!(config.down_impairment.loss_per_mille, 25);
        assert!(config.one_port && !config.tls);
    }

    #[test]
    fn a_wrong_option_is_named() {
        for (line, words) in [
            ("--user x:op:pw", "--user x:op:pw: no such group"),
            ("--codecs g729", "--codecs g729: no such codec"),
            ("surplus", "surplus: no argument is needed"),
        ] {
            assert_eq!(config(line).unwrap_err(), words);
        }
    }
}

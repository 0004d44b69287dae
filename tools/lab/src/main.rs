//! `lab`: the laboratory's parts from the command line.

use std::process::exit;

const USAGE: &str = "\
lab demo …        room, gateway, member and telephone in one call
lab browser …     a real Chromium and telephones in one room
lab load …        many telephones and members, and what they cost
lab soak …        calls that come and go for hours while things go wrong
lab telephone …   call somebody
lab room …        serve a room (lab room --help)
lab member …      join a room (lab member --help)
";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (part, rest) = arguments.split_first().map_or(("", &[][..]), |(part, rest)| (part.as_str(), rest));
    let ended = match part {
        "demo" => lab::demo::run(rest),
        "browser" => lab::browser::run(rest),
        "load" => lab::load::run(rest),
        "soak" => lab::soak::run(rest),
        "telephone" => lab::telephone::cli::run(rest),
        "room" => lab::room::cli::run(rest),
        "member" => lab::member::cli::run(rest),
        _ => Err(USAGE.to_owned()),
    };
    match ended {
        Ok(code) => exit(code),
        Err(why) => {
            eprintln!("lab: {why}");
            exit(2);
        }
    }
}

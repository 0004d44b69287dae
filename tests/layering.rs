//! Imports go one way: `io → gateway → {sip, galene, rtc, media::control} → wire → {time, random}`, siblings never
//! import each other, and only `io` knows clocks, sockets, threads and async. This test reads the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// What each layer may name behind `crate::`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("time", &["time"]),
    ("random", &["random"]),
    ("wire", &["wire", "time", "random"]),
    ("sip", &["sip", "wire", "time", "random"]),
    ("galene", &["galene", "wire", "time", "random"]),
    ("rtc", &["rtc", "wire", "time", "random"]),
    ("media", &["media", "wire", "time", "random"]),
    ("config", &["config", "wire", "time", "random"]),
    ("gateway", &["gateway", "config", "sip", "galene", "rtc", "media", "wire", "time", "random"]),
    ("io", &["io", "gateway", "config", "sip", "galene", "rtc", "media", "wire", "time", "random"]),
];

/// What only `io` may name.
const ONLY_IO: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "std::net::UdpSocket",
    "std::net::TcpStream",
    "std::thread",
    "smol::",
    "async_io",
    "getrandom",
    "nix::",
    "socket2",
    "ureq",
    "async_tungstenite",
    "async fn",
];

/// What nothing in `media` may name, since it would wait, write or ask the system in a tick.
const NEVER_IN_A_TICK: &[&str] = &[
    "Mutex",
    "RwLock",
    "Condvar",
    "mpsc",
    "Once<",
    "LazyLock",
    "tracing",
    "print!",
    "println!",
    "eprintln!",
    "dbg!",
    "std::io",
    "std::fs",
    "std::env",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code of every source file below `src` without comments, with its path relative to `src`.
fn code() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    paths.sort();
    let strip = |text: String| -> String {
        text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
    };
    let relative = |path: &Path| path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| (relative(path), strip(fs::read_to_string(path).unwrap()))).collect()
}

fn layer(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The first path segments named behind `crate::` in `code`, groups in braces included.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("crate::") {
        let rest = &code[start + "crate::".len()..];
        let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut item = String::new();
            for c in group.chars() {
                match c {
                    '}' if depth == 0 => break,
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => found.push(word(std::mem::take(&mut item).trim_start())),
                    _ if depth == 0 => item.push(c),
                    _ => {}
                }
            }
            found.push(word(item.trim_start()));
        } else {
            found.push(word(rest));
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn imports_go_one_way() {
    let mut wrong = Vec::new();
    for (path, code) in code() {
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == layer(&path)) else { continue };
        for import in imports(&code) {
            if !allowed.contains(&import.as_str()) {
                wrong.push(format!("{path} imports crate::{import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_belongs_to_a_layer() {
    for (path, _) in code() {
        let known = MAY_IMPORT.iter().any(|(name, _)| *name == layer(&path));
        assert!(known || ["lib.rs", "main.rs"].contains(&path.as_str()), "{path} is in no layer");
    }
}

#[test]
fn the_gateway_speaks_to_the_mix_thread_only_in_words_of_control() {
    for (path, code) in code().iter().filter(|(path, _)| layer(path) == "gateway") {
        for (start, _) in code.match_indices("crate::media::") {
            let rest = &code[start + "crate::media::".len()..];
            assert!(rest.starts_with("control"), "{path} imports more of media than control: {}", &rest[..20]);
        }
    }
}

#[test]
fn only_io_knows_clocks_sockets_threads_and_async() {
    let mut wrong = Vec::new();
    let is_test = |path: &str| path.contains("/tests/") || path.ends_with("tests.rs");
    for (path, code) in code().iter().filter(|(path, _)| !["io", "main"].contains(&layer(path)) && !is_test(path)) {
        let product = code.split("#[cfg(test)]").next().unwrap();
        wrong.extend(ONLY_IO.iter().filter(|name| product.contains(**name)).map(|name| format!("{path} names {name}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The wall clock is set forward and backward as it pleases, so that no deadline, lifetime or duration is its. It is read once, to
/// tie our own clock to the time of day in RTCP and captures, and where the kernel stamps packets by it (`batch`, which takes
/// no stamp for true that is more than a second old). Libraries read it: TLS for certificates, the log for its stamps.
#[test]
fn nothing_goes_by_the_wall_clock() {
    let mut readers = Vec::new();
    for (path, code) in code() {
        let product = code.split("#[cfg(test)]").next().unwrap();
        for name in ["SystemTime::now", "CLOCK_REALTIME"] {
            readers.extend((0..product.matches(name).count()).map(|_| format!("{path}: {name}")));
        }
    }
    assert_eq!(readers, ["io/clock.rs: SystemTime::now", "io/net/batch.rs: CLOCK_REALTIME"]);
}

#[test]
fn media_knows_no_lock_no_log_and_no_system() {
    let mut wrong = Vec::new();
    let is_test = |path: &str| path.contains("/tests/") || path.ends_with("tests.rs");
    for (path, code) in code().iter().filter(|(path, _)| layer(path) == "media" && !is_test(path)) {
        let product = code.split("#[cfg(test)]").next().unwrap();
        wrong.extend(
            NEVER_IN_A_TICK.iter().filter(|name| product.contains(**name)).map(|name| format!("{path} names {name}")),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_lives_in_the_bindings_and_the_kernels_alone() {
    let may = ["media/opus.rs", "media/simd.rs", "io/memory.rs", "io/net/batch.rs"];
    for (path, code) in code() {
        let allowed =
            may.contains(&path.as_str()) || path.starts_with("media/simd/") || path.starts_with("media/opus/");
        assert!(allowed || !code.contains("unsafe "), "{path} holds unsafe code");
    }
}

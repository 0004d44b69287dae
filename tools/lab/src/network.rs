//! Networks as they are at home: namespaces of Linux with a NAT of nftables between them.
//!
//! ```text
//! home 192.168.7.2 ──── 192.168.7.1 router 203.0.113.2 ──── 203.0.113.1 server
//! ```
//!
//! Owns: the namespaces, which end with the value, and what the router does. Does not own: what runs in them: a closure that
//! is run [`inside`](Network::inside) one opens its sockets and starts its programs there.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use crate::program::find;
use crate::random::random_u64;

/// Where servers are.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Where somebody is at home.
pub const HOME: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 2);
const ROUTER_OUTSIDE: &str = "203.0.113.2";
const ROUTER_INSIDE: &str = "192.168.7.1";

/// One of the three hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Behind the router.
    Home,
    /// Between them.
    Router,
    /// On the open network.
    Server,
}

/// What the router does with ports. It filters by address and port either way (RFC 4787 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Every flow gets one at random: a symmetric NAT, mapping by address and port (RFC 4787 §4.1).
    Symmetric,
    /// They are kept, so that a socket has one address for all whom it talks to.
    KeepsPorts,
}

/// The hosts and the wires between them.
#[derive(Debug)]
pub struct Network {
    /// What their names begin with.
    name: String,
}

impl Network {
    /// Three hosts. `None`, with the reason told, where the system does not grant namespaces: to none but
    /// root, and in many containers to nobody.
    pub fn new(nat: Nat) -> Option<Self> {
        if let Some(missing) = ["ip", "nft"].into_iter().find(|program| find(program).is_none()) {
            crate::program::skip(&format!("{missing} is not installed"));
            return None;
        }
        let network = Self { name: format!("gs{:08x}", random_u64() as u32) };
        match network.build(nat) {
            Ok(()) => Some(network),
            Err(why) => {
                println!("skipped: network namespaces are not to be had here: {why}");
                None
            }
        }
    }

    fn build(&self, nat: Nat) -> Result<(), String> {
        let [home, router, server] = [Host::Home, Host::Router, Host::Server].map(|host| self.name_of(host));
        for name in [&home, &router, &server] {
            run(&["ip", "netns", "add", name])?;
            run(&["ip", "-n", name, "link", "set", "lo", "up"])?;
        }
        for (left, right, left_ip, right_ip) in [
            (&home, &router, HOME.to_string(), ROUTER_INSIDE.to_owned()),
            (&server, &router, SERVER.to_string(), ROUTER_OUTSIDE.to_owned()),
        ] {
            // The router's ends have the names of whom they lead to.
            let end = if left == &home { "inside" } else { "outside" };
            run(&["ip", "-n", left, "link", "add", "eth", "type", "veth", "peer", "name", end, "netns", right])?;
            run(&["ip", "-n", left, "addr", "add", &format!("{left_ip}/24"), "dev", "eth"])?;
            run(&["ip", "-n", right, "addr", "add", &format!("{right_ip}/24"), "dev", end])?;
            run(&["ip", "-n", left, "link", "set", "eth", "up"])?;
            run(&["ip", "-n", right, "link", "set", end, "up"])?;
        }
        run(&["ip", "-n", &home, "route", "add", "default", "via", ROUTER_INSIDE])?;
        run(&["ip", "netns", "exec", &router, "sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
        self.nft("add table ip home")?;
        self.nft("add chain ip home out { type nat hook postrouting priority srcnat; }")?;
        let ports = if nat == Nat::Symmetric { "random" } else { "" };
        self.nft(&format!("add rule ip home out oifname outside masquerade {ports}"))?;
        self.nft("add chain ip home pass { type filter hook forward priority 0; }")
    }

    /// UDP passes from home to this port of the server and no other; `None`: to none at all.
    ///
    /// # Errors
    /// In words.
    pub fn block_udp_but(&self, port: Option<u16>) -> Result<(), String> {
        if let Some(port) = port {
            self.nft(&format!("add rule ip home pass udp dport {port} accept"))?;
        }
        self.nft("add rule ip home pass iifname inside meta l4proto udp drop")
    }

    /// The router gets another address on the open network and, as masquerading does, forgets every flow: so it is when a
    /// provider renews a lease.
    ///
    /// # Errors
    /// In words.
    pub fn change_address(&self, last_byte: u8) -> Result<(), String> {
        let router = self.name_of(Host::Router);
        run(&["ip", "-n", &router, "addr", "flush", "dev", "outside"])?;
        run(&["ip", "-n", &router, "addr", "add", &format!("203.0.113.{last_byte}/24"), "dev", "outside"])
    }

    /// Runs `work` on a thread that is in the namespace of `host`: sockets that it opens, threads and programs that it starts
    /// are there too.
    ///
    /// # Panics
    /// If `work` does, or the namespace is gone.
    pub fn inside<T: Send>(&self, host: Host, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name_of(host));
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let namespace = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("who made the namespace may enter it");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn nft(&self, rule: &str) -> Result<(), String> {
        run(&["ip", "netns", "exec", &self.name_of(Host::Router), "nft", rule])
    }

    fn name_of(&self, host: Host) -> String {
        let end = match host {
            Host::Home => "home",
            Host::Router => "router",
            Host::Server => "server",
        };
        format!("{}{end}", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in [Host::Home, Host::Router, Host::Server] {
            // Programs that are still there keep it until they end.
            let _ = run(&["ip", "netns", "del", &self.name_of(host)]);
        }
    }
}

fn run(words: &[&str]) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("nothing to run")?;
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

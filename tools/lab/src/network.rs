//! Networks as they are at home: namespaces of Linux with a NAT of nftables between them.
//!
//! ```text
//! home 192.168.7.2 ──── 192.168.7.1 router 203.0.113.2 ──── 203.0.113.1 server 198.51.100.1 ─┐
//! far home 192.168.9.2 ──── 192.168.9.1 far router 198.51.100.2 ─────────────────────────────┘
//! ```
//!
//! Owns: the namespaces, which end with the value, and what the routers do. Does not own: what runs in them: a closure that
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
/// Where the same is after [`Network::move_home`].
pub const MOVED_HOME: Ipv4Addr = Ipv4Addr::new(192, 168, 8, 2);
/// What the open network sees of whoever is at the far home.
pub const FAR_ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// What it sees of whoever is at home.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// One of the hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Behind the router.
    Home,
    /// Between them.
    Router,
    /// On the open network.
    Server,
    /// Behind a router of its own.
    FarHome,
    /// Between that and the open network.
    FarRouter,
}

/// What a router does with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Every flow gets one at random: a symmetric NAT, mapping and filtering by address and port (RFC 4787 §4.1, §5).
    Symmetric,
    /// They are kept, so that a socket has one address for all whom it talks to; it filters by address and port.
    KeepsPorts,
    /// They are kept, and whatever UDP comes from outside is let in, asked for or not: endpoint-independent both ways.
    FullCone,
}

/// A home and its router, and how they are connected.
struct Side {
    home: Host,
    home_ip: Ipv4Addr,
    inside_ip: &'static str,
    router: Host,
    outside_ip: Ipv4Addr,
    /// The server's end of the wire to the router.
    server_end: &'static str,
    server_ip: &'static str,
}

const NEAR: Side = Side {
    home: Host::Home,
    home_ip: HOME,
    inside_ip: "192.168.7.1",
    router: Host::Router,
    outside_ip: ROUTER,
    server_end: "eth",
    server_ip: "203.0.113.1",
};
const FAR: Side = Side {
    home: Host::FarHome,
    home_ip: Ipv4Addr::new(192, 168, 9, 2),
    inside_ip: "192.168.9.1",
    router: Host::FarRouter,
    outside_ip: FAR_ROUTER,
    server_end: "far",
    server_ip: "198.51.100.1",
};

/// The hosts and the wires between them.
#[derive(Debug)]
pub struct Network {
    /// What their names begin with.
    name: String,
}

impl Network {
    /// Home, router and server. `None`, with the reason told, where the system does not grant namespaces: to none but
    /// root, and in many containers to nobody.
    pub fn new(nat: Nat) -> Option<Self> {
        Self::of(nat, None)
    }

    /// The same with a far home behind a router of its own.
    pub fn with_far_home(nat: Nat, far: Nat) -> Option<Self> {
        Self::of(nat, Some(far))
    }

    fn of(near: Nat, far: Option<Nat>) -> Option<Self> {
        if let Some(missing) = ["ip", "nft"].into_iter().find(|program| find(program).is_none()) {
            crate::program::skip(&format!("{missing} is not installed"));
            return None;
        }
        let network = Self { name: format!("gs{:08x}", random_u64() as u32) };
        match network.build(near, far) {
            Ok(()) => Some(network),
            Err(why) => {
                println!("skipped: network namespaces are not to be had here: {why}");
                None
            }
        }
    }

    fn build(&self, near: Nat, far: Option<Nat>) -> Result<(), String> {
        self.add_host(Host::Server)?;
        self.add_side(&NEAR, near)?;
        if let Some(far) = far {
            self.add_side(&FAR, far)?;
            self.sysctl(Host::Server, "net.ipv4.ip_forward=1")?;
        }
        Ok(())
    }

    fn add_host(&self, host: Host) -> Result<(), String> {
        let name = self.name_of(host);
        run(&["ip", "netns", "add", &name])?;
        run(&["ip", "-n", &name, "link", "set", "lo", "up"])
    }

    fn add_side(&self, side: &Side, nat: Nat) -> Result<(), String> {
        self.add_host(side.home)?;
        self.add_host(side.router)?;
        // The router's ends have the names of whom they lead to.
        self.wire((side.home, "eth", &side.home_ip.to_string()), (side.router, "inside", side.inside_ip))?;
        let outside_ip = side.outside_ip.to_string();
        self.wire((Host::Server, side.server_end, side.server_ip), (side.router, "outside", &outside_ip))?;
        self.ip(side.home, &["route", "add", "default", "via", side.inside_ip])?;
        self.ip(side.router, &["route", "add", "default", "via", side.server_ip])?;
        self.sysctl(side.router, "net.ipv4.ip_forward=1")?;
        let nft = |rule: &str| self.nft(side.router, rule);
        nft("add table ip home")?;
        nft("add chain ip home out { type nat hook postrouting priority srcnat; }")?;
        let ports = if nat == Nat::Symmetric { "random" } else { "" };
        nft(&format!("add rule ip home out oifname outside masquerade {ports}"))?;
        // As routers do: else a packet that comes unasked would take the port that a flow from inside is to keep.
        nft("add chain ip home guard { type filter hook input priority 0; }")?;
        nft("add rule ip home guard iifname outside ct state new drop")?;
        nft("add chain ip home pass { type filter hook forward priority 0; }")?;
        if nat == Nat::FullCone {
            nft("add chain ip home in { type nat hook prerouting priority dstnat; }")?;
            nft(&format!("add rule ip home in iifname outside meta l4proto udp dnat to {}", side.home_ip))?;
        }
        Ok(())
    }

    /// A wire with its two ends: host, name there, address.
    fn wire(&self, left: (Host, &str, &str), right: (Host, &str, &str)) -> Result<(), String> {
        let peer = self.name_of(right.0);
        self.ip(left.0, &["link", "add", left.1, "type", "veth", "peer", "name", right.1, "netns", &peer])?;
        for (host, end, address) in [left, right] {
            self.ip(host, &["addr", "add", &format!("{address}/24"), "dev", end])?;
            self.ip(host, &["link", "set", end, "up"])?;
        }
        Ok(())
    }

    /// UDP passes from home to this port of the server and no other; `None`: to none at all.
    ///
    /// # Errors
    /// In words.
    pub fn block_udp_but(&self, port: Option<u16>) -> Result<(), String> {
        if let Some(port) = port {
            self.nft(Host::Router, &format!("add rule ip home pass udp dport {port} accept"))?;
        }
        self.nft(Host::Router, "add rule ip home pass meta l4proto udp iifname != outside drop")
    }

    /// The router gets another address on the open network and, as masquerading does, forgets every flow: so it is when a
    /// provider renews a lease.
    ///
    /// # Errors
    /// In words.
    pub fn change_address(&self, last_byte: u8) -> Result<(), String> {
        self.ip(Host::Router, &["addr", "flush", "dev", "outside"])?;
        self.ip(Host::Router, &["addr", "add", &format!("203.0.113.{last_byte}/24"), "dev", "outside"])?;
        self.ip(Host::Router, &["route", "replace", "default", "via", NEAR.server_ip])
    }

    /// The router of `home` forgets every flow, as one does that restarts: a symmetric NAT gives all of them other ports.
    ///
    /// # Errors
    /// In words.
    pub fn forget_flows(&self, home: Host) -> Result<(), String> {
        let router = if home == Host::FarHome { Host::FarRouter } else { Host::Router };
        run(&["ip", "netns", "exec", &self.name_of(router), "conntrack", "-F"])
    }

    /// Whoever is at home loses its address: out of reach of its Wi-Fi.
    ///
    /// # Errors
    /// In words.
    pub fn leave_home(&self) -> Result<(), String> {
        self.ip(Host::Home, &["addr", "flush", "dev", "eth"])
    }

    /// It gets another one, on another interface, and its default route leads there: LTE in the place of Wi-Fi.
    ///
    /// # Errors
    /// In words.
    pub fn move_home(&self) -> Result<(), String> {
        const INSIDE: &str = "192.168.8.1";
        self.wire((Host::Home, "lte", &MOVED_HOME.to_string()), (Host::Router, "mobile", INSIDE))?;
        self.ip(Host::Home, &["route", "replace", "default", "via", INSIDE])
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

    /// Runs `ip` there.
    ///
    /// # Errors
    /// In words.
    pub fn ip(&self, host: Host, words: &[&str]) -> Result<(), String> {
        run(&[&["ip", "-n", &self.name_of(host)], words].concat())
    }

    fn nft(&self, router: Host, rule: &str) -> Result<(), String> {
        run(&["ip", "netns", "exec", &self.name_of(router), "nft", rule])
    }

    fn sysctl(&self, host: Host, setting: &str) -> Result<(), String> {
        run(&["ip", "netns", "exec", &self.name_of(host), "sysctl", "-qw", setting])
    }

    fn name_of(&self, host: Host) -> String {
        let end = match host {
            Host::Home => "home",
            Host::Router => "router",
            Host::Server => "server",
            Host::FarHome => "farhome",
            Host::FarRouter => "farrouter",
        };
        format!("{}{end}", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in [Host::Home, Host::Router, Host::Server, Host::FarHome, Host::FarRouter] {
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

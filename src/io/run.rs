//! From a configuration to a running program, and what is said when it cannot start.

use std::fs::File;
use std::io::IsTerminal;
use std::rc::Rc;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use smol::LocalExecutor;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use url::Url;

use super::capture::Capture;
use super::clock::{Clock, system_random};
use super::connections::SipConnections;
use super::dns::Dns;
use super::driver::Driver;
use super::fault;
use super::http::Http;
use super::load::LoadMeter;
use super::log::{Log, LogEnd};
use super::memory::keep_one_heap;
use super::sip::SipSockets;
use super::sockets::MediaSockets;
use super::threads;
use super::tls::Tls;
use crate::config::Config;
use crate::gateway::{Gateway, GatewayConfig};
use crate::rtc::dtls::Identity;
use crate::sip::auth::Credentials;
use crate::sip::event::{Account, EndpointConfig, Registrar, Target};
use crate::sip::instance_id;
use crate::wire::uri::{SipUri, Uri};

/// What 64 calls in rooms of a hundred voices need is far below it; what is asked of a system is no more than it grants anyway.
const WANTED_FILES: rlim_t = 4096;
/// What the program itself has open before its first call, and a few.
const FILES_AT_START: usize = 20;

/// Why the program cannot start, in one sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl StartError {
    fn because(what: &str) -> impl Fn(&dyn std::fmt::Display) -> Self {
        move |error| Self(format!("{what}: {error}"))
    }
}

/// Runs the gateway until SIGTERM or SIGINT.
///
/// # Errors
/// It cannot start: a port is taken, or the system has no entropy, thread or descriptor to give.
pub fn run(config: Config) -> Result<(), StartError> {
    keep_one_heap();
    let started = start_log(config.debug);
    // Dropped at the end of everything, so that its last lines are out before anything else is said.
    let _log_end = started.map_err(|error| StartError::because("the log's thread cannot start")(&error))?;
    grant_descriptors().map_err(|error| StartError::because("cannot start")(&fault::of_socket(&error)))?;
    let clock = Clock::start();
    let mut random = system_random().map_err(|error| StartError::because("no random numbers")(&error))?;
    let identity =
        Identity::generate(clock.base()).map_err(|error| StartError::because("no DTLS certificate")(&error))?;
    let sip = SipSockets::bind(&config.sip_transports.udp_address).map_err(StartError)?;
    let connections = SipConnections::bind(&config.sip_transports).map_err(StartError)?;
    let capture = config.sip_pcap.as_deref().map(Capture::start).transpose().map_err(StartError)?;
    let started = threads::start(clock, threads::default_mix_threads());
    let (net, mix) = started.map_err(|error| StartError::because("the sound threads cannot start")(&error))?;
    let tls = Tls::load(config.insecure);
    let http = Http::new(&tls);
    let dns = Dns::new(config.sip_transports.dns, random.fork());
    let endpoint = endpoint_config(&config, &sip);
    let loopback = is_on_loopback(&config.group_url);
    let executor = Rc::new(LocalExecutor::new());
    let (ice_ports, rtp_ports) = (config.ice_ports.as_ref(), config.rtp_ports.as_ref());
    let sockets = MediaSockets::new(net, ice_ports, rtp_ports, loopback, executor.clone(), tls.clone());
    let ipv6 = config.registrar.as_ref().is_some_and(|registrar| registrar.ipv6);
    let datagrams = sip.bound().into_iter().map(|address| address.to_string());
    let streams = connections.bound().map(|(transport, address)| format!("{address} ({transport})"));
    let addresses = datagrams.chain(streams).collect::<Vec<_>>().join(" and ");
    tracing::info!("galene-sip {}: SIP at {addresses}, group {}", env!("CARGO_PKG_VERSION"), config.group_url);
    let gateway = Gateway::new(clock.now(), gateway_config(config), endpoint, sockets, random, identity);
    let driver = Driver {
        load: LoadMeter::new(clock.now()),
        clock,
        executor: executor.clone(),
        gateway,
        mix,
        sip,
        connections,
        dns,
        capture,
        ipv6,
        tls,
        http,
        slept: clock.slept(),
        stop_by: None,
        stopped: false,
    };
    smol::block_on(executor.run(driver.run()));
    Ok(())
}

/// Raises the limit as far as we may, and makes sure that there are enough to begin with: the libraries below panic where they
/// get none.
fn grant_descriptors() -> std::io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Where it may not be raised, it is as it was.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(WANTED_FILES)), hard);
    let files: Result<Vec<File>, _> = (0..FILES_AT_START).map(|_| File::open("/dev/null")).collect();
    files.map(drop)
}

fn start_log(debug: bool) -> std::io::Result<LogEnd> {
    let (log, end) = Log::start(std::io::stderr())?;
    let level = if debug { tracing::Level::DEBUG } else { tracing::Level::INFO };
    // The libraries' own messages are for their authors.
    let ours = Targets::new().with_target("galene_sip", level);
    let lines = tracing_subscriber::fmt::layer().with_writer(log).with_target(false);
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    // A test may have set a log up already.
    let _ = tracing_subscriber::registry().with(lines).with(ours).try_init();
    Ok(end)
}

fn endpoint_config(config: &Config, sip: &SipSockets) -> EndpointConfig {
    let username = config.sip.user().unwrap_or_default().into_owned();
    let password = config.sip_password.as_ref().map(|password| password.reveal().to_owned());
    let registrar = config.registrar.as_ref();
    EndpointConfig {
        account: Account {
            uri: Uri::Sip(address_of_record(&config.sip)),
            credentials: password.map(|password| Credentials { username, password }),
        },
        registrar: registrar.map(|registrar| Registrar {
            target: Target {
                host: registrar.host.clone(),
                port: registrar.port,
                transport: registrar.transport,
                is_secure: registrar.is_secure,
            },
            proxy: registrar.proxy.clone(),
        }),
        allow: config.sip_allow.clone(),
        refer_anywhere: config.sip_refer_anywhere,
        guests: config.guests.as_ref().map(|(username, password)| Credentials {
            username: username.clone(),
            password: password.reveal().to_owned(),
        }),
        instance: machine_id().map(|machine| instance_id(&machine, &config.sip.to_string())),
        gruu: config.sip_gruu,
        public_address: config.public_address,
        local: sip.bound(),
        user_agent: concat!("galene-sip/", env!("CARGO_PKG_VERSION")).into(),
    }
}

/// The account's name; the way to its registrar is no part of it (RFC 3261 §19.1.1, table 1: not in From and To).
fn address_of_record(sip: &SipUri) -> SipUri {
    let mut uri = sip.clone();
    uri.parameters.remove("transport");
    uri
}

/// What tells this machine from others for as long as it lives; a container may have none of these.
fn machine_id() -> Option<String> {
    let files = ["/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/hostname"];
    let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    texts.map(|text| text.trim().to_owned()).find(|text| !text.is_empty())
}

fn gateway_config(config: Config) -> GatewayConfig {
    GatewayConfig {
        group_url: config.group_url,
        token: config.token,
        username: config.username,
        password: config.password,
        ice_lite: config.ice_lite,
        agc: !config.no_agc,
        public_address: config.public_address,
        drain_for: config.drain_for,
        rejoin_for: config.rejoin_for,
        max_calls: config.max_calls,
        max_calls_per_caller: config.max_calls_per_caller,
        codecs: config.sip_codecs,
        srtp: config.sip_srtp,
        srtp_keys_in_clear: config.sip_srtp_keys_in_clear,
    }
}

/// Galene on this machine, reached by a loopback address, may offer loopback candidates.
fn is_on_loopback(group: &Url) -> bool {
    match group.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

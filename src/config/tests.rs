use super::*;

fn read(arguments: &[&str]) -> Result<Request, UsageError> {
    parse(arguments.iter().map(OsString::from), |_| None)
}

fn config(arguments: &[&str]) -> Config {
    match read(arguments).unwrap() {
        Request::Run(config) => *config,
        Request::Help => panic!("help was not asked for"),
    }
}

fn mistake(arguments: &[&str]) -> String {
    read(arguments).unwrap_err().to_string()
}

const URL: &str = "https://galene.example.org:8443/group/club/";

#[test]
fn the_defaults_are_those_of_the_original() {
    let config = config(&[URL]);
    assert_eq!(config.sip.to_string(), "sip:6002@localhost");
    let registrar = config.registrar.unwrap();
    assert_eq!((registrar.host.as_str(), registrar.port, registrar.ipv6), ("localhost", None, false));
    assert_eq!((registrar.transport, registrar.proxy), (None, None));
    let transports = config.sip_transports;
    assert_eq!(transports.udp_address, SipAddress::Any(None));
    assert_eq!((transports.tcp_address, transports.tls_address, transports.tls_files), (None, None, None));
    assert!(!config.insecure && !config.debug && !config.ice_lite && !config.no_agc && config.token.is_none());
    assert!(!config.sip_refer_anywhere);
}

#[test]
fn a_token_leaves_the_url_and_every_text_that_may_be_logged() {
    let config = config(&["https://h/group/club?token=SeCrEt"]);
    assert_eq!(config.group_url.as_str(), "https://h/group/club/");
    assert_eq!(config.token.as_ref().unwrap().reveal(), "SeCrEt");
    assert!(!format!("{config:?}").contains("SeCrEt"));
    assert!(!mistake(&["ftp://h/?token=SeCrEt"]).contains("SeCrEt"));
}

#[test]
fn a_registrar_may_be_a_host_a_host_with_port_or_a_uri() {
    for (text, host, port) in [
        ("r.example", "r.example", None),
        ("r.example:5070", "r.example", Some(5070)),
        ("sip:r.example", "r.example", None),
    ] {
        let registrar = config(&["-sip-registrar", text, "-sip-register-network=udp6", URL]).registrar.unwrap();
        assert_eq!((registrar.host.as_str(), registrar.port, registrar.ipv6), (host, port, true));
    }
    assert!(config(&["-no-sip-register", URL]).registrar.is_none());
}

#[test]
fn the_transport_comes_from_the_flag_or_the_address_and_brings_its_listener() {
    let transport = |arguments: &[&str]| config(arguments).registrar.unwrap().transport;
    assert_eq!(transport(&["-sip", "sip:6002@h;transport=tcp", URL]), Some(Transport::Tcp));
    assert_eq!(transport(&["-sip", "sips:6002@h", URL]), Some(Transport::Tls));
    assert_eq!(transport(&["-sip", "sips:6002@h;transport=tcp", URL]), Some(Transport::Tls));
    assert_eq!(transport(&["-sip", "sip:6002@h;transport=tcp", "-sip-transport", "tls", URL]), Some(Transport::Tls));
    let with_tcp = config(&["-sip-transport", "tcp", URL]).sip_transports;
    assert_eq!((with_tcp.tcp_address, with_tcp.tls_address), (Some(SipAddress::Any(None)), None));
    assert_eq!(config(&["-sip-transport", "tls", URL]).sip_transports.tls_address, None);
    let with_tls =
        config(&["-sip-transport", "tls", "-sip-tls-certificate", "c", "-sip-tls-key", "k", URL]).sip_transports;
    assert_eq!((with_tls.tcp_address, with_tls.tls_address), (None, Some(SipAddress::Any(None))));
}

#[test]
fn a_proxy_takes_the_place_of_the_registrar_on_the_way() {
    let registrar =
        config(&["-sip", "sip:6002@h", "-sip-proxy", "p.example:5080;transport=tcp", URL]).registrar.unwrap();
    assert_eq!((registrar.host.as_str(), registrar.port), ("p.example", Some(5080)));
    assert_eq!(registrar.transport, Some(Transport::Tcp));
    assert_eq!(registrar.proxy.unwrap().to_string(), "sip:p.example:5080;transport=tcp;lr");
}

#[test]
fn secrets_may_come_from_the_environment_but_the_flag_wins() {
    let environment = |name: &str| Some(format!("from-{name}"));
    let arguments = ["-password", "flag", "-sip-guest-user", "door", URL].map(OsString::from);
    let Request::Run(config) = parse(arguments, environment).unwrap() else { unreachable!() };
    assert_eq!(config.guests.unwrap().1.reveal(), "from-GALENE_SIP_GUEST_PASSWORD");
    assert_eq!(config.password.unwrap().reveal(), "flag");
    assert_eq!(config.sip_password.unwrap().reveal(), "from-GALENE_SIP_PASSWORD");
    assert_eq!(config.token.unwrap().reveal(), "from-GALENE_TOKEN");
}

#[test]
fn local_addresses_are_read_in_every_form() {
    let address = |text: &str| config(&["-sip-udp-address", text, URL]).sip_transports.udp_address;
    assert_eq!(address(":5062"), SipAddress::Any(Some(5062)));
    assert_eq!(address("127.0.0.1:5062"), SipAddress::One("127.0.0.1:5062".parse().unwrap()));
    assert_eq!(address("[::1]:5062"), SipAddress::One("[::1]:5062".parse().unwrap()));
    assert_eq!(address("192.0.2.1"), SipAddress::One("192.0.2.1:5060".parse().unwrap()));
}

#[test]
fn codecs_are_in_the_order_of_the_flag_or_the_telephones_choice() {
    assert_eq!(config(&[URL]).sip_codecs, None);
    let codecs = config(&["-sip-codecs", "PCMA, opus", URL]).sip_codecs.unwrap();
    assert_eq!(codecs, [SipCodec::Pcma, SipCodec::Opus]);
}

#[test]
fn encryption_is_optional_and_keys_are_not_for_everybody_unless_said_otherwise() {
    let plain = config(&[URL]);
    assert_eq!((plain.sip_srtp, plain.sip_srtp_keys_in_clear), (SrtpPolicy::Optional, false));
    for (text, policy) in [("off", SrtpPolicy::Off), ("required", SrtpPolicy::Required)] {
        assert_eq!(config(&["-sip-srtp", text, URL]).sip_srtp, policy);
    }
    assert!(config(&["-sip-srtp-keys-in-clear", URL]).sip_srtp_keys_in_clear);
}

#[test]
fn every_mistake_names_its_flag_and_the_remedy() {
    for (arguments, words) in [
        (&["-sip", "nonsense@", URL][..], &["-sip ", "sip:USER@HOST"][..]),
        (&["-sip-register-network", "tcp4", URL], &["-sip-register-network tcp4", "udp4 or udp6"]),
        (&["-sip-udp-address", "host:5060", URL], &["-sip-udp-address", "IP-ADDRESS:PORT"]),
        (&["-sip-transport", "sctp", URL], &["-sip-transport sctp", "udp, tcp or tls"]),
        (&["-sip", "sips:a@h", "-sip-transport", "udp", URL], &["sips:", "TLS"]),
        (&["-sip", "sip:a@h;transport=ws", URL], &["transport ws", "udp, tcp"]),
        (&["-sip-proxy", "a b", URL], &["-sip-proxy", "HOST"]),
        (&["-sip-tcp-address", "host:5060", URL], &["-sip-tcp-address", "IP-ADDRESS:PORT"]),
        (&["-sip-tls-address", ":", URL], &["-sip-tls-address", "-sip-tls-certificate FILE"]),
        (&["-sip-dns", "ns.example", URL], &["-sip-dns ns.example", "IP-ADDRESS"]),
        (&["-sip-tls-certificate", "c", URL], &["-sip-tls-key FILE"]),
        (&["-sip-tls-key", "k", URL], &["-sip-tls-certificate FILE"]),
        (&["-rtp-ports", "9-3", URL], &["-rtp-ports 9-3", "LO-HI"]),
        (&["-ice-ports", "many", URL], &["-ice-ports", "LO-HI"]),
        (&["-sip-allow", "example.org", URL], &["-sip-allow", "IP address"]),
        (&["-sip-guest-user", "door", URL], &["-sip-guest-user door", "-sip-guest-password"]),
        (&["-sip-guest-password", "x", URL], &["-sip-guest-password", "-sip-guest-user NAME"]),
        (&["-sip-codecs", "pcmu,g729", URL], &["-sip-codecs pcmu,g729", "opus,g722,pcmu,pcma"]),
        (&["-sip-codecs", "pcmu,PCMU", URL], &["-sip-codecs", "each once"]),
        (&["-sip-codecs", ",", URL], &["-sip-codecs ,", "the best first"]),
        (&["-sip-srtp", "yes", URL], &["-sip-srtp yes", "off, optional or required"]),
        (&["-insecure=maybe", URL], &["-insecure maybe", "true or false"]),
        (&["-sip-pasword", "x", URL], &["-sip-pasword", "-sip-password"]),
        (&[], &["URL is missing"]),
        (&[URL, "-debug"], &["before the URL"]),
        (&["https://h/"], &["names no group"]),
        (&["galene.example.org"], &["not a URL"]),
    ] {
        let text = mistake(arguments);
        assert!(words.iter().all(|word| text.contains(word)), "{arguments:?} gave: {text}");
        assert!(!text.contains('\n'));
    }
}

#[test]
fn a_capture_is_kept_where_the_flag_says() {
    assert_eq!(config(&["-sip-pcap", "calls.pcap", URL]).sip_pcap, Some(PathBuf::from("calls.pcap")));
    assert_eq!(config(&[URL]).sip_pcap, None);
}

#[test]
fn help_names_every_flag() {
    assert!(matches!(read(&["-help"]), Ok(Request::Help)) && matches!(read(&["-h"]), Ok(Request::Help)));
    assert!(FLAGS.iter().all(|flag| help().contains(&format!("-{}", flag.name))));
}

use super::*;

fn uri(text: &str) -> Uri {
    Uri::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_part_is_read_and_written_back_as_it_came() {
    let text = "sips:al%69ce:pa%3Ass@[2001:db8::1]:5081;transport=tcp;lr;x=%41?Subject=hi%20there&Priority=urgent";
    let parsed = uri(text);
    assert_eq!(parsed.to_string(), text);
    let sip = parsed.as_sip().unwrap();
    assert!(sip.is_secure && sip.is_loose_router());
    assert_eq!(sip.user().as_deref(), Some("alice"));
    assert_eq!(sip.raw_password.as_deref(), Some("pa%3Ass"));
    assert_eq!((sip.host.clone(), sip.port), (Host::V6("2001:db8::1".parse().unwrap()), Some(5081)));
    assert_eq!(sip.headers.len(), 2);
}

#[test]
fn a_user_part_may_hold_semicolons_and_question_marks() {
    let parsed = uri("sip:user;par=u%40example.net@example.com");
    assert_eq!(parsed.user().as_deref(), Some("user;par=u@example.net"));
    assert!(parsed.as_sip().unwrap().parameters.is_empty());
    assert_eq!(uri("sip:a?b;c,d/e&f=g@h").as_sip().unwrap().host, Host::Name("h".into()));
}

#[test]
fn a_uri_without_user_is_a_host() {
    let parsed = uri("SIP:registrar.example.com;transport=udp");
    assert_eq!(parsed.user(), None);
    assert_eq!(parsed.to_string(), "sip:registrar.example.com;transport=udp");
    assert_eq!(parsed.as_sip().unwrap().port_or_default(), 5060);
}

#[test]
fn numbers_and_foreign_schemes_are_kept() {
    assert_eq!(uri("tel:+1-201-555-0123;phone-context=x").user().as_deref(), Some("+1-201-555-0123"));
    assert_eq!(uri("soap.beep://192.0.2.103:3002").to_string(), "soap.beep://192.0.2.103:3002");
}

#[test]
fn what_is_no_uri_is_refused() {
    for (text, error) in [
        ("", UriError::Scheme),
        ("alice@example.com", UriError::Scheme),
        ("1sip:alice@example.com", UriError::Scheme),
        ("<sip:alice@example.com", UriError::Scheme),
        ("sip:", UriError::Character),
        ("sip:al ice@example.com", UriError::Character),
        ("sip:alice@exa\u{0}mple.com", UriError::Character),
        ("sip:@example.com", UriError::User),
        ("tel:;x", UriError::User),
        ("sip:alice@", UriError::Host),
        ("sip:alice@a@b", UriError::Host),
        ("sip:alice@[::1", UriError::Host),
        ("sip:alice@[::1]x", UriError::Host),
        ("sip:alice@host:", UriError::Port),
        ("sip:alice@host:0", UriError::Port),
        ("sip:alice@host:65536", UriError::Port),
        ("sip:alice@host:+80", UriError::Port),
        ("sip:alice@host;", UriError::Parameter),
        ("sip:alice@host;=x", UriError::Parameter),
        ("sip:alice@host?", UriError::Header),
        ("sip:alice@host?=x", UriError::Header),
    ] {
        assert_eq!(Uri::parse(text), Err(error), "{text}");
    }
    let many = format!("sip:h{}", ";p".repeat(MAX_URI_PARAMETERS + 1));
    assert_eq!(Uri::parse(&many), Err(UriError::Parameter));
}

/// The examples of RFC 3261 §19.1.4.
#[test]
fn equivalence_is_that_of_the_rfc() {
    for (a, b) in [
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtlanTa.CoM;Transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),
        (
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
        ),
        (
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
        ),
        ("tel:+1-201-555-0123", "tel:+12015550123"),
    ] {
        assert!(uri(a).is_equivalent(&uri(b)) && uri(b).is_equivalent(&uri(a)), "{a} {b}");
    }
    for (a, b) in [
        ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
        ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
        ("sip:bob@biloxi.com", "sips:bob@biloxi.com"),
        ("sip:bob@biloxi.com", "tel:bob"),
    ] {
        assert!(!uri(a).is_equivalent(&uri(b)) && !uri(b).is_equivalent(&uri(a)), "{a} {b}");
    }
}

#[test]
fn a_uri_with_a_repeated_parameter_is_equivalent_to_itself() {
    let repeated = uri("sip:user@example.com;p=1;p=2");
    assert!(repeated.is_equivalent(&repeated) && repeated.is_equivalent(&uri("sip:user@example.com;p=1")));
}

#[test]
fn escapes_that_are_none_stay() {
    assert_eq!(unescape("%Z%4"), "%Z%4");
    assert_eq!(unescape("100%"), "100%");
    assert_eq!(unescape("%00%ff"), "\u{0}\u{fffd}");
    assert_eq!(escape_user("a b@c:d%"), "a%20b%40c%3Ad%25");
    assert_eq!(SipUri::new(Some("a b"), Host::Name("h".into()), None).to_string(), "sip:a%20b@h");
}

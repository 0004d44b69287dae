//! `io::http`.

use std::sync::mpsc;

use galene_sip::galene::{Fault, HttpResponse};
use galene_sip::io::http::{Http, MAX_BODY_BYTES};
use galene_sip::io::tls::Tls;
use url::Url;

use crate::server::{SelfSigned, read_request, respond, serve};

fn get(tls: &Tls, url: &str) -> Result<HttpResponse, Fault> {
    smol::block_on(Http::new(tls).get(Url::parse(url).unwrap()))
}

#[test]
fn a_get_follows_redirects_and_says_where_it_ended() {
    let port = serve(None, |mut stream| {
        let Some((first, headers, _)) = read_request(&mut stream) else { return };
        assert!(headers.contains("user-agent: galene-sip/"));
        match first.as_str() {
            "GET /group/a/.status.json HTTP/1.1" => {
                respond(&mut stream, "308 Permanent Redirect", "location: /group/a/.status\r\n", "");
            }
            _ => respond(&mut stream, "200 OK", "", "{}"),
        }
    });
    let response = get(&Tls::new(&[], false), &format!("http://127.0.0.1:{port}/group/a/.status.json")).unwrap();
    assert_eq!((response.status, response.body.as_slice()), (200, &b"{}"[..]));
    assert_eq!(response.final_url.as_str(), format!("http://127.0.0.1:{port}/group/a/.status"));
}

#[test]
fn any_status_is_a_response_even_a_redirect_without_end() {
    let port = serve(None, |mut stream| match read_request(&mut stream) {
        Some((first, ..)) if first.contains("/loop") => {
            respond(&mut stream, "301 Moved", "location: /loop\r\n", "");
        }
        Some(_) => respond(&mut stream, "404 Not Found", "", "no"),
        None => {}
    });
    let tls = Tls::new(&[], false);
    assert_eq!(get(&tls, &format!("http://127.0.0.1:{port}/")).unwrap().status, 404);
    assert_eq!(get(&tls, &format!("http://127.0.0.1:{port}/loop")).unwrap().status, 301);
}

#[test]
fn a_password_is_posted_as_json_and_follows_no_redirect() {
    let (seen, requests) = mpsc::channel();
    let port = serve(None, move |mut stream| {
        let request = read_request(&mut stream).unwrap();
        let _ = seen.send(request);
        respond(&mut stream, "307 Temporary Redirect", "location: /elsewhere\r\n", "");
    });
    let url = Url::parse(&format!("http://127.0.0.1:{port}/login")).unwrap();
    let http = Http::new(&Tls::new(&[], false));
    let response = smol::block_on(http.post_json(url, r#"{"password":"secret"}"#.into())).unwrap();
    assert_eq!(response.status, 307);
    drop(http);
    let (first, headers, body) = requests.recv().unwrap();
    assert_eq!((first.as_str(), body.as_str()), ("POST /login HTTP/1.1", r#"{"password":"secret"}"#));
    assert!(headers.contains("content-type: application/json"));
    assert!(requests.try_recv().is_err(), "a second request");
}

#[test]
fn a_body_without_end_is_cut_off() {
    let port = serve(None, |mut stream| {
        read_request(&mut stream);
        respond(&mut stream, "200 OK", "", &"x".repeat(1 << 20));
    });
    let fault = get(&Tls::new(&[], false), &format!("http://127.0.0.1:{port}/")).unwrap_err();
    assert!(matches!(&fault, Fault::Protocol(text) if text.contains(&MAX_BODY_BYTES.to_string())), "{fault:?}");
}

#[test]
fn what_cannot_be_reached_is_told_by_host_and_remedy() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let broken = serve(None, drop);
    let babbling = serve(None, |mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n");
    });
    let tls = Tls::new(&[], false);
    for (url, word) in [
        (format!("http://127.0.0.1:{closed}/?token=secret"), "refuses connections"),
        (format!("http://127.0.0.1:{broken}/?token=secret"), "broke off"),
        (format!("http://127.0.0.1:{babbling}/?token=secret"), "127.0.0.1"),
        (format!("https://127.0.0.1:{babbling}/?token=secret"), "does not speak TLS"),
        ("http://no-such-host.invalid/?token=secret".into(), "cannot be looked up"),
    ] {
        let text = get(&tls, &url).unwrap_err().to_string();
        assert!(text.contains(word) && !text.contains("secret"), "{url}: {text}");
    }
}

#[test]
fn an_unknown_certificate_is_refused_by_a_text_that_names_the_flag_and_taken_with_it() {
    let ours = SelfSigned::new(&["localhost"]);
    let port = serve(Some(&ours), |mut stream| {
        if read_request(&mut stream).is_some() {
            respond(&mut stream, "200 OK", "", "{}");
        }
    });
    let url = format!("https://localhost:{port}/");
    let fault = get(&Tls::new(&[], false), &url).unwrap_err();
    assert!(matches!(&fault, Fault::Tls(text) if text.contains("-insecure") && text.contains("trusts")), "{fault:?}");
    assert_eq!(get(&Tls::new(&[], true), &url).unwrap().status, 200);
    assert_eq!(get(&Tls::new(std::slice::from_ref(&ours.certificate), false), &url).unwrap().status, 200);

    let named = get(&Tls::new(&[ours.certificate], false), &format!("https://127.0.0.1:{port}/")).unwrap_err();
    assert!(matches!(&named, Fault::Tls(text) if text.contains("another host name")), "{named:?}");
}

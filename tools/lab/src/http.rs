//! As much HTTP/1.1 as a room needs: the server's reading of a request, and a client's GET and POST.
//!
//! RFC: 9110, 9112. Every connection serves one request.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tungstenite::http::Uri;

use crate::transport::{self, Transport};

/// Neither a head nor a body here is longer.
const LONGEST_BYTES: usize = 64 * 1024;
/// A connection that takes longer to be made, read or written has failed.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_REDIRECTS: usize = 5;

/// A request as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Bytes that came after the request.
    pub(crate) rest: Vec<u8>,
}

impl Request {
    /// A request out of the bytes so far: `Ok(None)` while it is incomplete.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>, &'static str> {
        if bytes.len() > LONGEST_BYTES {
            return Err("too long");
        }
        let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "not text")?;
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some(_)) = (words.next(), words.next(), words.next()) else {
            return Err("no request line");
        };
        let headers = parse_headers(lines)?;
        let (method, target) = (method.to_owned(), target.to_owned());
        let mut request = Self { method, target, headers, body: Vec::new(), rest: Vec::new() };
        let body = &bytes[end + 4..];
        let length = request.header("content-length").map_or(Ok(0), str::parse).map_err(|_| "bad length")?;
        if length > LONGEST_BYTES {
            return Err("too long");
        }
        if body.len() < length {
            return Ok(None);
        }
        request.body = body[..length].to_vec();
        request.rest = body[length..].to_vec();
        Ok(Some(request))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

/// A response of a server that closes after it.
pub(crate) fn response(status: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}

/// A response as a client sees it.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// Fetches a document, following redirects.
pub(crate) fn get(url: &str, insecure: bool) -> Result<Response, String> {
    let mut url = url.to_owned();
    for _ in 0..MOST_REDIRECTS {
        let (response, location) = exchange("GET", &url, "", insecure)?;
        match location.filter(|_| matches!(response.status, 301 | 302 | 303 | 307 | 308)) {
            Some(location) => url = absolute(&url, &location)?,
            None => return Ok(response),
        }
    }
    Err(format!("{url}: redirected again and again"))
}

/// Posts a JSON document.
pub(crate) fn post_json(url: &str, json: &str, insecure: bool) -> Result<Response, String> {
    exchange("POST", url, json, insecure).map(|(response, _)| response)
}

/// Connects to where a URL points. The stream still blocks, with a limit on each wait.
pub(crate) fn connect(uri: &Uri, insecure: bool) -> Result<Transport, String> {
    let host = uri.host().ok_or_else(|| format!("{uri}: no host"))?.trim_matches(['[', ']']);
    let secure = matches!(uri.scheme_str(), Some("https" | "wss"));
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let fail = |error: io::Error| format!("{host}:{port}: {error}");
    let stream = TcpStream::connect((host, port)).map_err(fail)?;
    stream.set_nodelay(true).map_err(fail)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(fail)?;
    if !secure {
        return Ok(Transport::Plain(stream));
    }
    if !insecure {
        return Err(format!("{uri}: the laboratory trusts nobody, so say that it may connect insecurely"));
    }
    transport::tls_client(stream, host)
}

fn exchange(method: &str, url: &str, body: &str, insecure: bool) -> Result<(Response, Option<String>), String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let mut stream = connect(&uri, insecure)?;
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let fail = |error: io::Error| format!("{url}: {error}");
    stream.write_all(request.as_bytes()).map_err(fail)?;
    stream.flush().map_err(fail)?;
    let mut bytes = Vec::new();
    let read = stream.take(LONGEST_BYTES as u64).read_to_end(&mut bytes);
    // A TLS peer may close without a goodbye; what counts is whether the document is whole.
    let parsed = parse_response(&bytes).map_err(|error| format!("{url}: {error}"));
    match (read, parsed) {
        (Err(error), Err(_)) => Err(fail(error)),
        (_, parsed) => parsed,
    }
}

fn parse_response(bytes: &[u8]) -> Result<(Response, Option<String>), &'static str> {
    let end = find(bytes, b"\r\n\r\n").ok_or("no HTTP")?;
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "no HTTP")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|word| word.parse().ok());
    let status = status.ok_or("no status")?;
    let headers = parse_headers(lines)?;
    let rest = &bytes[end + 4..];
    let body = if header(&headers, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        unchunk(rest).ok_or("a broken chunk")?
    } else {
        match header(&headers, "content-length").map(str::parse::<usize>) {
            Some(Ok(length)) => rest.get(..length).ok_or("cut short")?.to_vec(),
            Some(Err(_)) => return Err("bad length"),
            None => rest.to_vec(),
        }
    };
    Ok((Response { status, body }, header(&headers, "location").map(str::to_owned)))
}

/// Joins the chunks of a body (RFC 9112 §7.1).
fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = find(bytes, b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok().filter(|size| *size <= LONGEST_BYTES)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(end + 2..end + 2 + size)?);
        bytes = bytes.get(end + 2 + size + 2..)?;
    }
}

/// A `Location` as an absolute URL (RFC 9110 §10.2.2), paths with dots apart.
fn absolute(base: &str, location: &str) -> Result<String, String> {
    if location.contains("://") {
        return Ok(location.to_owned());
    }
    let uri: Uri = base.parse().map_err(|error| format!("{base}: {error}"))?;
    let scheme = uri.scheme_str().unwrap_or("http");
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if location.starts_with('/') {
        return Ok(format!("{scheme}://{authority}{location}"));
    }
    let folder = uri.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    Ok(format!("{scheme}://{authority}{folder}/{location}"))
}

fn parse_headers<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<(String, String)>, &'static str> {
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').ok_or("a header without a colon")?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect()
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_when_it_is_whole() {
        let bytes = b"POST /auth/x HTTP/1.1\r\nContent-Length: 2\r\nX: y\r\n\r\n{}more";
        for length in 0..bytes.len() - 4 {
            let parsed = Request::parse(&bytes[..length]).unwrap();
            assert_eq!(parsed.is_some(), length >= bytes.len() - 4, "{length}");
        }
        let request = Request::parse(bytes).unwrap().unwrap();
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/auth/x"));
        assert_eq!(request.header("x"), Some("y"));
        assert_eq!((request.body.as_slice(), request.rest.as_slice()), (&b"{}"[..], &b"more"[..]));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert!(Request::parse(b"nonsense\r\n\r\n").is_err());
        assert!(Request::parse(b"GET / HTTP/1.1\r\nnocolon\r\n\r\n").is_err());
        assert!(Request::parse(&vec![b'x'; LONGEST_BYTES + 1]).is_err());
    }

    #[test]
    fn a_chunked_response_is_joined() {
        let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse_response(bytes).unwrap().0.body, b"abcde");
        assert!(parse_response(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort").is_err());
    }

    #[test]
    fn a_location_may_be_a_path_or_a_name() {
        assert_eq!(absolute("http://a:1/g/x/.status.json", "/g/y").unwrap(), "http://a:1/g/y");
        assert_eq!(absolute("http://a:1/g/x/.status.json", ".status").unwrap(), "http://a:1/g/x/.status");
        assert_eq!(absolute("http://a:1/", "https://b/").unwrap(), "https://b/");
    }
}

//! Health checks that need no program: a TCP connection, or an HTTP request. After a restore they cost a fraction of what
//! starting a process costs.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::other_cpu::{self, Job};

/// A page is read to its end, but not further than this, and not longer.
const PAGE_BYTES: u64 = 1024 * 1024;
const PAGE_TIME: Duration = Duration::from_secs(1);
/// What is shown of an answer that is not the right one.
const SHOWN_BYTES: u64 = 512;

/// `127.0.0.1:5432`. The host is an address or `localhost`: a check must not depend on a name server.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct TcpTarget(pub SocketAddr);

/// `http://127.0.0.1:8080/health`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct HttpTarget {
    address: SocketAddr,
    authority: String,
    path: String,
}

impl TryFrom<String> for TcpTarget {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_address(&text, None)
            .map(Self)
            .ok_or_else(|| format!("'{text}' is not like 127.0.0.1:5432"))
    }
}

impl TryFrom<String> for HttpTarget {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not like http://127.0.0.1:8080/path");
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        if path.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(wrong());
        }
        Ok(Self {
            address: parse_address(authority, Some(80)).ok_or_else(wrong)?,
            authority: authority.into(),
            path: path.into(),
        })
    }
}

fn parse_address(text: &str, default_port: Option<u16>) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, port.parse().ok()?),
        _ => (text, default_port?),
    };
    let ip = match host {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => host.parse().ok()?,
    };
    Some(SocketAddr::new(ip, port))
}

impl HttpTarget {
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// A connection that was begun before its check is.
pub type Early = Job<Connecting>;

/// Begins to connect. The kernel does its part for a service that can't run yet, which finds the connection when it does.
pub fn connect_early(address: SocketAddr) -> Early {
    other_cpu::run(move || {
        let mut connecting: Connecting = Box::pin(TcpStream::connect(address));
        let mut context = Context::from_waker(Waker::noop());
        match connecting.as_mut().poll(&mut context) {
            Poll::Ready(result) => Box::pin(std::future::ready(result)),
            Poll::Pending => connecting,
        }
    })
}

/// Passes when something accepts the connection and, if something is expected, says it: in the beginning of its answer.
pub async fn tcp(
    target: &TcpTarget,
    send: &str,
    expect: &str,
    early: Option<Early>,
) -> Result<(), String> {
    let mut stream = connect(target.0, early).await?;
    let mut answer = Vec::new();
    match converse(&mut stream, send, expect, &mut answer).await {
        Ok(true) => Ok(()),
        Err(error) if answer.is_empty() => Err(format!("{}: {error}", target.0)),
        _ => Err(format!(
            "{}: '{}' is expected, and the answer is '{}'",
            target.0,
            expect.escape_default(),
            answer.escape_ascii()
        )),
    }
}

async fn converse(
    stream: &mut TcpStream,
    send: &str,
    expect: &str,
    answer: &mut Vec<u8>,
) -> io::Result<bool> {
    stream.write_all(send.as_bytes()).await?;
    let mut shown = stream.take(SHOWN_BYTES);
    while !contains(answer, expect.as_bytes()) {
        if shown.read_buf(answer).await? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|part| part == needle)
}

/// Passes as soon as the answer is known to be a success or a redirection (RFC 9110, 15: 2xx and 3xx).
pub async fn http(target: &HttpTarget, early: Option<Early>) -> Result<(), String> {
    let mut stream = connect(target.address, early).await?;
    // HTTP/1.0 ends an answer by closing the connection: there is nothing to take apart.
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}\r\nUser-Agent: mvm-agent\r\n\r\n",
        target.path, target.authority
    );
    let mut page = Vec::new();
    let failed = exchange(&mut stream, &request, &mut page).await.err();
    match (status(&page), failed) {
        (Some(200..=399), _) => {
            read_on(stream);
            Ok(())
        }
        (None, Some(error)) if page.is_empty() => Err(format!("{}: {error}", target.address)),
        _ => Err(String::from_utf8_lossy(&page).into_owned()),
    }
}

/// An early connection that failed says nothing: nobody was there to take it.
async fn connect(address: SocketAddr, early: Option<Early>) -> Result<TcpStream, String> {
    if let Some(early) = early {
        if let Ok(connecting) = early.end().await {
            if let Ok(stream) = connecting.await {
                return Ok(stream);
            }
        }
    }
    TcpStream::connect(address)
        .await
        .map_err(|error| format!("{address}: {error}"))
}

/// Reads the answer, not further than is of use: its first line when that is good, else what can be shown.
async fn exchange(stream: &mut TcpStream, request: &str, page: &mut Vec<u8>) -> io::Result<()> {
    stream.write_all(request.as_bytes()).await?;
    let mut shown = stream.take(SHOWN_BYTES);
    while !matches!(status(page), Some(200..=399)) && shown.read_buf(page).await? > 0 {}
    Ok(())
}

/// Takes the rest of a page, not forever, so that no server writes into a closed connection.
fn read_on(stream: TcpStream) {
    tokio::task::spawn_local(async move {
        let mut rest = stream.take(PAGE_BYTES);
        let _ = timeout(
            PAGE_TIME,
            tokio::io::copy(&mut rest, &mut tokio::io::sink()),
        )
        .await;
    });
}

/// `HTTP/1.1 200 OK` → 200.
fn status(page: &[u8]) -> Option<u16> {
    let line = page.split(|&byte| byte == b'\r' || byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words.next()?.strip_prefix("HTTP/")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    fn http_target(text: &str) -> Result<HttpTarget, String> {
        HttpTarget::try_from(text.to_string())
    }

    #[test]
    fn targets_are_addresses() {
        let target = http_target("http://127.0.0.1:8080/health?x=1").unwrap();
        assert_eq!(target.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(target.path, "/health?x=1");
        assert_eq!(http_target("http://localhost").unwrap().path, "/");
        assert_eq!(http_target("http://[::1]:80/").unwrap().address.port(), 80);
        for wrong in [
            "https://127.0.0.1/",
            "http://example.org/",
            "http://127.0.0.1:x/",
            "http://127.0.0.1/a b",
            "127.0.0.1:80",
        ] {
            assert!(http_target(wrong).is_err(), "{wrong}");
        }
        assert!(TcpTarget::try_from("localhost:5432".to_string()).is_ok());
        assert!(TcpTarget::try_from("127.0.0.1".to_string()).is_err());
    }

    async fn answer(text: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 512];
            let count = stream.read(&mut request).await.unwrap();
            assert!(request[..count].starts_with(b"GET /health HTTP/1.0\r\n"));
            stream.write_all(text.as_bytes()).await.unwrap();
        };
        let target = http_target(&format!("http://{address}/health")).unwrap();
        let both = async { tokio::join!(http(&target, None), serve).0 };
        LocalSet::new().run_until(both).await
    }

    #[tokio::test]
    async fn an_http_check_passes_on_success_and_redirection_and_shows_anything_else() {
        assert_eq!(answer("HTTP/1.1 204 No Content\r\n\r\n").await, Ok(()));
        assert_eq!(answer("HTTP/1.0 302 Found\r\n\r\n").await, Ok(()));
        let failed = answer("HTTP/1.1 503 Busy\r\n\r\nnot yet").await;
        assert!(failed.unwrap_err().contains("503 Busy\r\n\r\nnot yet"));
        assert!(answer("SSH-2.0-x\r\n").await.is_err());
        assert!(answer("").await.is_err());
    }

    #[tokio::test]
    async fn a_server_that_does_not_close_the_connection_passes_too() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = http_target(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
            stream
        };
        let both = async { tokio::join!(http(&target, None), serve).0 };
        assert_eq!(LocalSet::new().run_until(both).await, Ok(()));
    }

    #[tokio::test]
    async fn a_tcp_check_passes_when_somebody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = TcpTarget(listener.local_addr().unwrap());
        assert_eq!(tcp(&target, "", "", None).await, Ok(()));
        let early = connect_early(target.0);
        assert_eq!(tcp(&target, "", "", Some(early)).await, Ok(()));
        drop(listener);
        let early = connect_early(target.0);
        assert!(tcp(&target, "", "", Some(early))
            .await
            .unwrap_err()
            .contains("refused"));
    }

    #[tokio::test]
    async fn a_tcp_check_that_expects_an_answer_passes_on_that_alone_and_shows_another() {
        async fn ask(answer: &'static str, expect: &str) -> Result<(), String> {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = TcpTarget(listener.local_addr().unwrap());
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 6];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(&request, b"PING\r\n");
                for part in answer.as_bytes().chunks(3) {
                    stream.write_all(part).await.unwrap();
                }
            };
            tokio::join!(tcp(&target, "PING\r\n", expect, None), serve).0
        }
        assert_eq!(ask("+PONG\r\n", "+PONG").await, Ok(()));
        let loading = ask("-LOADING dataset\r\n", "+PONG").await.unwrap_err();
        assert!(
            loading.ends_with(r"'+PONG' is expected, and the answer is '-LOADING dataset\r\n'"),
            "{loading}"
        );
        assert!(ask("", "+PONG")
            .await
            .unwrap_err()
            .ends_with("the answer is ''"));
    }
}

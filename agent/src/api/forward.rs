//! CONNECT: TCP forward.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::reply::{ApiError, Body, Reply};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 32 * 1024;

pub async fn connect(request: Request<RecvStream>, reply: &mut Reply) -> Result<(), ApiError> {
    let target = request
        .uri()
        .authority()
        .map(|authority| authority.as_str().to_string());
    let target = target.ok_or_else(|| ApiError::bad_request("CONNECT needs host:port".into()))?;
    let connection = timeout(CONNECT_TIMEOUT, TcpStream::connect(&target)).await;
    let stream = connection
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| ApiError::unreachable(format!("{target}: {error}")))?;
    let _ = stream.set_nodelay(true);
    let (read, write) = stream.into_split();
    let body = reply.stream("application/octet-stream")?;
    // Either direction may end first; the other goes on until it ends too.
    let _ = tokio::join!(to_host(read, body), to_guest(request.into_body(), write));
    Ok(())
}

async fn to_host(mut source: OwnedReadHalf, mut body: Body) -> io::Result<()> {
    loop {
        let mut buffer = Vec::with_capacity(READ_BYTES);
        if source.read_buf(&mut buffer).await? == 0 {
            return body.end();
        }
        body.send(Bytes::from(buffer)).await?;
    }
}

async fn to_guest(mut body: RecvStream, mut target: OwnedWriteHalf) -> io::Result<()> {
    while let Some(data) = body.data().await {
        let data = data.map_err(io::Error::other)?;
        target.write_all(&data).await?;
        let _ = body.flow_control().release_capacity(data.len());
    }
    target.shutdown().await
}

//! One client after another on a port: handshake, HTTP/2, and back to waiting.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::framing::{scan, FrameTracker, Greeting, Scan};
use super::port::Port;
use crate::api;
use crate::app::App;
use crate::console;
use crate::health::{self, Status};
use crate::wake::wake_up;

/// How much of a stream without a greeting is looked at in one go.
const READ_BYTES: usize = 16 * 1024;

/// Characters of a refusal's reason: the host looks for an answer in the last 4 KiB that it has read.
const LONGEST_REASON: usize = 800;

/// Serves a port for the guest's whole life.
pub async fn serve_port(app: Rc<App>, mut port: Port) {
    let mut pending = Vec::new();
    loop {
        if let Err(error) = greet(&app, &mut port, &mut pending).await {
            return console::say(&format!("agent port: {error}"));
        }
        api::serve_connection(app.clone(), Session::new(&mut port, &mut pending)).await;
    }
}

/// Waits for a client and answers it. What it sent after its greeting stays in `pending`.
async fn greet(app: &Rc<App>, port: &mut Port, pending: &mut Vec<u8>) -> io::Result<()> {
    let mut answered = None;
    // A client that had the guest woken, and is still to hear what became of it.
    let mut waker = None;
    loop {
        // Only a client that read our answer sends the preface; one that did not repeats its greeting.
        if answered.is_some() && pending.first() == Some(&b'P') {
            return Ok(());
        }
        match scan(pending) {
            Scan::Found { greeting, end } => {
                pending.drain(..end);
                if answered.as_ref() != Some(&greeting.nonce) {
                    waker = answer(app, port, &greeting).await?;
                    answered = Some(greeting.nonce);
                }
            }
            Scan::Nothing { drop } => {
                pending.drain(..drop);
                let mut buffer = [0; READ_BYTES];
                tokio::select! {
                    // Nothing read: nobody is connected, and the next read waits.
                    count = port.read(&mut buffer) => pending.extend_from_slice(&buffer[..count?]),
                    status = health::settled(app), if waker.is_some() => {
                        let nonce = waker.take().unwrap_or_default();
                        let word = if status == Status::Healthy { "healthy" } else { "failed" };
                        port.write_all(format!("HEALTH {nonce} {word}\n").as_bytes()).await?;
                    }
                }
            }
        }
    }
}

/// Says that this client's turn has begun. Returns the nonce of one that waits for more.
async fn answer(app: &Rc<App>, port: &mut Port, greeting: &Greeting) -> io::Result<Option<String>> {
    let nonce = &greeting.nonce;
    let Some(request) = &greeting.wake else {
        port.write_all(format!("OK {nonce}\n").as_bytes()).await?;
        return Ok(None);
    };
    let outcome = match serde_json::from_slice(request) {
        Ok(request) => wake_up(app, request).await,
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(awake) => {
            let line = format!("AWAKE {nonce} {}\n", awake.generation);
            port.write_all(line.as_bytes()).await?;
            awake.resume(app).await;
            Ok(Some(nonce.clone()))
        }
        Err(error) => {
            let text = error.to_string().replace('\n', " ");
            let why: String = text.chars().take(LONGEST_REASON).collect();
            let line = format!("REFUSED {nonce} {why}\n");
            port.write_all(line.as_bytes()).await?;
            Ok(None)
        }
    }
}

/// The byte stream of one client: ends where the next one's greeting begins.
pub struct Session<'a> {
    port: &'a mut Port,
    /// Read already, and not yet given to HTTP/2. What is left at the end is the next client's.
    pending: &'a mut Vec<u8>,
    tracker: FrameTracker,
    over: bool,
}

impl<'a> Session<'a> {
    fn new(port: &'a mut Port, pending: &'a mut Vec<u8>) -> Self {
        Self {
            port,
            pending,
            tracker: FrameTracker::new(),
            over: false,
        }
    }

    /// Gives as much of `pending` as belongs to this session and fits.
    fn hand_over(&mut self, buffer: &mut ReadBuf<'_>) {
        let most = self.pending.len().min(buffer.remaining());
        let accepted = self.tracker.accept(&self.pending[..most]);
        self.over = accepted < most;
        buffer.put_slice(&self.pending[..accepted]);
        self.pending.drain(..accepted);
    }
}

impl AsyncRead for Session<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let session = self.get_mut();
        if session.over {
            return Poll::Ready(Ok(()));
        }
        if session.pending.is_empty() {
            let mut chunk = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut chunk);
            std::task::ready!(Pin::new(&mut *session.port).poll_read(context, &mut read))?;
            session.pending.extend_from_slice(read.filled());
            session.over = read.filled().is_empty();
        }
        session.hand_over(buffer);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Session<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get_mut().port).poll_write(context, data)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().port).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

//! One client after another on a port: handshake, HTTP/2, and back to waiting.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::framing::{scan, FrameTracker, Scan};
use super::port::Port;
use crate::api;
use crate::app::App;
use crate::console;

/// How much of a stream without a greeting is looked at in one go.
const READ_BYTES: usize = 16 * 1024;

/// Serves a port for the guest's whole life.
pub async fn serve_port(app: Rc<App>, mut port: Port) {
    let mut pending = Vec::new();
    loop {
        if let Err(error) = greet(&mut port, &mut pending).await {
            return console::say(&format!("agent port: {error}"));
        }
        api::serve_connection(app.clone(), Session::new(&mut port, &mut pending)).await;
    }
}

/// Waits for a client and answers it. What it sent after its greeting stays in `pending`.
async fn greet(port: &mut Port, pending: &mut Vec<u8>) -> io::Result<()> {
    let mut answered = None;
    loop {
        // Only a client that read our answer sends the preface; one that did not repeats its greeting.
        if answered.is_some() && pending.first() == Some(&b'P') {
            return Ok(());
        }
        match scan(pending) {
            Scan::Greeting { nonce, end } => {
                pending.drain(..end);
                if answered.as_ref() != Some(&nonce) {
                    port.write_all(format!("OK {nonce}\n").as_bytes()).await?;
                    answered = Some(nonce);
                }
            }
            Scan::Nothing { drop } => {
                pending.drain(..drop);
                let mut buffer = [0; READ_BYTES];
                // Nothing read: nobody is connected, and the next read waits.
                let count = port.read(&mut buffer).await?;
                pending.extend_from_slice(&buffer[..count]);
            }
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

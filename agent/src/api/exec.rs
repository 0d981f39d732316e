//! POST /v1/exec: commands, with a terminal or without.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::reply::{ApiError, Body, Reply};
use crate::app::App;
use crate::async_fd::AsyncFile;
use crate::cgroup;
use crate::process::{self, Launch, Running, Streams};
use crate::reaper::Exit;

const MAX_PAYLOAD: usize = 65_536;
const READ_BYTES: usize = 32 * 1024;
/// Between SIGHUP and SIGKILL for a command whose client is gone.
const HANG_UP_GRACE: Duration = Duration::from_secs(2);

mod to_guest {
    pub const START: u8 = 0;
    pub const STDIN: u8 = 1;
    pub const END_OF_STDIN: u8 = 2;
    pub const RESIZE: u8 = 3;
    pub const SIGNAL: u8 = 4;
}
mod from_guest {
    pub const STARTED: u8 = 0;
    pub const STDOUT: u8 = 1;
    pub const STDERR: u8 = 2;
    pub const EXIT: u8 = 3;
    pub const ERROR: u8 = 4;
}

#[derive(Deserialize)]
struct Start {
    argv: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    cwd: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    tty: Option<Tty>,
}

#[derive(Deserialize)]
struct Tty {
    rows: u16,
    cols: u16,
    #[serde(default)]
    term: Option<String>,
}

#[derive(Deserialize)]
struct SignalRequest {
    signal: i32,
}

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

pub async fn exec(app: &Rc<App>, body: RecvStream, reply: &mut Reply) -> Result<(), ApiError> {
    let mut input = Frames {
        body,
        buffer: BytesMut::new(),
    };
    let start: Start = match input.next().await? {
        Some((to_guest::START, payload)) => serde_json::from_slice(&payload)
            .map_err(|error| ApiError::bad_request(error.to_string()))?,
        _ => {
            return Err(ApiError::bad_request(
                "the first frame has to be `start`".into(),
            ))
        }
    };
    let mut output = reply.stream("application/octet-stream")?;
    match launch(app, &start) {
        Ok(command) => run(command, input, output).await?,
        Err(error) => {
            let code = if error.kind() == io::ErrorKind::NotFound {
                "NOT_FOUND"
            } else {
                "FAILED"
            };
            let message = error.to_string();
            output
                .send(frame_json(
                    from_guest::ERROR,
                    &json!({ "code": code, "message": message }),
                ))
                .await?;
            output.end()?;
        }
    }
    Ok(())
}

/// A command that runs, and the streams to it.
struct Command {
    running: Running,
    terminal: Option<OwnedFd>,
    group: std::path::PathBuf,
}

fn launch(app: &App, start: &Start) -> io::Result<Command> {
    // Only the command itself is "not found": what the image lacks is another mistake than a wrong user or directory.
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let account = app
        .accounts
        .user(start.user.as_deref().unwrap_or("root"))
        .map_err(|error| wrong(error.to_string()))?;
    let directory = start.cwd.as_deref().unwrap_or("/");
    if !std::path::Path::new(directory).is_dir() {
        return Err(wrong(format!("there is no directory {directory}")));
    }
    let mut env = process::base_environment(&account, &app.role.borrow(), &app.env.borrow());
    env.extend(
        start
            .tty
            .as_ref()
            .and_then(|tty| Some(("TERM".to_string(), tty.term.clone()?))),
    );
    env.extend(start.env.clone());
    let number = COUNT.with(|count| count.replace(count.get() + 1));
    let group = cgroup::group(&format!("exec/{number}"));
    let (terminal, streams) = match &start.tty {
        None => (None, Streams::All),
        Some(tty) => {
            let (master, slave) = open_terminal(tty.rows, tty.cols)?;
            (Some(master), Streams::Terminal(slave))
        }
    };
    let launched = process::spawn(
        &app.reaper,
        Launch {
            argv: &start.argv,
            env,
            directory,
            account: &account,
            cgroup: &group,
            streams,
        },
    );
    match launched {
        Ok(running) => Ok(Command {
            running,
            terminal,
            group,
        }),
        Err(error) => {
            let _ = std::fs::remove_dir(&group);
            Err(error)
        }
    }
}

async fn run(command: Command, input: Frames, mut output: Body) -> io::Result<()> {
    let Command {
        running,
        terminal,
        group,
    } = command;
    let Running {
        pid,
        mut exit,
        stdin,
        stdout,
        stderr,
    } = running;
    output
        .send(frame_json(from_guest::STARTED, &json!({ "pid": pid })))
        .await?;

    let (sender, mut written) = mpsc::channel::<Bytes>(4);
    let control = terminal.as_ref().map(OwnedFd::try_clone).transpose()?;
    let stdin = match &terminal {
        Some(terminal) => Some(terminal.try_clone()?),
        None => stdin,
    };
    for (kind, fd) in [
        (from_guest::STDOUT, terminal.or(stdout)),
        (from_guest::STDERR, stderr),
    ] {
        if let Some(fd) = fd {
            tokio::task::spawn_local(read_output(AsyncFile::new(fd)?, kind, sender.clone()));
        }
    }
    drop(sender);
    let feeding = tokio::task::spawn_local(feed(input, stdin, control, pid));

    let mut ended = None;
    loop {
        tokio::select! {
            biased;
            data = written.recv() => match data {
                Some(data) => output.send(data).await.inspect_err(|_| hang_up(pid, group.clone()))?,
                None => break,
            },
            status = &mut exit, if ended.is_none() => {
                ended = Some(status);
                // Children that it left behind may hold its output open for ever: what is there now is all.
                drain(&mut written, &mut output).await?;
                break;
            }
            () = output.cancelled() => {
                hang_up(pid, group);
                return Ok(());
            }
        }
    }
    let status = match ended {
        Some(status) => status,
        None => exit.await,
    };
    feeding.abort();
    let _ = std::fs::remove_dir(&group);
    let exit = match status.unwrap_or(Exit::Code(255)) {
        Exit::Code(code) => json!({ "code": code }),
        Exit::Signal(signal) => json!({ "signal": signal }),
    };
    output.send(frame_json(from_guest::EXIT, &exit)).await?;
    output.end()
}

/// After the command has ended: sends what its pipes still hold.
async fn drain(written: &mut mpsc::Receiver<Bytes>, output: &mut Body) -> io::Result<()> {
    const QUIET: Duration = Duration::from_millis(50);
    while let Ok(Some(data)) = tokio::time::timeout(QUIET, written.recv()).await {
        output.send(data).await?;
    }
    Ok(())
}

async fn read_output(mut source: AsyncFile, kind: u8, sender: mpsc::Sender<Bytes>) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(count @ 1..) = source.read(&mut buffer).await {
        if sender.send(frame(kind, &buffer[..count])).await.is_err() {
            return;
        }
    }
}

/// Passes on what the client sends until it ends.
async fn feed(
    mut input: Frames,
    stdin: Option<OwnedFd>,
    control: Option<OwnedFd>,
    pid: i32,
) -> io::Result<()> {
    let mut stdin = stdin.map(AsyncFile::new).transpose()?;
    let is_terminal = control.is_some();
    while let Some((kind, payload)) = input.next().await? {
        match kind {
            to_guest::STDIN => {
                if let Some(target) = &mut stdin {
                    // A command may end without reading all of its input.
                    if target.write_all(&payload).await.is_err() {
                        stdin = None;
                    }
                }
            }
            to_guest::END_OF_STDIN if is_terminal => {
                // On a terminal the end of input is a character (Ctrl+D).
                if let Some(target) = &mut stdin {
                    let _ = target.write_all(&[4]).await;
                }
            }
            to_guest::END_OF_STDIN => stdin = None,
            to_guest::RESIZE => {
                if let (Some(control), Ok(size)) =
                    (&control, serde_json::from_slice::<Tty>(&payload))
                {
                    resize(control, size.rows, size.cols);
                }
            }
            to_guest::SIGNAL => {
                if let Ok(request) = serde_json::from_slice::<SignalRequest>(&payload) {
                    unsafe { libc::kill(-pid, request.signal) };
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The client is gone: what it started ends too.
fn hang_up(pid: i32, group: std::path::PathBuf) {
    unsafe { libc::kill(-pid, libc::SIGHUP) };
    tokio::task::spawn_local(async move {
        tokio::time::sleep(HANG_UP_GRACE).await;
        cgroup::kill(&group);
    });
}

/// Frames of the request's body.
struct Frames {
    body: RecvStream,
    buffer: BytesMut,
}

impl Frames {
    async fn next(&mut self) -> io::Result<Option<(u8, Bytes)>> {
        loop {
            if self.buffer.len() >= 5 {
                let length = u32::from_be_bytes([
                    self.buffer[1],
                    self.buffer[2],
                    self.buffer[3],
                    self.buffer[4],
                ]) as usize;
                if length > MAX_PAYLOAD {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a frame is too long",
                    ));
                }
                if self.buffer.len() >= 5 + length {
                    let kind = self.buffer[0];
                    self.buffer.advance(5);
                    return Ok(Some((kind, self.buffer.split_to(length).freeze())));
                }
            }
            match self.body.data().await {
                Some(data) => {
                    let data = data.map_err(io::Error::other)?;
                    let _ = self.body.flow_control().release_capacity(data.len());
                    self.buffer.extend_from_slice(&data);
                }
                None => return Ok(None),
            }
        }
    }
}

fn frame(kind: u8, payload: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(5 + payload.len());
    bytes.push(kind);
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes.into()
}

fn frame_json(kind: u8, value: &serde_json::Value) -> Bytes {
    frame(kind, value.to_string().as_bytes())
}

fn open_terminal(rows: u16, cols: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    let (mut master, mut slave) = (0, 0);
    let size = libc::winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let result = unsafe {
        libc::openpty(
            &mut master,
            &mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            &size,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    for fd in [master, slave] {
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) })
}

fn resize(terminal: &OwnedFd, rows: u16, cols: u16) {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) };
}

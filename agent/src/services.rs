//! Services: started, watched, restarted with back-off, stopped.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{chown, PermissionsExt};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::time::{timeout, Instant};

use crate::accounts::Account;
use crate::app::App;
use crate::async_fd::AsyncFile;
use crate::cgroup;
use crate::config::ServiceConfig;
use crate::logs::LINE_BYTES;
use crate::process::{self, Launch, Running, Streams};
use crate::reaper::Exit;

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A service that ran for so long is taken to have been well.
const GOOD_RUN: Duration = Duration::from_secs(10);
/// After so many ends in a row, each before a good run, it is given up.
const MOST_FAILURES: u32 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    Starting,
    Running,
    Backoff,
    Stopped,
    Failed,
}

pub struct Service {
    pub name: String,
    pub config: ServiceConfig,
    pub state: Cell<State>,
    pub pid: Cell<Option<i32>>,
    pub restarts: Cell<u32>,
    pub last_exit: RefCell<Option<String>>,
    pub since: Cell<Instant>,
    /// The run's variables that it was started with.
    started_with: RefCell<BTreeMap<String, String>>,
    wanted: Cell<bool>,
    supervised: Cell<bool>,
    /// From a wake that has it started anew until its new process runs.
    restarting: Cell<bool>,
    changed: Notify,
}

impl Service {
    pub fn new(name: &str, config: ServiceConfig) -> Self {
        Self {
            name: name.into(),
            config,
            state: Cell::new(State::Stopped),
            pid: Cell::new(None),
            restarts: Cell::new(0),
            last_exit: RefCell::default(),
            since: Cell::new(Instant::now()),
            started_with: RefCell::default(),
            wanted: Cell::new(false),
            supervised: Cell::new(false),
            restarting: Cell::new(false),
            changed: Notify::new(),
        }
    }

    fn enter(&self, app: &App, state: State) {
        self.state.set(state);
        self.since.set(Instant::now());
        app.changed.notify_waiters();
        self.changed.notify_waiters();
    }

    /// Whether a wake has to start it anew: because it says so of every restore, or because it runs with other variables than it
    /// would be given now.
    pub fn must_restart(&self, restored: bool, env: &BTreeMap<String, String>) -> bool {
        (restored && self.config.restart_on_wake) || *self.started_with.borrow() != *env
    }

    /// Whether the process that answers for it is still that of before the wake.
    pub fn is_restarting(&self) -> bool {
        self.restarting.get()
    }

    fn group(&self) -> std::path::PathBuf {
        cgroup::group(&format!("services/{}", self.name))
    }

    /// Starts supervising it; it is kept running until `stop`.
    pub fn start(self: &Rc<Self>, app: &Rc<App>) {
        self.wanted.set(true);
        if self.supervised.replace(true) {
            return;
        }
        self.enter(app, State::Starting);
        let (service, app) = (self.clone(), app.clone());
        tokio::task::spawn_local(async move {
            service.supervise(&app).await;
            service.supervised.set(false);
            if service.state.get() != State::Failed {
                service.enter(&app, State::Stopped);
            }
        });
    }

    /// Ends it: SIGTERM, and SIGKILL to what is left after its time.
    pub async fn stop(&self) {
        self.wanted.set(false);
        self.changed.notify_waiters();
        let group = self.group();
        cgroup::signal_all(&group, libc::SIGTERM);
        let limit = Duration::from_secs(self.config.stop_timeout_secs);
        if timeout(limit, self.until_stopped()).await.is_err() {
            cgroup::kill(&group);
            self.until_stopped().await;
        }
        cgroup::kill(&group);
    }

    /// Until it runs again nobody may take it for healthy, nor ask it.
    pub fn mark_restarting(&self, app: &App) {
        self.restarting.set(true);
        self.enter(app, State::Starting);
    }

    pub async fn restart(self: &Rc<Self>, app: &Rc<App>) {
        self.stop().await;
        self.start(app);
    }

    async fn until_stopped(&self) {
        while self.supervised.get() {
            // Supervision ends a moment after the state changed.
            let _ = timeout(Duration::from_millis(20), self.changed.notified()).await;
        }
    }

    async fn supervise(&self, app: &Rc<App>) {
        let mut backoff = Backoff::default();
        while self.wanted.get() {
            let started = Instant::now();
            self.enter(app, State::Starting);
            let end = match self.run_once(app).await {
                Ok(exit) => exit.to_string(),
                Err(error) => {
                    app.logs
                        .add(&self.name, "stderr", format!("can't be started: {error}"));
                    error.to_string()
                }
            };
            self.pid.set(None);
            *self.last_exit.borrow_mut() = Some(end);
            cgroup::kill(&self.group());
            if !self.wanted.get() {
                return;
            }
            match backoff.next(started.elapsed()) {
                Some(pause) => {
                    self.enter(app, State::Backoff);
                    self.pause(pause).await;
                    self.restarts.set(self.restarts.get() + 1);
                }
                None => return self.enter(app, State::Failed),
            }
        }
    }

    /// Waits before a restart; a stop ends the wait.
    async fn pause(&self, pause: Duration) {
        let end = Instant::now() + pause;
        while self.wanted.get() && Instant::now() < end {
            let _ = timeout(end - Instant::now(), self.changed.notified()).await;
        }
    }

    /// From `preStart` to the end of the command.
    async fn run_once(&self, app: &Rc<App>) -> io::Result<Exit> {
        let account = app.accounts.user(&self.config.user)?;
        for directory in &self.config.directories {
            make_directory(directory, &account)?;
        }
        let run = app.env.borrow().clone();
        let mut env = process::base_environment(&account, &app.role.borrow(), &run);
        env.extend(self.config.env.clone());
        *self.started_with.borrow_mut() = run;
        if let Some(pre_start) = &self.config.pre_start {
            let exit = self
                .launch(app, &pre_start.argv(), env.clone(), &account)?
                .1
                .await?;
            if !exit.success() {
                return Err(io::Error::other(format!("preStart ended with {exit}")));
            }
        }
        let (pid, exit) = self.launch(app, &self.config.command.argv(), env, &account)?;
        self.pid.set(Some(pid));
        self.restarting.set(false);
        self.enter(app, State::Running);
        exit.await
    }

    fn launch(
        &self,
        app: &Rc<App>,
        argv: &[String],
        env: BTreeMap<String, String>,
        account: &Account,
    ) -> io::Result<(i32, impl std::future::Future<Output = io::Result<Exit>>)> {
        let home = if Path::new(&account.home).is_dir() {
            account.home.as_str()
        } else {
            "/"
        };
        let group = self.group();
        let running = process::spawn(
            &app.reaper,
            Launch {
                argv,
                env,
                directory: home,
                account,
                cgroup: &group,
                streams: Streams::Output,
            },
        )?;
        let Running {
            pid,
            exit,
            stdout,
            stderr,
            ..
        } = running;
        for (stream, fd) in [("stdout", stdout), ("stderr", stderr)] {
            if let Some(fd) = fd {
                tokio::task::spawn_local(collect(
                    app.clone(),
                    self.name.clone(),
                    stream,
                    fd,
                    self.open_log_file(),
                ));
            }
        }
        Ok((pid, async {
            exit.await
                .map_err(|_| io::Error::other("its end was missed"))
        }))
    }

    fn open_log_file(&self) -> Option<File> {
        let path = self.config.log_file.as_ref()?;
        if let Some(parent) = Path::new(path).parent() {
            let _ = fs::create_dir_all(parent);
        }
        OpenOptions::new().create(true).append(true).open(path).ok()
    }
}

/// Makes a directory of a service's own.
fn make_directory(path: &str, account: &Account) -> io::Result<()> {
    if !Path::new(path).exists() {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o750))?;
    }
    chown(path, Some(account.uid), Some(account.gid))
}

/// Takes what a service writes, line by line, into the ring and its log file.
async fn collect(
    app: Rc<App>,
    service: String,
    stream: &'static str,
    fd: OwnedFd,
    mut file: Option<File>,
) {
    let _counted = app.logs.sources.enter();
    let Ok(mut source) = AsyncFile::new(fd) else {
        return;
    };
    let mut pending = Vec::new();
    let mut buffer = vec![0; 8192];
    while let Ok(count @ 1..) = source.read(&mut buffer).await {
        if let Some(file) = &mut file {
            let _ = file.write_all(&buffer[..count]);
        }
        pending.extend_from_slice(&buffer[..count]);
        while let Some(end) = end_of_line(&pending) {
            let line: Vec<u8> = pending.drain(..end).collect();
            app.logs.add(
                &service,
                stream,
                String::from_utf8_lossy(&line)
                    .trim_end_matches(['\n', '\r'])
                    .into(),
            );
        }
    }
    if !pending.is_empty() {
        app.logs
            .add(&service, stream, String::from_utf8_lossy(&pending).into());
    }
}

/// Where the first line ends: after its newline, or where it gets too long.
fn end_of_line(pending: &[u8]) -> Option<usize> {
    let newline = pending
        .iter()
        .position(|byte| *byte == b'\n')
        .map(|at| at + 1);
    newline.or((pending.len() >= LINE_BYTES).then_some(LINE_BYTES))
}

/// How long to wait before a restart, or that there is no use.
#[derive(Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn next(&mut self, ran_for: Duration) -> Option<Duration> {
        self.failures = if ran_for >= GOOD_RUN {
            1
        } else {
            self.failures + 1
        };
        (self.failures < MOST_FAILURES).then(|| {
            FIRST_BACKOFF
                .saturating_mul(1 << (self.failures - 1))
                .min(LONGEST_BACKOFF)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_limit_and_then_it_is_given_up() {
        let mut backoff = Backoff::default();
        let quick = Duration::from_millis(5);
        let waits: Vec<_> = std::iter::from_fn(|| backoff.next(quick))
            .map(|wait| wait.as_millis())
            .collect();
        assert_eq!(
            waits,
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
    }

    #[test]
    fn a_good_run_starts_the_count_again() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.next(Duration::ZERO);
        }
        assert_eq!(backoff.next(GOOD_RUN), Some(FIRST_BACKOFF));
    }

    #[test]
    fn lines_end_at_newlines_or_when_too_long() {
        assert_eq!(end_of_line(b"one\ntwo"), Some(4));
        assert_eq!(end_of_line(b"partial"), None);
        assert_eq!(end_of_line(&vec![b'x'; LINE_BYTES + 5]), Some(LINE_BYTES));
    }
}

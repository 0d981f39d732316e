//! Health checks: each runs again and again, and at once after a `wake`.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::time::{timeout, Instant};

use crate::app::{App, Phase};
use crate::async_fd::AsyncFile;
use crate::cgroup;
use crate::config::{CheckConfig, CommandLine, Probe};
use crate::logs::now_ms;
use crate::probe;
use crate::process::{self, Launch, Running, Streams};

/// Until a check has passed it is tried soon again: a service that comes up should be noticed when it does.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(1);
const OUTPUT_BYTES: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    Pending,
    Passing,
    Failing,
}

pub struct Check {
    pub name: String,
    pub config: CheckConfig,
    pub status: Cell<Status>,
    /// Whether it has passed in this generation.
    pub has_passed: Cell<bool>,
    pub last: RefCell<Outcome>,
    pub runs: Cell<u64>,
    pub consecutive_failures: Cell<u64>,
    /// What its next run begins with.
    early: RefCell<Option<probe::Early>>,
    run_now: Notify,
}

#[derive(Default, Clone)]
pub struct Outcome {
    pub exit_code: Option<i32>,
    pub output: String,
    pub duration_ms: u64,
    pub at_ms: u64,
}

impl Outcome {
    pub fn passed(&self) -> bool {
        self.exit_code == Some(0)
    }
}

impl Check {
    pub fn new(name: &str, config: CheckConfig) -> Self {
        Self {
            name: name.into(),
            config,
            status: Cell::new(Status::Pending),
            has_passed: Cell::new(false),
            last: RefCell::default(),
            runs: Cell::new(0),
            consecutive_failures: Cell::new(0),
            early: RefCell::default(),
            run_now: Notify::new(),
        }
    }

    /// What was known was about an earlier generation.
    pub fn forget(&self) {
        self.status.set(Status::Pending);
        self.has_passed.set(false);
        self.consecutive_failures.set(0);
    }

    /// Begins with what needs no service to run: a connection.
    pub fn connect_early(&self) {
        let address = match &self.config.probe {
            Probe::Command(_) => return,
            Probe::Http(target) => target.address(),
            Probe::Tcp(target) => target.0,
        };
        *self.early.borrow_mut() = Some(probe::connect_early(address));
    }

    pub fn run_now(&self) {
        self.run_now.notify_one();
    }

    /// Runs it for the guest's whole life, whenever the guest is running.
    pub async fn keep_running(self: Rc<Self>, app: Rc<App>) {
        let mut retry = FIRST_RETRY;
        loop {
            app.until(Phase::Running).await;
            app.until_restarted().await;
            let generation = app.generation.get();
            let outcome = self.run_once(&app).await;
            let interval = Duration::from_secs_f64(self.config.health_interval_secs.max(0.1));
            let pause = if app.generation.get() != generation || app.phase.get() != Phase::Running {
                // What it says is about another time: that of before a snapshot.
                retry = FIRST_RETRY;
                Duration::ZERO
            } else if self.record(outcome) {
                retry = FIRST_RETRY;
                interval
            } else if self.has_passed.get() {
                interval
            } else {
                retry = (retry * 2).min(interval).min(LONGEST_RETRY);
                retry
            };
            app.changed.notify_waiters();
            let _ = timeout(pause, self.run_now.notified()).await;
        }
    }

    /// Says whether it passed.
    fn record(&self, outcome: Outcome) -> bool {
        let passed = outcome.passed();
        self.status.set(if passed {
            Status::Passing
        } else {
            Status::Failing
        });
        self.has_passed.set(self.has_passed.get() || passed);
        self.consecutive_failures.set(if passed {
            0
        } else {
            self.consecutive_failures.get() + 1
        });
        self.runs.set(self.runs.get() + 1);
        *self.last.borrow_mut() = outcome;
        passed
    }

    /// Runs it, whatever it says.
    pub async fn run_once(&self, app: &App) -> Outcome {
        let started = Instant::now();
        let early = self.early.take();
        let (exit_code, output) = match &self.config.probe {
            Probe::Command(command) => self
                .execute(app, command)
                .await
                .unwrap_or_else(|error| (None, format!("can't be run: {error}"))),
            Probe::Http(target) => self.ask(probe::http(target, early)).await,
            Probe::Tcp(target) => {
                let (send, expect) = (&self.config.health_send, &self.config.health_expect);
                self.ask(probe::tcp(target, send, expect, early)).await
            }
        };
        Outcome {
            exit_code,
            output,
            duration_ms: started.elapsed().as_millis() as u64,
            at_ms: now_ms(),
        }
    }

    fn limit(&self) -> Duration {
        Duration::from_secs_f64(self.config.health_timeout_secs.max(0.1))
    }

    /// What a probe says, in the words of a command: 0 is healthy.
    async fn ask(&self, probe: impl Future<Output = Result<(), String>>) -> (Option<i32>, String) {
        match timeout(self.limit(), probe).await {
            Ok(Ok(())) => (Some(0), String::new()),
            Ok(Err(why)) => (Some(1), why),
            Err(_) => (None, self.too_late(String::new())),
        }
    }

    fn too_late(&self, output: String) -> String {
        let limit = self.config.health_timeout_secs;
        format!("{output}it did not end within {limit} s")
    }

    async fn execute(
        &self,
        app: &App,
        command: &CommandLine,
    ) -> std::io::Result<(Option<i32>, String)> {
        let account = app.accounts.user(&self.config.user)?;
        let env = process::base_environment(&account, &app.role.borrow(), &app.env.borrow());
        let group = cgroup::group(&format!("checks/{}", self.name));
        let argv = command.argv();
        let launch = Launch {
            argv: &argv,
            env,
            directory: "/",
            account: &account,
            cgroup: &group,
            streams: Streams::Output,
        };
        let Running {
            exit,
            stdout,
            stderr,
            ..
        } = process::spawn(&app.reaper, launch)?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let finished = timeout(self.limit(), async {
            tokio::join!(drain(stdout, &mut out), drain(stderr, &mut err));
            exit.await
        })
        .await;
        cgroup::kill(&group);
        out.extend(err);
        let text =
            String::from_utf8_lossy(&out[out.len().saturating_sub(OUTPUT_BYTES)..]).into_owned();
        Ok(match finished {
            Ok(exit) => (exit.ok().map(|exit| exit.code()), text),
            Err(_) => (None, self.too_late(text)),
        })
    }
}

/// Reads to the end, keeping the last part only.
async fn drain(fd: Option<std::os::fd::OwnedFd>, kept: &mut Vec<u8>) {
    let Some(Ok(mut source)) = fd.map(AsyncFile::new) else {
        return;
    };
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = source.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..count]);
        let surplus = kept.len().saturating_sub(OUTPUT_BYTES);
        kept.drain(..surplus);
    }
}

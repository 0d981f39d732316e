//! What the agent knows, in one place. Everything runs on one thread, so cells are enough.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use serde::Serialize;
use tokio::sync::Notify;

use crate::accounts::Accounts;
use crate::checks::Check;
use crate::config::Config;
use crate::in_flight::InFlight;
use crate::kernel_command_line::KernelCommandLine;
use crate::logs::Logs;
use crate::reaper::Reaper;
use crate::services::Service;

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Booted; services wait for `wake`.
    Held,
    Running,
    /// Quiet for a snapshot.
    Prepared,
    Stopping,
}

pub struct App {
    pub config: Config,
    pub command_line: KernelCommandLine,
    pub accounts: Accounts,
    pub reaper: Rc<Reaper>,
    pub logs: Logs,
    pub services: Vec<Rc<Service>>,
    pub checks: Vec<Rc<Check>>,
    pub phase: Cell<Phase>,
    /// How often `wake` was called.
    pub generation: Cell<u64>,
    pub role: RefCell<String>,
    /// Clients of the API.
    pub connections: Rc<InFlight>,
    /// The run's own variables.
    pub env: RefCell<BTreeMap<String, String>>,
    /// Something about services, checks or the phase is different.
    pub changed: Notify,
}

impl App {
    pub fn new(config: Config, command_line: KernelCommandLine) -> Self {
        let services = config
            .services
            .iter()
            .map(|(name, config)| Rc::new(Service::new(name, config.clone())))
            .collect();
        let checks = config
            .health_checks
            .iter()
            .map(|(name, config)| Rc::new(Check::new(name, config.clone())))
            .collect();
        Self {
            accounts: Accounts::load(),
            reaper: Rc::default(),
            logs: Logs::default(),
            services,
            checks,
            phase: Cell::new(if command_line.hold {
                Phase::Held
            } else {
                Phase::Running
            }),
            generation: Cell::new(0),
            connections: Rc::default(),
            role: RefCell::new(command_line.role.clone()),
            env: RefCell::default(),
            changed: Notify::new(),
            config,
            command_line,
        }
    }

    pub fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
        self.changed.notify_waiters();
    }

    /// Waits until the guest is in this phase.
    pub async fn until(&self, phase: Phase) {
        self.until_true(|| self.phase.get() == phase).await;
    }

    /// Waits until every service that a wake has started anew runs: what one of before would say of its health is no longer asked.
    pub async fn until_restarted(&self) {
        let is_restarting = |service: &Rc<Service>| service.is_restarting();
        self.until_true(|| !self.services.iter().any(is_restarting))
            .await;
    }

    async fn until_true(&self, condition: impl Fn() -> bool) {
        loop {
            let changed = self.changed.notified();
            if condition() {
                return;
            }
            changed.await;
        }
    }
}

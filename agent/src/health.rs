//! The guest's health, from its services and checks.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::app::{App, Phase};
use crate::checks::{self, Check};
use crate::services::{self, Service};

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    Starting,
    Healthy,
    Unhealthy,
    Failed,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    status: Status,
    generation: u64,
    phase: Phase,
    services: BTreeMap<String, ServiceHealth>,
    checks: BTreeMap<String, CheckHealth>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceHealth {
    state: services::State,
    pid: Option<i32>,
    restarts: u32,
    last_exit: Option<String>,
    since_ms: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckHealth {
    status: checks::Status,
    exit_code: Option<i32>,
    output: String,
    duration_ms: u64,
    runs: u64,
    consecutive_failures: u64,
    last_run_ms: u64,
}

pub fn status(app: &App) -> Status {
    let services: Vec<_> = app
        .services
        .iter()
        .map(|service| service.state.get())
        .collect();
    let checks: Vec<_> = app
        .checks
        .iter()
        .map(|check| (check.status.get(), check.has_passed.get()))
        .collect();
    if app.phase.get() == Phase::Held {
        return Status::Starting;
    }
    decide(&services, &checks)
}

/// Waits until the guest is healthy, or never will be by itself.
pub async fn settled(app: &App) -> Status {
    loop {
        let changed = app.changed.notified();
        let status = status(app);
        if matches!(status, Status::Healthy | Status::Failed) {
            return status;
        }
        changed.await;
    }
}

fn decide(services: &[services::State], checks: &[(checks::Status, bool)]) -> Status {
    use services::State;
    if services.contains(&State::Failed) {
        Status::Failed
    } else if services.contains(&State::Backoff)
        || checks
            .iter()
            .any(|(status, has_passed)| *status == checks::Status::Failing && *has_passed)
    {
        Status::Unhealthy
    } else if services.iter().all(|state| *state == State::Running)
        && checks
            .iter()
            .all(|(status, _)| *status == checks::Status::Passing)
    {
        Status::Healthy
    } else {
        Status::Starting
    }
}

pub fn report(app: &App) -> Health {
    Health {
        status: status(app),
        generation: app.generation.get(),
        phase: app.phase.get(),
        services: app
            .services
            .iter()
            .map(|service| (service.name.clone(), describe_service(service)))
            .collect(),
        checks: app
            .checks
            .iter()
            .map(|check| (check.name.clone(), describe_check(check)))
            .collect(),
    }
}

fn describe_service(service: &Service) -> ServiceHealth {
    ServiceHealth {
        state: service.state.get(),
        pid: service.pid.get(),
        restarts: service.restarts.get(),
        last_exit: service.last_exit.borrow().clone(),
        since_ms: service.since.get().elapsed().as_millis() as u64,
    }
}

fn describe_check(check: &Check) -> CheckHealth {
    let last = check.last.borrow();
    CheckHealth {
        status: check.status.get(),
        exit_code: last.exit_code,
        output: last.output.clone(),
        duration_ms: last.duration_ms,
        runs: check.runs.get(),
        consecutive_failures: check.consecutive_failures.get(),
        last_run_ms: last.at_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use checks::Status::{Failing, Passing, Pending};
    use services::State::{Backoff, Failed, Running, Starting};

    #[test]
    fn healthy_means_that_everything_runs_and_passes() {
        assert_eq!(decide(&[], &[]), Status::Healthy);
        assert_eq!(decide(&[Running], &[(Passing, true)]), Status::Healthy);
        assert_eq!(
            decide(&[Running], &[(Passing, true), (Pending, false)]),
            Status::Starting
        );
        assert_eq!(decide(&[Starting], &[(Passing, true)]), Status::Starting);
    }

    #[test]
    fn a_check_that_never_passed_is_still_starting_and_one_that_had_is_unhealthy() {
        assert_eq!(decide(&[Running], &[(Failing, false)]), Status::Starting);
        assert_eq!(decide(&[Running], &[(Failing, true)]), Status::Unhealthy);
    }

    #[test]
    fn a_service_in_back_off_is_unhealthy_and_one_given_up_is_failed() {
        assert_eq!(decide(&[Running, Backoff], &[]), Status::Unhealthy);
        assert_eq!(decide(&[Backoff, Failed], &[]), Status::Failed);
    }
}

//! The agent inside an mvmctl guest. As `/init` it brings the guest up; then it starts and supervises services, runs
//! health checks, and serves the host over HTTP/2. docs/agent-api.md is the contract.

mod accounts;
mod api;
mod app;
mod async_fd;
mod cgroup;
mod checks;
mod config;
mod console;
mod free_pages;
mod health;
mod in_flight;
mod init;
mod kept_file;
mod kernel_command_line;
mod lifecycle;
mod logs;
mod other_cpu;
mod prepare;
mod probe;
mod process;
mod reaper;
mod services;
mod transport;
mod wake;

use std::rc::Rc;

use app::App;
use kernel_command_line::KernelCommandLine;

fn main() {
    if std::process::id() != 1 {
        eprintln!(
            "mvm-agent {}: this is the init of an mvmctl guest, and runs as process 1 only",
            env!("CARGO_PKG_VERSION")
        );
        std::process::exit(2);
    }
    let command_line = match init::bring_up() {
        Ok(command_line) => command_line,
        Err(error) => init::give_up(&error),
    };
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = other_cpu::configure(&mut builder)
        .enable_all()
        .build()
        .expect("a single-threaded runtime needs no resources but epoll");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, serve(command_line));
}

/// Runs for the guest's whole life.
async fn serve(command_line: KernelCommandLine) {
    let config = config::load(std::path::Path::new(config::PATH)).unwrap_or_else(|error| {
        console::say(&format!("{}: {error}", config::PATH));
        config::Config::default()
    });
    let hold = command_line.hold;
    let hostname = command_line.hostname.as_ref().unwrap_or(&config.hostname);
    if !hostname.is_empty() {
        let _ = wake::set_hostname(hostname);
    }
    let app = Rc::new(App::new(config, command_line));
    reaper::start(app.reaper.clone());
    lifecycle::end_when_told(&app);
    transport::start(&app);
    if !hold {
        lifecycle::start_services(&app);
    }
    std::future::pending::<()>().await;
}

//! /etc/mvm/guest.json, which `mkGuest` wrote into the image.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::probe::{HttpTarget, TcpTarget};

pub const PATH: &str = "/etc/mvm/guest.json";
const VERSION: u32 = 1;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    pub version: u32,
    #[serde(default)]
    pub hostname: String,
    #[serde(default)]
    pub service_group: String,
    #[serde(default)]
    pub services: BTreeMap<String, ServiceConfig>,
    #[serde(default)]
    pub health_checks: BTreeMap<String, CheckConfig>,
    #[serde(default)]
    pub hooks: Hooks,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceConfig {
    pub command: CommandLine,
    #[serde(default)]
    pub pre_start: Option<CommandLine>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default = "default_user")]
    pub user: String,
    #[serde(default)]
    pub log_file: Option<String>,
    #[serde(default)]
    pub directories: Vec<String>,
    #[serde(default)]
    pub restart_on_wake: bool,
    #[serde(default = "default_stop_timeout")]
    pub stop_timeout_secs: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckConfig {
    #[serde(flatten)]
    pub probe: Probe,
    /// What a TCP check says first.
    #[serde(default)]
    pub health_send: String,
    /// What the answer to it has to contain; nothing means that a connection is enough.
    #[serde(default)]
    pub health_expect: String,
    #[serde(default = "default_interval")]
    pub health_interval_secs: f64,
    #[serde(default = "default_timeout")]
    pub health_timeout_secs: f64,
    #[serde(default = "default_user")]
    pub user: String,
}

/// How it is found out: by exactly one of these.
#[derive(Debug, Clone, Deserialize)]
pub enum Probe {
    #[serde(rename = "healthCmd")]
    Command(CommandLine),
    #[serde(rename = "healthHttp")]
    Http(HttpTarget),
    #[serde(rename = "healthTcp")]
    Tcp(TcpTarget),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hooks {
    #[serde(default)]
    pub pre_snapshot: Vec<CommandLine>,
    #[serde(default)]
    pub post_restore: Vec<CommandLine>,
}

/// A text for the shell, or a program with its arguments.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum CommandLine {
    Shell(String),
    Program(Vec<String>),
}

impl CommandLine {
    pub fn argv(&self) -> Vec<String> {
        match self {
            Self::Shell(text) => vec!["/bin/sh".into(), "-c".into(), text.clone()],
            Self::Program(argv) => argv.clone(),
        }
    }
}

fn default_user() -> String {
    "app".into()
}

fn default_stop_timeout() -> u64 {
    10
}

fn default_interval() -> f64 {
    5.0
}

fn default_timeout() -> f64 {
    5.0
}

/// An image without the file has no services; one with a file that can't be read says so.
pub fn load(path: &Path) -> Result<Config, String> {
    if !path.exists() {
        return Ok(Config::default());
    }
    parse(&fs::read_to_string(path).map_err(|error| error.to_string())?)
}

fn parse(text: &str) -> Result<Config, String> {
    let config: Config = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if config.version != VERSION {
        return Err(format!(
            "version {} is not known to this agent",
            config.version
        ));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_texts_for_the_shell_or_programs() {
        let config = parse(
            r#"{"version":1,"services":{"a":{"command":"echo hi | cat"},"b":{"command":["httpd","-f"],"user":"www","preStart":null}}}"#,
        )
        .unwrap();
        assert_eq!(
            config.services["a"].command.argv(),
            ["/bin/sh", "-c", "echo hi | cat"]
        );
        assert_eq!(config.services["b"].command.argv(), ["httpd", "-f"]);
        assert_eq!(config.services["a"].user, "app");
        assert_eq!(config.services["b"].user, "www");
    }

    #[test]
    fn a_check_is_a_command_or_a_request_or_a_connection() {
        let config = parse(
            r#"{"version":1,"healthChecks":{"a":{"healthCmd":"true"},"b":{"healthHttp":"http://127.0.0.1:80/","healthIntervalSecs":2},"c":{"healthTcp":"127.0.0.1:5432"}}}"#,
        )
        .unwrap();
        let probe = |name: &str| &config.health_checks[name].probe;
        assert!(matches!(probe("a"), Probe::Command(_)));
        assert!(matches!(probe("b"), Probe::Http(_)));
        assert!(matches!(probe("c"), Probe::Tcp(_)));
        assert_eq!(config.health_checks["b"].health_interval_secs, 2.0);
        assert!(parse(r#"{"version":1,"healthChecks":{"a":{}}}"#).is_err());
        assert!(parse(r#"{"version":1,"healthChecks":{"a":{"healthTcp":"x"}}}"#).is_err());
    }

    #[test]
    fn another_version_is_refused() {
        assert!(parse(r#"{"version":2}"#).unwrap_err().contains("version 2"));
    }
}

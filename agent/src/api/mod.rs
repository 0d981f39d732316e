//! The agent's HTTP/2 resources; docs/agent-api.md lists them.

mod exec;
mod files;
mod forward;
mod logs;
mod query;
mod reply;

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::RecvStream;
use http::{Method, Request};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::app::App;
use crate::health;
use crate::init::uptime_ms;
use crate::lifecycle;
use crate::prepare::prepare;
use crate::wake::wake_up;
pub use files::put_archive;
use query::Query;
use reply::{ApiError, Reply};

/// Windows for files and logs: the default of 64 KiB would wait for the host after every four frames.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
const MAX_STREAMS: u32 = 256;
/// No JSON request comes near this.
const MAX_JSON: usize = 4 * 1024 * 1024;
/// Everything that is ready runs before a timer does: the answer is written by then.
const AFTER_ANSWER: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Serves one client until its connection ends.
pub async fn serve_connection<T: AsyncRead + AsyncWrite + Unpin>(app: Rc<App>, io: T) {
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .handshake::<_, Bytes>(io)
        .await;
    let Ok(mut connection) = handshake else {
        return;
    };
    let _counted = app.connections.enter();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::task::spawn_local(answer(app.clone(), request, respond));
    }
}

async fn answer(app: Rc<App>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let mut reply = Reply::new(respond);
    if let Err(error) = route(&app, request, &mut reply).await {
        reply.error(error);
    }
}

async fn route(
    app: &Rc<App>,
    request: Request<RecvStream>,
    reply: &mut Reply,
) -> Result<(), ApiError> {
    if request.method() == Method::CONNECT {
        return forward::connect(request, reply).await;
    }
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query().unwrap_or(""));
    let segments: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
    match (parts.method.as_str(), segments.as_slice()) {
        ("GET", ["v1", "info"]) => reply.json(&info(app)),
        ("GET", ["v1", "health"]) => {
            wait_for_health(app, &query).await;
            reply.json(&health::report(app))
        }
        ("POST", ["v1", "wake"]) => {
            let awake = wake_up(app, read_json(body).await?).await?;
            reply.json(&json!({ "generation": awake.generation }))?;
            let app = app.clone();
            after_answer(async move { awake.resume(&app).await });
            Ok(())
        }
        ("POST", ["v1", "prepare"]) => {
            let request: Limit = read_json(body).await?;
            prepare(app, request.duration(30_000)).await?;
            reply.json(&json!({}))
        }
        ("POST", ["v1", "shutdown"]) => {
            let request: Limit = read_json(body).await?;
            reply.json(&json!({}))?;
            let limit = request.duration(10_000);
            after_answer(lifecycle::shut_down(app.clone(), limit));
            Ok(())
        }
        ("POST", ["v1", "exec"]) => exec::exec(app, body, reply).await,
        ("GET", ["v1", "files"]) => files::get(&query, reply).await,
        ("PUT", ["v1", "files"]) => files::put(app, &query, body, reply).await,
        ("GET", ["v1", "logs"]) => logs::get(app, &query, reply).await,
        ("POST", ["v1", "services", name, "restart"]) => {
            let name = query::decode(name);
            let service = app.services.iter().find(|service| service.name == name);
            let service = service
                .ok_or_else(|| ApiError::not_found(format!("there is no service '{name}'")))?;
            service.restart(app).await;
            reply.json(&json!({}))
        }
        (method, _) => Err(ApiError::not_found(format!(
            "{method} {} is not a resource of this agent",
            parts.uri.path()
        ))),
    }
}

/// Does something once the answer is on its way: starting processes would keep it waiting.
fn after_answer(task: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(async move {
        tokio::time::sleep(AFTER_ANSWER).await;
        task.await;
    });
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Limit {
    timeout_ms: Option<u64>,
}

impl Limit {
    fn duration(&self, default_ms: u64) -> Duration {
        Duration::from_millis(self.timeout_ms.unwrap_or(default_ms))
    }
}

fn info(app: &App) -> serde_json::Value {
    let read = |path| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_string()
    };
    json!({
        "agentVersion": env!("CARGO_PKG_VERSION"),
        "apiVersion": 1,
        "hostname": read("/proc/sys/kernel/hostname"),
        "role": *app.role.borrow(),
        "machineId": read("/etc/machine-id"),
        "bootId": read("/proc/sys/kernel/random/boot_id"),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "uptimeMs": uptime_ms(),
        "phase": app.phase.get(),
        "generation": app.generation.get(),
    })
}

/// Waits as long as the request allows for a status that is final.
async fn wait_for_health(app: &App, query: &Query) {
    let wait = Duration::from_millis(query.number("waitMs").unwrap_or(0)).min(LONGEST_WAIT);
    let _ = timeout(wait, health::settled(app)).await;
}

async fn read_json<T: for<'a> Deserialize<'a> + Default>(
    mut body: RecvStream,
) -> Result<T, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(io::Error::other)?;
        let _ = body.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_JSON {
            return Err(ApiError::bad_request("the request is too long".into()));
        }
    }
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| ApiError::bad_request(error.to_string()))
}

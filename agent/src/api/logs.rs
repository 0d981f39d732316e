//! GET /v1/logs

use std::rc::Rc;

use super::query::Query;
use super::reply::{ApiError, Reply};
use crate::app::App;

pub async fn get(app: &Rc<App>, query: &Query, reply: &mut Reply) -> Result<(), ApiError> {
    let service = query.text("service");
    if let Some(name) =
        service.filter(|name| !app.services.iter().any(|service| service.name == **name))
    {
        return Err(ApiError::not_found(format!("there is no service '{name}'")));
    }
    let mut body = reply.stream("application/x-ndjson")?;
    let mut lines = app.logs.after(0, service);
    if let Some(tail) = query.number("tail") {
        lines.drain(..lines.len().saturating_sub(tail as usize));
    }
    let mut seen = 0;
    loop {
        let changed = app.logs.changed.notified();
        for line in lines {
            seen = line.number;
            let mut text = serde_json::to_vec(&line).map_err(std::io::Error::other)?;
            text.push(b'\n');
            body.send(text.into()).await?;
        }
        if !query.flag("follow") || app.logs.is_closed() {
            return Ok(body.end()?);
        }
        tokio::select! {
            () = changed => {}
            () = body.cancelled() => return Ok(()),
        }
        lines = app.logs.after(seen, service);
    }
}

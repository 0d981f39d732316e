//! Answers: JSON, streams of bytes, errors.

use std::future::poll_fn;
use std::io;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::SendStream;
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;

/// An error as the client sees it.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

impl ApiError {
    pub fn bad_request(message: String) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "BAD_REQUEST",
            message,
        }
    }

    pub fn not_found(message: String) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            code: "NOT_FOUND",
            message,
        }
    }

    pub fn unreachable(message: String) -> Self {
        Self {
            status: StatusCode::BAD_GATEWAY,
            code: "FAILED",
            message,
        }
    }
}

impl From<io::Error> for ApiError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::not_found(error.to_string()),
            io::ErrorKind::AlreadyExists => Self {
                status: StatusCode::CONFLICT,
                code: "CONFLICT",
                message: error.to_string(),
            },
            _ => Self {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                code: "FAILED",
                message: error.to_string(),
            },
        }
    }
}

impl From<h2::Error> for ApiError {
    fn from(error: h2::Error) -> Self {
        io::Error::other(error).into()
    }
}

/// The answer to one request: given once.
pub struct Reply {
    respond: SendResponse<Bytes>,
    begun: bool,
}

impl Reply {
    pub fn new(respond: SendResponse<Bytes>) -> Self {
        Self {
            respond,
            begun: false,
        }
    }

    pub fn json(&mut self, value: &impl Serialize) -> Result<(), ApiError> {
        self.send(StatusCode::OK, value)
    }

    /// Once a stream has begun, a failure can only cut it off.
    pub fn error(&mut self, error: ApiError) {
        if self.begun {
            self.respond.send_reset(h2::Reason::INTERNAL_ERROR);
        } else {
            let _ = self.send(
                error.status,
                &json!({ "code": error.code, "message": error.message }),
            );
        }
    }

    /// Begins an answer whose body follows.
    pub fn stream(&mut self, content_type: &str) -> Result<Body, ApiError> {
        self.begun = true;
        let head = Response::builder()
            .header("content-type", content_type)
            .body(())
            .map_err(io::Error::other)?;
        Ok(Body(self.respond.send_response(head, false)?))
    }

    fn send(&mut self, status: StatusCode, value: &impl Serialize) -> Result<(), ApiError> {
        self.begun = true;
        let head = Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(());
        let bytes = serde_json::to_vec(value).map_err(io::Error::other)?;
        let mut body = self
            .respond
            .send_response(head.map_err(io::Error::other)?, false)?;
        body.send_data(bytes.into(), true)?;
        Ok(())
    }
}

/// A body that is sent piece by piece, no faster than the client takes it.
pub struct Body(SendStream<Bytes>);

impl Body {
    pub async fn send(&mut self, mut data: Bytes) -> io::Result<()> {
        while !data.is_empty() {
            self.0.reserve_capacity(data.len());
            let capacity = match poll_fn(|context| self.0.poll_capacity(context)).await {
                Some(capacity) => capacity.map_err(io::Error::other)?,
                None => return Err(io::ErrorKind::BrokenPipe.into()),
            };
            let piece = data.split_to(capacity.min(data.len()));
            self.0.send_data(piece, false).map_err(io::Error::other)?;
        }
        Ok(())
    }

    pub fn end(&mut self) -> io::Result<()> {
        self.0
            .send_data(Bytes::new(), true)
            .map_err(io::Error::other)
    }

    /// Resolves when the client no longer wants it.
    pub async fn cancelled(&mut self) {
        let _ = poll_fn(|context| self.0.poll_reset(context)).await;
    }
}

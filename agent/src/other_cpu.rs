//! A second thread, for what a waking guest can do beside the rest. After a restore an emulated guest translates all that it runs, and
//! what two CPUs run is translated by two. Where there is one CPU, another thread is only more to do.

use std::io;
use std::sync::OnceLock;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::{spawn_blocking, JoinHandle};

/// Jobs are done one after another, by a thread that stays: to make one takes a restored guest as long as most of them.
pub fn configure(runtime: &mut Builder) -> &mut Builder {
    runtime
        .max_blocking_threads(1)
        .thread_keep_alive(Duration::MAX)
}

pub fn is_there() -> bool {
    static IS_THERE: OnceLock<bool> = OnceLock::new();
    *IS_THERE.get_or_init(|| available_parallelism().is_ok_and(|count| count.get() > 1))
}

/// Makes the thread, unless it is there. For a guest that is about to be captured.
pub async fn get_ready() {
    let _ = run(|| ()).end().await;
}

/// Does a job on the other CPU, or, where there is none, at once. The job must not wait for anything; it has the runtime at hand.
pub fn run<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Job<T> {
    if is_there() {
        Job::Begun(spawn_blocking(job))
    } else {
        Job::Done(job())
    }
}

pub enum Job<T> {
    Begun(JoinHandle<T>),
    Done(T),
}

impl<T> Job<T> {
    pub async fn end(self) -> io::Result<T> {
        match self {
            Self::Begun(job) => Ok(job.await?),
            Self::Done(result) => Ok(result),
        }
    }
}

//! The agent's end of the worker: starts it, asks it, and starts it again when it broke.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::confine::MEMORY_VARIABLE;
use super::protocol::{ANSWER_HEADER, MAX_ANSWER, MAX_FILE, Request};
use crate::{
    memory::{Memory, Share},
    sys, usage,
};

/// Longest time a worker may take for one request, beside what the file's size allows for.
pub const TIMEOUT: Duration = Duration::from_secs(20);
/// So many bytes of a file allow for one more second.
const BYTES_A_SECOND: u64 = 16 << 20;

/// A worker that was killed is waited for so long.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// How to start a worker. It must end up in [`super::main`] with the socket as its standard
/// input.
#[derive(Debug, Clone)]
pub struct WorkerCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its whole environment, but for what tells it its limit of memory.
    pub environment: Vec<(OsString, OsString)>,
    /// What decides on that limit; without it, it is a large one.
    pub memory: Option<Memory>,
    /// Which part of it is this one's.
    pub share: Share,
}

impl Default for WorkerCommand {
    /// Our own program again, even if its file was replaced meanwhile.
    fn default() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            arguments: vec!["internal-worker".into()],
            environment: Vec::new(),
            memory: None,
            share: Share::Quick,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The file is not what it should be; asking again will not help.
    #[error("{0}")]
    Refused(String),
    /// The worker died over the file.
    #[error("the worker ended over it ({0}): the file is left alone from now on")]
    Died(String),
    /// The worker took too long and was ended.
    #[error("the worker took more than {0:?}: the file is left alone from now on")]
    Timeout(Duration),
    /// No worker can be started.
    #[error("no worker can be started: {0}; check the limit on processes and that /proc is mounted")]
    Start(io::Error),
}

#[derive(Debug)]
struct Running {
    child: Child,
    socket: UnixStream,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let until = Instant::now() + GONE_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                // It waits in the kernel for a file system that does not answer. Not us.
                tracing::warn!("worker {} does not end: it reads from a file system that hangs", self.child.id());
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// One worker, started when it is needed.
#[derive(Debug)]
pub struct Worker {
    command: WorkerCommand,
    timeout: Duration,
    answer: usize,
    running: Option<Running>,
    starts: u64,
}

impl Worker {
    /// Nothing is started yet.
    pub fn new(command: WorkerCommand, timeout: Duration) -> Self {
        Self { command, timeout, answer: MAX_ANSWER, running: None, starts: 0 }
    }

    /// The same, answering so many bytes at most.
    pub fn answering(self, bytes: usize) -> Self {
        Self { answer: bytes.min(MAX_ANSWER), ..self }
    }

    /// Workers started so far.
    pub fn starts(&self) -> u64 {
        self.starts
    }

    /// Whether there is one, with its memory.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Ends the worker, so that its memory goes back. The next request starts another.
    pub fn rest(&mut self) {
        self.running = None;
    }

    /// Asks for something to be made of `file`.
    pub fn ask(&mut self, file: &File, request: &Request) -> Result<Vec<u8>, WorkerError> {
        if request.size > MAX_FILE {
            return Err(WorkerError::Refused(format!("{} bytes are more than {MAX_FILE}", request.size)));
        }
        // One that ended while nobody asked it anything did not end over this file.
        if self.running.as_mut().is_some_and(|running| !matches!(running.child.try_wait(), Ok(None))) {
            self.running = None;
        }
        if self.running.is_none() {
            self.running = Some(start(&self.command).map_err(WorkerError::Start)?);
            self.starts += 1;
        }
        let Some(running) = &mut self.running else { return Err(WorkerError::Refused("no worker".into())) };
        let timeout = self.timeout + Duration::from_secs(request.size / BYTES_A_SECOND);
        match exchange(&mut running.socket, file, request, timeout, self.answer) {
            Ok((last, result)) => {
                if last {
                    self.running = None;
                }
                result.map_err(WorkerError::Refused)
            }
            Err(e) if e.kind() == io::ErrorKind::FileTooLarge => {
                self.running = None;
                Err(WorkerError::Refused(format!("what is made of it is over {} bytes: raise --memory", self.answer)))
            }
            Err(e) => {
                let mut running = self.running.take();
                if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
                    return Err(WorkerError::Timeout(timeout));
                }
                // Its end of the socket is closed, so it is dying or dead: this tells how.
                let status = running.as_mut().and_then(|r| {
                    let _ = r.child.kill();
                    thread::sleep(Duration::from_millis(10));
                    r.child.try_wait().ok().flatten()
                });
                Err(WorkerError::Died(status.map_or_else(|| e.to_string(), |s| s.to_string())))
            }
        }
    }
}

fn start(command: &WorkerCommand) -> io::Result<Running> {
    let (socket, theirs) = UnixStream::pair()?;
    let child = Command::new(&command.program)
        .args(&command.arguments)
        .env_clear()
        .envs(command.environment.iter().map(|(k, v)| (k, v)))
        .envs(
            command
                .memory
                .map(|memory| (MEMORY_VARIABLE, memory.worker(command.share, usage::all_resident_bytes()).to_string())),
        )
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A terminal's Ctrl-C is for us: there is something to finish, and that needs the worker.
        .process_group(0)
        .spawn()?;
    Ok(Running { child, socket })
}

type Exchanged = (bool, Result<Vec<u8>, String>);

fn exchange(
    socket: &mut UnixStream,
    file: &File,
    request: &Request,
    timeout: Duration,
    most: usize,
) -> io::Result<Exchanged> {
    let until = Instant::now() + timeout;
    socket.set_write_timeout(Some(timeout))?;
    sys::send_with_fd(socket, &request.to_bytes(), file.as_fd())?;
    let mut header = [0; ANSWER_HEADER];
    read_until(socket, &mut header, until)?;
    let [a, b, c, d, last, ok] = header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut payload = vec![0; length];
    read_until(socket, &mut payload, until)?;
    let result = if ok != 0 { Ok(payload) } else { Err(String::from_utf8_lossy(&payload).into_owned()) };
    Ok((last != 0, result))
}

fn read_until(socket: &mut UnixStream, mut room: &mut [u8], until: Instant) -> io::Result<()> {
    while !room.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(room) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => room = &mut room[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "client_tests.rs"]
pub(crate) mod tests;

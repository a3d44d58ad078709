//! The worker: a child process without any rights that reads other people's files.
//!
//! The agent sends it an open file and a wish over a socket, and gets bytes back. It can
//! crash, hang or be taken over without harm: it is killed and started again, and the
//! agent believes nothing it says without checking it.

pub mod client;
mod confine;
mod filter;
mod mapping;
pub mod protocol;

use std::{
    io::Write,
    os::{fd::AsFd, unix::net::UnixStream},
    process::ExitCode,
};

use protocol::{Answer, Request, Wish};

use crate::sys;

/// CPU seconds after which a worker makes room for a fresh one.
const RETIRE_CPU_SECONDS: u64 = 30;
/// Files from this size on are a worker's last, so that the memory goes back.
const RETIRE_FILE: u64 = 16 << 20;

/// Runs in the child: serves the socket that is its standard input until it is closed.
/// Gives up its rights before it looks at anything. To be called before any other thread is
/// started: some rights are a thread's own.
pub fn main() -> ExitCode {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let served = socket.and_then(|socket| {
        confine::confine()?;
        serve(&socket)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::debug!("the worker ends: {e}");
            ExitCode::FAILURE
        }
    }
}

fn serve(mut socket: &UnixStream) -> std::io::Result<()> {
    // What a hostile file provokes is told in the answer.
    std::panic::set_hook(Box::new(|_| {}));
    let mut buffer = [0; protocol::REQUEST_BYTES];
    loop {
        let (length, fd) = sys::receive_with_fd(socket, &mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let request = Request::from_bytes(&buffer[..length])
            .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "not a request"))?;
        let result = match fd {
            Some(fd) => mapping::Mapped::new(&fd.into(), request.size)
                .map_err(|e| format!("cannot be mapped: {e}"))
                .and_then(|mapped| look(mapped.bytes(), &request)),
            None => Err("no file came with the request".into()),
        };
        let last = request.size >= RETIRE_FILE || sys::cpu_seconds() >= RETIRE_CPU_SECONDS;
        socket.write_all(&Answer { last, result }.to_bytes())?;
        if last {
            return Ok(());
        }
    }
}

/// Does what is wished, whatever the bytes are.
fn look(bytes: &[u8], request: &Request) -> Result<Vec<u8>, String> {
    let done = std::panic::catch_unwind(|| match request.wish {
        Wish::Facts => {
            let facts = everflame_symbols::inspect(bytes).map_err(|e| e.to_string())?;
            Ok(protocol::facts_to_bytes(&facts))
        }
        Wish::Table => {
            let table = everflame_unwind::convert(bytes, &Default::default()).map_err(|e| e.to_string())?;
            Ok(table.bytes().to_vec())
        }
        Wish::Index => {
            everflame_symbols::build_index(bytes, &request.name, &Default::default()).map_err(|e| e.to_string())
        }
        #[cfg(test)]
        Wish::Fault => protocol::fault(bytes),
    });
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(format!("the parser panicked: {}", text.unwrap_or("no message")))
    })
}

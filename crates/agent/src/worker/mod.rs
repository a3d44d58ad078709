//! The worker: a child process without any rights that reads other people's files.
//!
//! The agent sends it an open file and a wish over a socket, and gets bytes back. It can
//! crash, hang or be taken over without harm: it is killed and started again, and the
//! agent believes nothing it says without checking it.

pub mod client;
mod confine;
mod filter;
pub(crate) mod mapping;
pub mod protocol;

use std::{
    io::Write,
    os::{fd::AsFd, unix::net::UnixStream},
    panic::AssertUnwindSafe,
    process::ExitCode,
};

use everflame_profile::ContentId;
use everflame_unwind::{Limits, Machine};
use protocol::{Answer, Request, Wish};

use crate::{
    opinion::{Images, Question},
    sys,
};

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
    let mut images = Images::default();
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
                .and_then(|mapped| look(mapped, &request, &mut images)),
            None => Err("no file came with the request".into()),
        };
        let large = request.size >= RETIRE_FILE && request.wish != Wish::Module;
        let last = large || sys::cpu_seconds() >= RETIRE_CPU_SECONDS;
        socket.write_all(&Answer { last, result }.to_bytes())?;
        if last {
            return Ok(());
        }
    }
}

/// Does what is wished, whatever the bytes are.
fn look(file: mapping::Mapped, request: &Request, images: &mut Images) -> Result<Vec<u8>, String> {
    let done = std::panic::catch_unwind(AssertUnwindSafe(|| match request.wish {
        Wish::Facts => {
            let facts = everflame_symbols::inspect(file.bytes()).map_err(|e| e.to_string())?;
            Ok(protocol::facts_to_bytes(&facts))
        }
        Wish::Table => {
            let limits = Limits { machine: Some(Machine::here()), ..Limits::default() };
            let table = everflame_unwind::convert(file.bytes(), &limits).map_err(|e| e.to_string())?;
            Ok(table.bytes().to_vec())
        }
        Wish::Index => {
            everflame_symbols::build_index(file.bytes(), &request.name, &Default::default()).map_err(|e| e.to_string())
        }
        Wish::Module => {
            let content = ContentId::parse(&request.name).ok_or("the name is no content id")?;
            images.add(content, file).map(|()| Vec::new())
        }
        Wish::Question => {
            let question = Question::from_bytes(file.bytes()).ok_or("not a question")?;
            Ok(images.answer(&question).to_bytes())
        }
        #[cfg(test)]
        Wish::Fault => protocol::fault(file.bytes()),
    }));
    if done.is_err() {
        // What it was about may be half changed.
        *images = Images::default();
    }
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(format!("the parser panicked: {}", text.unwrap_or("no message")))
    })
}

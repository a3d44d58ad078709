//! What is recorded: everything, some processes with their children, or a command.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitCode, ExitStatus},
};

use anyhow::Context;
use everflame_agent::Recorder;

use crate::{WrongUse, options::RecordOptions};

/// The processes of interest.
#[derive(Debug)]
pub enum Target {
    /// Every process.
    Machine,
    /// These and their children, until the last of them has ended.
    Processes(Vec<u32>),
    /// A command that is to be started.
    Command(Vec<String>),
    /// The same, running or ended.
    Running(Child, Option<ExitStatus>),
}

impl Target {
    /// Decides by the options.
    pub fn choose(options: &RecordOptions) -> anyhow::Result<Self> {
        if !options.command.is_empty() {
            if !options.pid.is_empty() {
                return Err(WrongUse("give --pid or a command, not both".into()).into());
            }
            return Ok(Self::Command(options.command.clone()));
        }
        if options.pid.is_empty() {
            return Ok(Self::Machine);
        }
        for &pid in &options.pid {
            if !alive(pid) {
                return Err(WrongUse(format!("--pid {pid}: there is no such process")).into());
            }
        }
        Ok(Self::Processes(options.pid.clone()))
    }

    /// Marks the processes that are to be sampled; starts the command, if there is one.
    pub fn start(&mut self, recorder: &Recorder) -> anyhow::Result<()> {
        match self {
            Self::Processes(pids) => recorder.want(&with_descendants(pids))?,
            Self::Command(words) => {
                let [program, arguments @ ..] = words.as_slice() else { return Ok(()) };
                let child = recorder
                    .with_children_wanted(|| Command::new(program).args(arguments).spawn())?
                    .with_context(|| format!("cannot run `{program}`: is it installed and executable?"))?;
                *self = Self::Running(child, None);
            }
            Self::Machine | Self::Running(..) => {}
        }
        Ok(())
    }

    /// Whether there is nothing left to record.
    pub fn is_over(&mut self) -> anyhow::Result<bool> {
        Ok(match self {
            Self::Machine | Self::Command(_) => false,
            Self::Processes(pids) => !pids.iter().any(|&pid| alive(pid)),
            Self::Running(child, status) => {
                *status = child.try_wait()?;
                status.is_some()
            }
        })
    }

    /// The command's exit code (128 and the signal's number if one ended it), else 0. A
    /// command that still runs is waited for.
    pub fn exit_code(self) -> anyhow::Result<ExitCode> {
        let Self::Running(mut child, status) = self else { return Ok(ExitCode::SUCCESS) };
        let status = match status {
            Some(status) => status,
            None => child.wait()?,
        };
        let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1);
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    }
}

/// Whether a process is there and has not ended: one that nobody has waited for yet has no
/// threads but its first.
fn alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let ended = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']));
    !ended || fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1)
}

/// The processes and all that descend from them now.
fn with_descendants(roots: &[u32]) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // After the name in parentheses: state, parent.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        parents.push((pid, parent.unwrap_or(0)));
    }
    let mut found = roots.to_vec();
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        let children: Vec<u32> =
            parents.iter().filter(|(pid, p)| *p == parent && !found.contains(pid)).map(|(pid, _)| *pid).collect();
        found.extend(children);
        at += 1;
    }
    found
}

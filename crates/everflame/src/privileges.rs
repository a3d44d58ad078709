//! Who runs as whom. The sampler needs privileges; the web server does not get them: before
//! it opens a file or a port of its own it gives up its capabilities, and as root becomes
//! `nobody` (or whose room in the data directory it is already, as a service manager's user),
//! unless it may not change users, as in containers.

use std::{
    fs::{self, File},
    os::unix::{
        fs::{MetadataExt, lchown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use everflame_server::access::Digest;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// `nobody` on every distribution.
const NOBODY: u32 = 65534;
/// Set for a process whose standard input is its data directory.
const DATA_ON_STDIN: &str = "EVERFLAME_INTERNAL_DATA_ON_STDIN";

/// Set for a server that is a part of `up`: it ends when the sampler does, however that ends.
pub const ENDS_WITH_PARENT: &str = "EVERFLAME_INTERNAL_ENDS_WITH_PARENT";

/// What such a server ends on, and on nothing else: a terminal's Ctrl-C and a service manager's
/// SIGTERM reach every process of `up` at once, but the server must outlast the sampler, which
/// has its last samples to hand over.
pub const PARENT_ENDS: rustix::process::Signal = rustix::process::Signal::USR1;

/// Digest of the token of the agent in the same program: the token itself stays with it.
pub const OWN_AGENT: &str = "EVERFLAME_INTERNAL_OWN_AGENT_SHA256";

/// What `up` said of its agent's token.
pub fn own_agent() -> Option<Digest> {
    Digest::parse(std::env::var(OWN_AGENT).ok()?.as_str()).filter(|_| is_part())
}

/// Whether this process is a server that is a part of `up`.
pub fn is_part() -> bool {
    std::env::var_os(ENDS_WITH_PARENT).is_some()
}

/// Whether this process is root and may become another user and give files away.
fn may_change_users() -> bool {
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::CHOWN;
    rustix::process::geteuid().is_root() && capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Gives up the capabilities that were inherited, but for the one that opens low ports. To be
/// called before there are threads, whose own they are.
fn give_up_capabilities() -> anyhow::Result<()> {
    let kept = capabilities(None).map(|sets| sets.permitted & CapabilitySet::NET_BIND_SERVICE);
    let sets = |kept| CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    kept.and_then(|kept| set_capabilities(None, sets(kept))).context("cannot give up capabilities")
}

/// The server's room in a data directory.
const SERVER_ROOM: &str = "server";

/// As whom root starts the server over: whose the room is already, so that commands beside a
/// server that runs as a user of its own take nothing away from it; else `nobody`.
fn user_of(room: &Path) -> (u32, u32) {
    match fs::symlink_metadata(room) {
        Ok(facts) if facts.is_dir() && facts.uid() != 0 && facts.gid() != 0 => (facts.uid(), facts.gid()),
        _ => (NOBODY, NOBODY),
    }
}

/// Makes the data directory with the server's room in it, and as root gives that room to
/// `nobody`, unless it is some user's. The directory itself and the sampler's spool in it stay root's: the server
/// must not be able to put anything in the sampler's way.
pub fn prepare_data(data: &Path) -> anyhow::Result<()> {
    let room = data.join(SERVER_ROOM);
    fs::create_dir_all(&room)
        .with_context(|| format!("cannot make the directory {}: choose another with --data", room.display()))?;
    if may_change_users() && user_of(&room).0 == NOBODY {
        give_away(&room).with_context(|| {
            format!("cannot give {} to the unprivileged server: choose another directory with --data", room.display())
        })?;
    }
    Ok(())
}

/// What is `nobody`'s already is left alone with all that is in it: in such a directory others
/// could put something else in the place of what was looked at. So the content goes first.
fn give_away(path: &Path) -> std::io::Result<()> {
    let facts = fs::symlink_metadata(path)?;
    if facts.uid() == NOBODY || facts.is_symlink() {
        return Ok(());
    }
    if facts.is_dir() {
        for entry in fs::read_dir(path)? {
            give_away(&entry?.path())?;
        }
    }
    lchown(path, Some(NOBODY), Some(NOBODY))
}

/// A command that runs this program again as `nobody`, its room of the data directory on
/// standard input: so it may lie below directories that only root can pass through.
pub fn unprivileged(data: &Path) -> anyhow::Result<Command> {
    let room = data.join(SERVER_ROOM);
    let directory = File::open(&room).with_context(|| format!("cannot open the directory {}", room.display()))?;
    let mut command = Command::new("/proc/self/exe");
    command.stdin(Stdio::from(directory)).env(DATA_ON_STDIN, fs::canonicalize(data).unwrap_or_else(|_| data.into()));
    if may_change_users() {
        let (user, group) = user_of(&room);
        command.uid(user).gid(group);
    }
    Ok(command)
}

/// In the server: gives up what it was given, and as root starts over as `nobody`. Returns where its room is to be reached,
/// and how the data directory is called.
pub fn enter(data: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    if let Some(name) = std::env::var_os(DATA_ON_STDIN) {
        std::env::set_current_dir("/proc/self/fd/0").context("the data directory was not handed over")?;
        give_up_capabilities()?;
        if is_part() {
            let _ = rustix::process::set_parent_process_death_signal(Some(PARENT_ENDS));
        }
        return Ok((PathBuf::from("."), PathBuf::from(name)));
    }
    prepare_data(data)?;
    if !may_change_users() {
        if rustix::process::geteuid().is_root() {
            tracing::info!("users cannot be changed here: the server stays root, without its capabilities");
        }
        give_up_capabilities()?;
        return Ok((data.join(SERVER_ROOM), data.to_owned()));
    }
    let error = unprivileged(data)?.args(std::env::args_os().skip(1)).exec();
    bail!("cannot start over without privileges: {error}");
}

//! Bad surroundings: each ends with one line that says what to do, or is lived with.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use everflame_tests::everflame::{binary, command};
use everflame_tests::machine::{finish, need_program, need_root, output};
use everflame_tests::target::built;
use everflame_tests::{Everflame, Outcome, Target};
use prost::Message;

pub fn port_in_use() -> Outcome {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let ended = limited(command(&["server", "--listen", &address, "--data", folder.path().to_str().unwrap()]));
    fails_with(&ended, &[&address]);
    Ok(())
}

pub fn read_only_data_directory() -> Outcome {
    need_root()?;
    need_program("unshare")?;
    let ended = limited(in_namespace(
        "mount -t tmpfs -o ro none /mnt && exec \"$0\" server --listen 127.0.0.1:0 --data /mnt/data",
        &[],
    ));
    fails_with(&ended, &["/mnt/data"]);
    Ok(())
}

/// A tmpfs of 12 MiB fills up: profiles are refused with 503 and a message, what was
/// acknowledged before can be read, and the server lives.
pub fn full_disk() -> Outcome {
    need_root()?;
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    output(Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m", "none", disk.to_str().unwrap()]));
    let _unmount = Unmount(disk.clone());
    let mut server = Everflame::server(0, &disk.join("data"));
    let (mut stored, mut refused) = (0u64, None);
    for number in 0..20_000u32 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_le_bytes());
        // Names that do not compress, so that the disk fills within a minute.
        let body = super::otlp::request(&noise(number, 3_000), id).encode_to_vec();
        let (status, answer) =
            server.api().post("/v1development/profiles", &[("content-type", "application/x-protobuf")], &body);
        match status {
            200 => stored += 75,
            _ => {
                refused = Some((status, String::from_utf8_lossy(&answer).into_owned()));
                break;
            }
        }
    }
    let (status, message) = refused.expect("12 MiB are full at last");
    assert_eq!(status, 503, "{message}");
    assert!(server.alive(), "the server lives on a full disk");
    assert_eq!(server.api().try_status("/healthz"), Some(200));
    assert_eq!(server.api().samples(""), stored, "what was acknowledged can be read");
    drop(server);
    Ok(())
}

pub fn not_root() -> Outcome {
    need_root()?;
    need_program("setpriv")?;
    // A copy that anybody may run.
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path());
    let program = folder.path().join("everflame");
    std::fs::copy(binary(), &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).args([
        "up",
        "--listen",
        "127.0.0.1:0",
        "--data",
    ]);
    command.arg(folder.path().join("data"));
    fails_with(&limited(command), &["root"]);
    Ok(())
}

pub fn no_btf() -> Outcome {
    need_root()?;
    need_program("unshare")?;
    let folder = tempfile::tempdir().unwrap();
    let ended = limited(in_namespace(
        "mount -t tmpfs none /sys/kernel/btf && exec \"$0\" up --listen 127.0.0.1:0 --data \"$1\"",
        &[folder.path().join("data").to_str().unwrap()],
    ));
    fails_with(&ended, &["BTF"]);
    Ok(())
}

/// A process maps damaged files as code: the agent lives, and the profile of others is whole.
pub fn hostile_elf_files() -> Outcome {
    need_root()?;
    let (hostile, truth) = (built("hostile")?, built("truth_cpp")?);
    let folder = tempfile::tempdir().unwrap();
    let files = damaged_files(&std::fs::read(&truth).unwrap(), folder.path());
    let mut up = Everflame::up(97);
    let mut arguments = vec!["5"];
    arguments.extend(files.iter().map(|path| path.to_str().unwrap()));
    let mapped = Target::start(&hostile, &arguments).truth();
    assert_eq!(mapped["mapped"], files.len() as u64);
    // A program whose own unwind data is noise, and another that is whole.
    let noise = damaged_program(&truth, folder.path());
    Target::start(&noise, &["2", "1"]).truth();
    Target::start(&truth, &["3", "1"]).truth();
    assert!(up.alive(), "everflame died of a damaged file");
    up.api().settle("{process=\"truth_cpp\"}", Duration::from_secs(4));
    let graph = up.api().graph("{process=\"truth_cpp\"}");
    let whole = graph.count(|path| path.has_chain(&["main", "descend"]));
    assert!(whole >= 200, "{whole} whole stacks of {} samples beside damaged files", graph.samples);
    // Nothing is made up about the damaged one: what is not known is said.
    let damaged = up.api().graph("{process=\"noise\"}");
    println!("damaged program: {} samples, {} complete, {:?}", damaged.samples, damaged.complete, damaged.incomplete);
    assert!(damaged.samples >= 100);
    let log = up.stop();
    assert!(!log.contains("panicked"), "{log}");
    Ok(())
}

fn damaged_files(good: &[u8], folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<Vec<u8>> = [64, 100, 1_000, 4_096, good.len() / 2].map(|n| good[..n].to_vec()).to_vec();
    files.push((0..100_000u64).map(|i| (i.wrapping_mul(2654435761) >> 13) as u8).collect());
    for seed in 0..20u64 {
        let mut bytes = good.to_vec();
        for i in 0..64u64 {
            let at = (seed * 1_000_003 + i * i * 7919) as usize % if seed < 10 { 4_096 } else { good.len() };
            bytes[at] = (seed * 31 + i * 17) as u8;
        }
        files.push(bytes);
    }
    // Counts and offsets in the headers as large as they go.
    for at in [0x20, 0x28, 0x36, 0x38, 0x3a, 0x3c, 0x60, 0x78, 0x98] {
        let mut bytes = good.to_vec();
        bytes[at..at + 8].fill(0xff);
        files.push(bytes);
    }
    let write = |(number, bytes): (usize, Vec<u8>)| {
        let path = folder.join(format!("damaged-{number}.so"));
        std::fs::write(&path, bytes).unwrap();
        path
    };
    files.into_iter().enumerate().map(write).collect()
}

/// The program as it was, with noise for its unwind data: it runs, but cannot be unwound.
fn damaged_program(good: &Path, folder: &Path) -> PathBuf {
    use object::{Object, ObjectSection};
    use std::os::unix::fs::PermissionsExt;
    let mut bytes = std::fs::read(good).unwrap();
    let (offset, size) = {
        let file = object::File::parse(&*bytes).unwrap();
        file.section_by_name(".eh_frame").unwrap().file_range().unwrap()
    };
    for i in 0..size {
        bytes[(offset + i) as usize] = (i.wrapping_mul(2654435761) >> 11) as u8;
    }
    let path = folder.join("noise");
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Text that no compressor makes small.
fn noise(seed: u32, length: usize) -> String {
    let mut state = u64::from(seed) + 1;
    let mut letter = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        char::from(b' ' + 1 + ((state >> 33) % 90) as u8)
    };
    (0..length).map(|_| letter()).filter(|c| !matches!(c, '"' | '\\')).collect()
}

/// A shell script in a mount namespace of its own; `$0` is the program.
fn in_namespace(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(binary()).args(arguments);
    command
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}

/// Runs a command that should end by itself, for half a minute at most.
fn limited(command: Command) -> Output {
    let mut limited = Command::new("timeout");
    limited.args(["--signal=TERM", "30"]).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    let ended = finish(&mut limited);
    assert_ne!(ended.status.code(), Some(124), "it did not end by itself: {}", String::from_utf8_lossy(&ended.stderr));
    ended
}

/// A failure: exit code 1 and a last line that names the matter and says what to do.
fn fails_with(ended: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    for word in words {
        assert!(last.contains(word), "the last line does not name {word}: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// Takes a mount away again, whatever happened.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", self.0.to_str().unwrap_or_default()]).output();
    }
}

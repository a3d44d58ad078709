//! The limit of memory: an agent told 64 MiB, in a control group of 96 MiB, under a storm of
//! short processes and with a very large library mapped, is never killed for memory and goes
//! on sampling.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use everflame_tests::api::{residual, sum};
use everflame_tests::machine::{finish, free_port, need_root, output};
use everflame_tests::target::built;
use everflame_tests::{Everflame, Outcome, Skip, Target};

const LIMIT: u64 = 64 << 20;
const AROUND: u64 = 96 << 20;

pub fn a_limit_that_holds() -> Outcome {
    need_root()?;
    let cgroup = Cgroup::new(AROUND)?;
    let (truth, soak, hostile) = (built("truth_cpp")?, built("soak")?, built("hostile")?);
    let large = large_library()?;
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let server = Everflame::server(port, &folder.path().join("data"));
    let memory = format!("{}MiB", LIMIT >> 20);
    let spool = folder.path().join("spool");
    let mut agent = Everflame::agent_in(Some(&cgroup.0), port, 97, &spool, &["--memory", &memory]);
    let _large = Target::start(&hostile, &["60", large.to_str().unwrap()]);
    let storm = Target::start(&soak, &["storm", "500", "/bin/true"]);
    let work = Target::start(&truth, &["12", "1"]);
    let (mut most, begin) = (0, Instant::now());
    while begin.elapsed() < Duration::from_secs(15) {
        most = most.max(agent.memory());
        std::thread::sleep(Duration::from_millis(250));
    }
    work.truth();
    drop(storm);
    assert!(agent.alive(), "the agent ended: {}", agent.log());
    let text = agent.api().get("/metrics", &[]).1;
    let starts = figure(&text, "tracker_worker_starts");
    println!(
        "memory at most {:.1} MiB; the cgroup's peak {:.1} of {} MiB; {} failures to charge; {starts} workers; {} tables of {} bytes, {} bad",
        most as f64 / f64::from(1 << 20),
        cgroup.number("memory.max_usage_in_bytes") as f64 / f64::from(1 << 20),
        AROUND >> 20,
        cgroup.number("memory.failcnt"),
        figure(&text, "tracker_tables"),
        figure(&text, "tracker_table_bytes"),
        figure(&text, "tracker_tables_bad"),
    );
    assert!(most <= LIMIT, "{most} bytes of {LIMIT}");
    assert_eq!(cgroup.killed(), 0, "nothing in the cgroup was killed for memory");
    agent.stop();
    let instances = server.api().accounting();
    assert_eq!(residual(&instances[0]), 0, "{instances:?}");
    assert_eq!(sum(&instances[0]["dropped"]), 0, "{instances:?}");
    let graph = server.api().graph("{process=\"truth_cpp\"}");
    let whole = graph.count(|path| path.has_chain(&["main", "descend"]));
    assert!(whole * 100 >= graph.samples * 90 && whole > 200, "{whole} whole stacks of {}", graph.samples);
    server.stop();
    Ok(())
}

/// A figure of the agent's metrics.
fn figure(text: &str, name: &str) -> f64 {
    let name = format!("everflame_agent_{name} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(-1.0)
}

/// The largest library that is certainly here: the compiler's own, a million rows.
fn large_library() -> Result<PathBuf, Skip> {
    let skip = || Skip("needs rustc's library librustc_driver (a toolchain of rustup)".into());
    let sysroot = finish(Command::new("rustc").args(["--print", "sysroot"]));
    let folder = Path::new(String::from_utf8_lossy(&sysroot.stdout).trim()).join("lib");
    let files = std::fs::read_dir(folder).map_err(|_| skip())?.flatten();
    let is_it = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("librustc_driver");
    files.map(|entry| entry.path()).find(|path| path.file_name().is_some_and(is_it)).ok_or_else(skip)
}

/// A memory cgroup (version 1, as here) of a limited size.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(bytes: u64) -> Result<Self, Skip> {
        let path = Path::new("/sys/fs/cgroup/memory").join(format!("everflame-test-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|e| Skip(format!("needs a memory cgroup (version 1) to make: {e}")))?;
        let cgroup = Self(path);
        std::fs::write(cgroup.0.join("memory.limit_in_bytes"), bytes.to_string()).unwrap();
        Ok(cgroup)
    }

    fn number(&self, file: &str) -> u64 {
        std::fs::read_to_string(self.0.join(file)).unwrap().trim().parse().unwrap()
    }

    fn killed(&self) -> u64 {
        let text = output(Command::new("cat").arg(self.0.join("memory.oom_control")));
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")).expect("a count of kills").parse().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

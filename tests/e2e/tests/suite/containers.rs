//! The agent in a container of least privilege, and samplers that meet.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use everflame_tests::api::{residual, sum};
use everflame_tests::container::{Container, Network};
use everflame_tests::everflame::command;
use everflame_tests::machine::{finish, free_port, need_program, need_root, wait_for};
use everflame_tests::target::built;
use everflame_tests::{Everflame, Outcome, Target};

const PINNED: &str = "/sys/fs/bpf/everflame";
const NOBODY: u32 = 65534;

/// With a spool and bpffs, as root.
pub fn root_with_six_capabilities() -> Outcome {
    let spool = tempfile::tempdir().unwrap();
    let mounts = [("/spool", spool.path()), ("/sys/fs/bpf", Path::new("/sys/fs/bpf"))];
    let log = profiles_the_host(Container { mounts: &mounts, network: Network::Host, ..Container::default() })?;
    // Others may sample this machine.
    let missing = log.lines().find(|line| line.contains(" WARN ") && !line.contains("samples this machine too"));
    assert_eq!(missing, None, "nothing is missing");
    Ok(())
}

/// With nothing that could be written, as nobody.
pub fn nobody_with_six_capabilities() -> Outcome {
    let log = profiles_the_host(Container { user: NOBODY, network: Network::Host, ..Container::default() })?;
    assert!(log.contains("batches are kept in memory"), "{log}");
    assert!(log.contains("symbol indexes cannot be queued in /spool"), "{log}");
    assert!(log.contains("counters will not outlive this process"), "{log}");
    Ok(())
}

/// Runs the agent in a container until it has named what ran before it; says what it logged.
pub fn profiles_the_host(container: Container<'_>) -> Result<String, everflame_tests::Skip> {
    need_root()?;
    need_program("runc")?;
    let truth = built("truth_cpp")?;
    let data = tempfile::tempdir().unwrap();
    let port = free_port();
    let server = Everflame::server(port, data.path());
    let endpoint = format!("http://127.0.0.1:{port}");
    let arguments = ["agent", "--endpoint", &endpoint, "--listen", "127.0.0.1:0", "--rate", "199", "--spool", "/spool"];
    let bundle = container.bundle(&arguments);
    let log = data.path().join("agent.log");
    // It runs before the agent does.
    let program = data.path().join("in_view");
    std::fs::copy(truth, &program).unwrap();
    let target = Target::start(&program, &["6", "1"]);
    let mut agent = bundle.command();
    agent.stdin(std::process::Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
    let mut agent = agent.spawn().unwrap();
    let query = "{process=\"in_view\"}";
    wait_for("names of what is profiled", Duration::from_secs(90), || {
        (server.api().graph(query).count(|path| path.has_chain(&["main", "descend"])) > 0).then_some(())
    });
    target.truth();
    everflame_tests::machine::signal(agent.id(), "TERM");
    let status = wait_for("the end of the container", Duration::from_secs(60), || agent.try_wait().unwrap());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(status.success(), "{status}:\n{log}");
    let graph = server.api().graph(query);
    let whole = graph.count(|path| path.has_chain(&["main", "descend"]) && !path.marked());
    assert!(graph.samples >= 300, "{} samples:\n{log}", graph.samples);
    assert!(
        whole * 10 >= graph.samples * 9,
        "{whole} of {} are whole:\n{}",
        graph.samples,
        graph.heaviest(|p| p.marked())
    );
    assert!(server.api().graph("").count(|path| path.has("do_syscall_64")) > 0, "the kernel has names");
    let instances = server.api().accounting();
    assert_eq!(instances.len(), 1, "{instances:?}");
    assert_eq!((residual(&instances[0]), sum(&instances[0]["in_flight"])), (0, 0), "{}", instances[0]);
    server.stop();
    Ok(log)
}

/// Two samplers, one of them in a container with a network of its own: each goes on and says
/// that the other is there.
pub fn samplers_that_meet() -> Outcome {
    need_root()?;
    need_program("runc")?;
    let up = Everflame::up(19);
    let spool = tempfile::tempdir().unwrap();
    let port = up.api().address().rsplit(':').next().unwrap().parse().unwrap();
    let mut agent = Everflame::agent(port, 19, spool.path());
    let others = |agent: &Everflame| {
        let metrics = agent.api().get("/metrics", &[]).1;
        let line = metrics.lines().find_map(|line| line.strip_prefix("everflame_agent_other_samplers "));
        line.expect("the metric").to_owned()
    };
    let says = |log: String, pid: u32| log.contains(&format!("(process {pid}) samples this machine too"));
    assert_ne!(others(&agent), "0");
    assert!(says(agent.log(), up.pid()), "{}", agent.log());
    wait_for("what `up` says", Duration::from_secs(20), || says(up.log(), agent.pid()).then_some(()));
    // In a container with nothing of the host but its processes.
    let doctor = finish(&mut Container::default().bundle(&["doctor"]).command());
    let text = String::from_utf8_lossy(&doctor.stdout);
    let line = text.lines().find(|line| line.contains("other-samplers")).unwrap_or_else(|| panic!("{text}"));
    assert!(line.starts_with("warn") && line.contains(&up.pid().to_string()), "{line}");
    assert!(doctor.status.success() && text.contains("the seccomp filter lets them through"), "{text}");
    // One spool has one agent.
    let spool = spool.path().to_str().unwrap();
    let endpoint = up.api().url();
    let second = finish(&mut command(&[
        "agent",
        "--endpoint",
        endpoint,
        "--listen",
        "127.0.0.1:0",
        "--spool",
        spool,
        "--duration",
        "20",
    ]));
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.lines().last().is_some_and(|l| l.contains("in use by another agent: give each its own")), "{said}");
    assert!(agent.alive());
    let gone = up.pid();
    up.stop();
    let text = finish(&mut command(&["doctor"])).stdout;
    let text = String::from_utf8_lossy(&text);
    assert!(
        !text.contains(&format!("(process {gone})")) && text.contains(&format!("(process {})", agent.pid())),
        "{text}"
    );
    Ok(())
}

/// What a killed agent pinned stays for the next one on its spool, and no longer than that.
pub fn pins_without_a_spool() -> Outcome {
    need_root()?;
    if !Path::new("/proc/mounts").is_file()
        || finish(Command::new("mountpoint").arg("/sys/fs/bpf")).status.code() != Some(0)
    {
        return Err(everflame_tests::Skip("needs bpffs (scripts/setup.sh run)".into()));
    }
    let data = tempfile::tempdir().unwrap();
    let port = free_port();
    let server = Everflame::server(port, data.path());
    let spools = ["kept", "gone", "third"].map(|name| data.path().join(name));
    let instance = |spool: &Path| -> String {
        let mut names = std::fs::read_dir(spool.join("instances")).unwrap();
        names.next().expect("an instance").unwrap().file_name().into_string().unwrap()
    };
    let pinned = |name: &str| {
        let there = |name: &str| std::fs::symlink_metadata(Path::new(PINNED).join(name)).is_ok();
        (there(name), there(&format!("{name}-owner")))
    };
    let agents = [0, 1].map(|n| Everflame::agent(port, 19, &spools[n]));
    let [kept, gone] = [0, 1].map(|n| instance(&spools[n]));
    for agent in agents {
        agent.kill_9();
    }
    std::fs::remove_dir_all(&spools[1]).unwrap();
    assert_eq!((pinned(&kept), pinned(&gone)), ((true, true), (true, true)));
    let third = Everflame::agent(port, 19, &spools[2]);
    let own = instance(&spools[2]);
    assert_eq!(pinned(&gone), (false, false), "nobody will take it over:\n{}", third.log());
    assert_eq!((pinned(&kept), pinned(&own)), ((true, true), (true, true)), "these have a spool");
    assert!(third.log().contains("accounts of dead agents without a spool"), "{}", third.log());
    // One that lives is left alone.
    let fourth = Everflame::agent(port, 19, &spools[0]);
    assert_eq!(pinned(&own), (true, true));
    fourth.stop();
    third.stop();
    assert_eq!((pinned(&kept), pinned(&own)), ((false, false), (false, false)), "all are accounted for");
    server.stop();
    Ok(())
}

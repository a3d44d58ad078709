//! Every sample is stored, dropped for a reason, or in flight at a named stage: checked
//! against the kernel's own count of how often the program ran.

use std::path::Path;
use std::time::Duration;

use everflame_tests::api::{number, residual, sum};
use everflame_tests::kernel::RunCounts;
use everflame_tests::machine::{free_port, need_program, need_root, wait_for};
use everflame_tests::target::built;
use everflame_tests::{Api, Everflame, Outcome, Target};
use serde_json::Value;

pub fn taken_is_the_kernels_run_count() -> Outcome {
    need_root()?;
    need_program("bpftool")?;
    let (storm, truth) = (built("storm")?, built("truth_cpp")?);
    let scene = Scene::new();
    let server = scene.server();
    let mut counts = RunCounts::enable();
    let agent = scene.agent();
    let program = sampler(&mut counts, &agent);
    let targets = [Target::start(&storm, &["300"]), Target::start(&truth, &["4"])];
    let _ = targets.map(Target::truth);
    agent.stop();
    let instances = server.api().accounting();
    assert_eq!(instances.len(), 1, "{instances:?}");
    conserved(&instances[0]);
    assert_eq!(number(&instances[0]["taken"]) as u64, RunCounts::of(program), "taken against the kernel's count");
    assert!(number(&instances[0]["stored"]) > 100);
    assert_eq!(sum(&instances[0]["dropped"]), 0, "{}", instances[0]);
    server.stop();
    Ok(())
}

pub fn outages_and_kills() -> Outcome {
    need_root()?;
    need_program("bpftool")?;
    let truth = built("truth_cpp")?;
    let scene = Scene::new();
    let mut counts = RunCounts::enable();
    let load = [0, 1].map(|_| Target::start(&truth, &["45"]));

    let server = scene.server();
    let agent = scene.agent();
    let first = sampler(&mut counts, &agent);
    server.api().wait_for_samples("{process=\"truth_cpp\"}", 100);
    let since = std::time::Instant::now();
    // Twice stopped and started in good order…
    let mut server = server;
    for _ in 0..2 {
        server.stop();
        std::thread::sleep(Duration::from_secs(3));
        server = scene.server();
        wait_for_report(server.api());
    }
    // …then killed in the middle of its work…
    server.kill_9();
    std::thread::sleep(Duration::from_secs(2));
    let server = scene.server();
    wait_for_report(server.api());
    // …then the agent.
    agent.kill_9();
    std::thread::sleep(Duration::from_secs(1));
    let agent = scene.agent();
    let second = sampler(&mut counts, &agent);
    wait_for("reports of two instances", Duration::from_secs(60), || {
        (server.api().accounting().len() == 2).then_some(())
    });
    std::thread::sleep(Duration::from_secs(5));
    let lasted = since.elapsed();
    agent.stop();
    drop(load);

    let instances = server.api().accounting();
    assert_eq!(instances.len(), 2, "{instances:?}");
    let mut taken: Vec<i64> = Vec::new();
    for instance in &instances {
        println!("conservation after {lasted:?}: {instance}");
        conserved(instance);
        taken.push(number(&instance["taken"]));
    }
    // The successor has told what its killed predecessor had counted.
    taken.sort_unstable();
    let mut runs = vec![RunCounts::of(first) as i64, RunCounts::of(second) as i64];
    runs.sort_unstable();
    assert_eq!(taken, runs, "taken against the kernel's counts");
    // Accounting and queries see the same samples.
    let stored: i64 = instances.iter().map(|instance| number(&instance["stored"])).sum();
    assert_eq!(server.api().samples("") as i64, stored, "what is stored can be queried");
    server.stop();
    Ok(())
}

pub fn another_bpf_program_busy() -> Outcome {
    need_root()?;
    need_program("bpftool")?;
    let (busy, truth) = (built("bpf_busy")?, built("truth_cpp")?);
    let scene = Scene::new();
    let server = scene.server();
    let mut counts = RunCounts::enable();
    let agent = scene.agent();
    let program = sampler(&mut counts, &agent);
    let targets = [Target::start(&busy, &["6"]), Target::start(&truth, &["6"])];
    let updates = targets.map(Target::truth)[0]["updates"].clone();
    agent.stop();
    let instances = server.api().accounting();
    conserved(&instances[0]);
    assert_eq!(number(&instances[0]["taken"]) as u64, RunCounts::of(program), "taken against the kernel's count");
    // The kernel skips every other BPF program on a CPU that is inside a map system call.
    let missed = &instances[0]["missed"];
    println!("beside {updates} map updates: {} ticks taken, missed {missed}", instances[0]["taken"]);
    assert!(
        number(&missed["sure"]) + number(&missed["perhaps_idle"]) > 0,
        "no missed ticks are reported: {}",
        instances[0]
    );
    assert!(number(&missed["sure"]) > 0, "a busy CPU's missed ticks are sure: {}", instances[0]);
    server.stop();
    Ok(())
}

/// A place for a server that comes and goes and an agent with a spool.
struct Scene {
    folder: tempfile::TempDir,
    port: u16,
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), port: free_port() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn server(&self) -> Everflame {
        Everflame::server(self.port, &self.path("data"))
    }

    fn agent(&self) -> Everflame {
        let spool: &Path = &self.path("spool");
        Everflame::agent(self.port, 97, spool)
    }
}

/// The agent's program, kept so that its count can be read once the agent has gone.
fn sampler(counts: &mut RunCounts, agent: &Everflame) -> u64 {
    let program =
        wait_for("the agent's program", Duration::from_secs(30), || RunCounts::samplers(agent.pid()).first().copied());
    counts.keep(program);
    program
}

/// Nothing is unaccounted for, and nothing is on its way any more.
fn conserved(instance: &Value) {
    assert_eq!(residual(instance), 0, "taken - idle - stored - in flight - dropped of {instance}");
    assert_eq!(sum(&instance["in_flight"]), 0, "still in flight: {instance}");
    assert_eq!(
        number(&instance["complete"]) + sum(&instance["incomplete"]),
        number(&instance["stored"]),
        "complete and incomplete add up to stored: {instance}"
    );
}

/// Waits until the agent has reported anew, and checks that the account is whole in the
/// middle of the work as well.
fn wait_for_report(api: &Api) {
    let reported = |api: &Api| api.try_json("/api/v1/nodes").map(|nodes| nodes["nodes"][0]["last_seen"].to_string());
    let before = reported(api);
    wait_for("a new report", Duration::from_secs(90), || (reported(api) != before).then_some(()));
    for instance in api.accounting() {
        assert_eq!(residual(&instance), 0, "in the middle of the work: {instance}");
    }
}

//! A guest with containers as a node of Kubernetes has them: control groups of version 2 alone,
//! in the slices that the kubelet's systemd driver makes, Debian's runc, and AppArmor. The agent
//! is in the container that its manifest describes, once under a profile like the one that
//! runtimes give where nothing is said, once under none, as the manifest says.

use std::path::Path;
use std::process::Command;

use everflame_tests::api::{number, residual, sum};
use everflame_tests::container::{Container, Network};
use everflame_tests::everflame::binary;
use everflame_tests::{Skip, machine, target};
use serde_json::{Value, json};

use super::archive::Archive;
use super::guest::Told;
use super::machine::Machine;

/// To the kernel and to the guest's first process.
pub const WORDS: &str = "apparmor=1 security=apparmor PLAY=containers";
/// What the guest tells.
pub const TELLS: [&str; 8] = [
    "paranoid",
    "refused",
    "default",
    "free",
    "processes",
    "accounting",
    "containers_of_in_default",
    "containers_of_in_free",
];

/// Debian's, all of one release: what runs in the guest fits together, whatever the host is.
const PACKAGES: [&str; 5] = ["apparmor", "busybox-static", "libc6", "libseccomp2", "runc"];
/// Where the guest has them, and where the packages do.
const FILES: [(&str, &str); 6] = [
    ("bin/busybox", "bin/busybox"),
    ("bin/runc", "usr/sbin/runc"),
    ("bin/apparmor_parser", "sbin/apparmor_parser"),
    ("lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
    ("lib/x86_64-linux-gnu/libc.so.6", "lib/x86_64-linux-gnu/libc.so.6"),
    ("lib/x86_64-linux-gnu/libseccomp.so.2", "usr/lib/x86_64-linux-gnu/libseccomp.so.2"),
];
const FOLDERS: [&str; 15] = [
    "dev",
    "proc",
    "sys",
    "tmp",
    "run",
    "etc",
    "bin",
    "lib",
    "lib/x86_64-linux-gnu",
    "lib64",
    "bundles",
    "agent",
    "pod",
    "spool",
    "agent/spool",
];
/// The profile of those that have one.
const PROFILE: &str = "container-default";
const PROFILE_TEXT: &str = include_str!("../../container-default.profile");
/// Digits of the containers' ids.
const POD_IDS: [(&str, char); 2] = [("in_default", 'd'), ("in_free", 'f')];

/// The guest's file system.
pub fn file_system(machine: &Machine) -> Result<Archive, Skip> {
    let packages = packages()?;
    let mut archive = Archive::default();
    FOLDERS.iter().for_each(|path| archive.directory(path));
    for root in ["agent", "pod"] {
        ["dev", "proc", "sys"].iter().for_each(|path| archive.directory(&format!("{root}/{path}")));
    }
    archive.console();
    archive.program("init", &machine.guest()?);
    FILES.iter().for_each(|(path, from)| archive.program(path, &packages.join(from)));
    archive.file("etc/container-default", PROFILE_TEXT.as_bytes());
    archive.program("agent/everflame", &binary());
    let program = target::built_for(machine.name, "truth_musl")?;
    ["on_host", "in_default", "in_free"].iter().for_each(|name| archive.program(&format!("pod/{name}"), &program));
    for (name, configuration) in bundles() {
        archive.directory(&format!("bundles/{name}"));
        archive.file(&format!("bundles/{name}/config.json"), configuration.to_string().as_bytes());
    }
    Ok(archive)
}

fn packages() -> Result<std::path::PathBuf, Skip> {
    let folder = machine::cache().join("guest");
    let mut script = Command::new(machine::repository().join("tests/kernels/cross.sh"));
    let output = machine::finish(script.arg(&folder).arg("amd64").args(PACKAGES));
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(folder),
        Some(77) => Err(Skip(said)),
        _ => panic!("cross.sh ended with {}: {said}", output.status),
    }
}

fn id(digit: char) -> String {
    std::iter::repeat_n(digit, 64).collect()
}

/// All containers.
fn bundles() -> Vec<(String, Value)> {
    let mut bundles = Vec::new();
    for ((agent, profile), digit) in [("default", Some(PROFILE)), ("free", None)].into_iter().zip(['1', '2']) {
        let mounts = [("/spool", Path::new("/spool")), ("/sys/fs/bpf", Path::new("/sys/fs/bpf"))];
        let container = Container { mounts: &mounts, network: Network::Host, ..Container::default() };
        let endpoint = "http://127.0.0.1:4040";
        let arguments =
            ["agent", "--endpoint", endpoint, "--listen", "127.0.0.1:0", "--rate", "49", "--spool", "/spool"];
        let arguments = [&arguments[..], &["--duration", "25", "--node", agent]].concat();
        for (what, arguments) in [("agent", &arguments[..]), ("doctor", &["doctor", "--output", "json"])] {
            let mut configuration = container.configuration(arguments);
            configuration["root"]["path"] = "/agent".into();
            place(&mut configuration, profile, &id(digit));
            bundles.push((format!("{what}_{agent}"), configuration));
        }
    }
    for ((program, digit), profile) in POD_IDS.into_iter().zip([Some(PROFILE), None]) {
        let mut configuration =
            Container { capabilities: &[], host_processes: false, ..Container::default() }.configuration(&[]);
        configuration["root"]["path"] = "/pod".into();
        configuration["process"]["args"] = json!([format!("/{program}"), "600"]);
        place(&mut configuration, profile, &id(digit));
        bundles.push((program.to_owned(), configuration));
    }
    bundles
}

/// Puts a container under a profile, into a pod's slice, and into a namespace of control groups
/// of its own, as runtimes do where there is version 2 alone.
fn place(configuration: &mut Value, profile: Option<&str>, id: &str) {
    if let Some(profile) = profile {
        configuration["process"]["apparmorProfile"] = profile.into();
    }
    let pod = format!("kubepods-burstable-pod2c48913c_b29f_11e7_9350_{}", &id[..12]);
    let path = format!("/kubepods.slice/kubepods-burstable.slice/{pod}.slice/cri-containerd-{id}.scope");
    configuration["linux"]["cgroupsPath"] = path.into();
    configuration["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
}

/// Whether what was told is right.
pub fn judge(told: &Told) {
    let (paranoid, refused) = (check(&told["paranoid"], "perf-events"), told["refused"].as_str().unwrap());
    assert_eq!(paranoid["status"], "fail", "{paranoid}");
    for said in [paranoid["remedy"].as_str().unwrap(), refused] {
        assert!(said.contains("sysctl -w kernel.perf_event_paranoid=2"), "{said}");
    }
    let confined = check(&told["default"]["doctor"], "apparmor");
    let (found, remedy) = (confined["found"].as_str().unwrap(), confined["remedy"].as_str().unwrap());
    assert_eq!(confined["status"], "warn", "{confined}");
    assert!(found.contains(PROFILE) && found.contains("read other processes"), "{confined}");
    assert!(remedy.contains("appArmorProfile: {type: Unconfined}"), "{confined}");
    let log = told["default"]["log"].as_str().unwrap();
    assert!(log.contains(found) && log.contains(remedy), "{log}");
    let free = told["free"]["doctor"].as_array().unwrap();
    let faults: Vec<&Value> = free.iter().filter(|check| check["status"] != "ok").collect();
    assert!(faults.is_empty(), "as the manifest has it: {faults:?}");

    let processes = told["processes"]["processes"].as_array().unwrap();
    let whole = |node: &str, name: &str| {
        let found = processes.iter().find(|p| p["node"] == node && p["process"] == name);
        let found = found.unwrap_or_else(|| panic!("no {name} on {node}: {processes:?}"));
        let counts = ["complete", "samples"].map(|count| number(&found[count]));
        println!("{node}: {} of {} samples of {name} are whole", counts[0], counts[1]);
        let id = POD_IDS.iter().find(|(pod, _)| *pod == name).map(|(_, digit)| id(*digit));
        assert_eq!(found["container"], id.unwrap_or_default(), "{name} on {node}");
        assert!(counts[1] >= 100, "{name} on {node}: {found}");
        counts
    };
    for name in ["on_host", "in_default", "in_free"] {
        let [[confined, _], [free, all]] = ["default", "free"].map(|node| whole(node, name));
        // Those under the same profile may be read.
        assert!(confined == 0 || name == "in_default", "the profile forbids to read {name}");
        // Tables of the first moments are not there yet: they are slow to make here.
        assert!(free * 2 > all, "{name}: {free} of {all} are whole");
    }
    for (pod, digit) in POD_IDS {
        let series = told[&format!("containers_of_{pod}")]["series"].as_array().unwrap();
        let ids: Vec<&Value> = series.iter().map(|one| &one["value"]).collect();
        assert_eq!(ids, [id(digit).as_str()], "container ids of every sample of {pod}");
    }
    for instance in told["accounting"]["instances"].as_array().unwrap() {
        println!("{instance}");
        assert_eq!((residual(instance), sum(&instance["in_flight"])), (0, 0), "{instance}");
    }
}

/// What doctor says of a matter.
fn check<'a>(doctor: &'a Value, name: &str) -> &'a Value {
    let checks = doctor.as_array().unwrap();
    checks.iter().find(|check| check["check"] == name).unwrap_or_else(|| panic!("no {name} in {checks:?}"))
}

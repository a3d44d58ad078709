//! The tracker on real processes: what it publishes against what `nm` and the processes
//! themselves say. Needs root and a C compiler.
#![allow(clippy::unwrap_used)] // its helpers are tests too

mod harness;
mod huge;

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use everflame_agent::{
    bpf::monotonic_ns,
    executables::open::{self, OpenError},
    processes::{
        TrackerOptions,
        records::{FileId, NewMapping},
    },
};
use harness::{OBEDIENT, Obedient, Tracking, compile, is_root, nm, wait_for};

const LIBRARY: &str = "int in_library(int x) { return x * 3; }\n";

/// The worker: see `Tracking::with`.
#[test]
fn worker_process() {
    if std::env::var_os("EVERFLAME_TEST_WORKER").is_some() {
        everflame_agent::worker::main();
    }
}

#[test]
fn finds_who_was_there_before() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let file = compile(temp.path(), "early", OBEDIENT, &["-ldl"]);
    let process = Obedient::start(Command::new(&file).env("OTEL_SERVICE_NAME", "cart").env("SECRET", "x"));
    let tracking = Tracking::start();
    let number = tracking.expect(process.pid, process.marker, &file, "marker", "early");
    let who = tracking.who(process.pid);
    assert_eq!((&*who.name, &*who.path, &*who.service), ("early", file.to_str().unwrap(), "cart"));
    assert_eq!(&*tracking.who(2).name, "kthreadd");
    wait_for("its symbols", || {
        let indexes = tracking.lists.indexes.lock().unwrap();
        let content = tracking.handle.executable(number).unwrap().content_id.unwrap();
        indexes.iter().any(|i| i.content_id == content && &*i.name == "early" && !i.bytes.is_empty())
    });
    let vdso = tracking.lists.mappings.lock().unwrap()[&process.pid]
        .clone()
        .into_iter()
        .find(|e| tracking.handle.executable(e.executable).is_some_and(|m| &*m.name == "[vdso]"));
    assert_eq!(vdso.expect("the vDSO is an executable").bias % 4096, 0);
}

#[test]
fn follows_exec_fork_dlopen_and_exit() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let first = compile(temp.path(), "first", OBEDIENT, &["-ldl"]);
    let second = compile(temp.path(), "second", OBEDIENT, &["-ldl", "-no-pie"]);
    let third = compile(temp.path(), "third", OBEDIENT, &["-static-pie", "-Wl,-z,noseparate-code", "-w"]);
    let library = compile(temp.path(), "library.so", LIBRARY, &["-shared", "-fPIC"]);
    let tracking = Tracking::start();

    let mut process = Obedient::start(&mut Command::new(&first));
    let number = tracking.expect(process.pid, process.marker, &first, "marker", "first");
    let born = monotonic_ns();

    let function = process.say(&format!("dlopen {} in_library", library.display()));
    tracking.expect(process.pid, function, &library, "in_library", "library.so");

    let anon = process.say("anon");
    wait_for("anonymous code", || tracking.entry(process.pid, anon).is_some_and(|e| e.executable == 1 && e.bias == 0));

    let child = process.fork();
    assert_eq!(tracking.expect(child, process.marker, &first, "marker", "first"), number);
    tracking.expect(child, function, &library, "in_library", "library.so");
    assert_eq!(&*tracking.who(child).name, "first");
    assert_ne!(tracking.who(child).generation, tracking.who(process.pid).generation);

    for (file, name) in [(&second, "second"), (&third, "third")] {
        process.exec(file);
        tracking.expect(process.pid, process.marker, file, "marker", name);
        wait_for("its name", || &*tracking.who(process.pid).name == name);
        assert!(tracking.entry(process.pid, function).is_none(), "the old image's library is gone");
    }
    let then = tracking.handle.process(process.pid, born, "nobody");
    assert_eq!(&*then.name, "first", "late samples of the old image keep its name");

    let pid = process.pid;
    drop(process);
    wait_for("the end", || !tracking.lists.mappings.lock().unwrap().contains_key(&pid));
    assert_eq!(&*tracking.who(pid).name, "third", "late samples of the dead keep their name");
    assert_eq!(&*tracking.handle.process(u32::MAX, 0, "comm").name, "comm");
}

#[test]
fn deleted_files_are_read_and_their_successors_are_not() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let file = compile(temp.path(), "deleted", OBEDIENT, &["-ldl"]);
    let copy = temp.path().join("copy");
    std::fs::copy(&file, &copy).unwrap();
    let early = Obedient::start(&mut Command::new(&file));
    std::fs::remove_file(&file).unwrap();
    // A stranger at the same path.
    compile(temp.path(), "deleted", &OBEDIENT.replace("marker(int", "stranger(int"), &["-Dmarker=stranger", "-ldl"]);
    let tracking = Tracking::start();
    tracking.expect(early.pid, early.marker, &copy, "marker", "deleted");
    wait_for("its name", || &*tracking.who(early.pid).name == "deleted");
    let late = Obedient::start(&mut Command::new(&file));
    std::fs::remove_file(&file).unwrap();
    let stranger = tracking.entry(early.pid, early.marker).unwrap().executable;
    wait_for("the stranger", || tracking.entry(late.pid, late.marker).is_some_and(|e| e.executable != stranger));
}

#[test]
fn same_content_is_one_executable() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let one = compile(temp.path(), "same", OBEDIENT, &["-ldl"]);
    let other = temp.path().join("other");
    std::fs::copy(&one, &other).unwrap();
    let tracking = Tracking::start();
    let first = Obedient::start(&mut Command::new(&one));
    let number = tracking.expect(first.pid, first.marker, &one, "marker", "same");
    let second = Obedient::start(&mut Command::new(&other));
    assert_eq!(tracking.expect(second.pid, second.marker, &one, "marker", "same"), number);
}

#[test]
fn tables_are_kept_for_the_next_start() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let file = compile(temp.path(), "kept", OBEDIENT, &["-ldl"]);
    let program = Obedient::start(&mut Command::new(&file));
    let mut tables = Vec::new();
    for start in 0..2 {
        let options = TrackerOptions { table_cache: Some(temp.path().join("tables")), ..TrackerOptions::default() };
        let tracking = Tracking::with(options);
        let number = tracking.expect(program.pid, program.marker, &file, "marker", "kept");
        tables.push(tracking.lists.tables.lock().unwrap()[&number].clone());
        let from_disk = tracking.handle.stats().tables_from_disk;
        assert_eq!(from_disk > 0, start > 0, "{from_disk} tables from disk at start {start}");
    }
    assert_eq!(tables[0], tables[1]);
}

#[test]
fn a_huge_file_keeps_nobody_waiting() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let huge = temp.path().join("huge");
    huge::write(&huge, 1_500_000, 160 << 20);
    let file = compile(temp.path(), "other", OBEDIENT, &["-ldl"]);
    // Before the huge table is begun, which takes no longer than this compiler.
    let other = compile(temp.path(), "small", &format!("{OBEDIENT}int unlike_the_first;"), &["-ldl"]);
    let tracking = Tracking::start();
    let mut first = Obedient::start(&mut Command::new(&file));
    let inside = first.say(&format!("map {}", huge.display()));
    wait_for("the huge file", || tracking.entry(first.pid, inside).is_some());
    let number = tracking.entry(first.pid, inside).unwrap().executable;
    let second = Obedient::start(&mut Command::new(&other));
    tracking.expect(second.pid, second.marker, &other, "marker", "small");
    let has_huge = || tracking.lists.tables.lock().unwrap().contains_key(&number);
    assert!(!has_huge(), "what came later was there first");
    wait_for("the huge table", has_huge);
    let rows = tracking.lists.tables.lock().unwrap()[&number].len();
    assert!(rows > 1 << 20, "a table of {rows} bytes is not what this test needs");
}

#[test]
fn other_mount_namespaces_and_roots() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let file = compile(temp.path(), "inside", OBEDIENT, &["-static", "-w"]);
    let hidden = temp.path().join("hidden");
    std::fs::create_dir(&hidden).unwrap();
    let script = format!(
        "mount -t tmpfs none {dir} && cp {file} {dir}/there && exec {dir}/there",
        dir = hidden.display(),
        file = file.display()
    );
    let tracking = Tracking::start();
    let mounted = Obedient::start(Command::new("unshare").args(["-m", "sh", "-c", &script]));
    tracking.expect(mounted.pid, mounted.marker, &file, "marker", "there");
    assert!(!hidden.join("there").try_exists().unwrap(), "the file is in the other namespace only");
    let rooted = Obedient::start(Command::new("chroot").args([temp.path().to_str().unwrap(), "/inside"]));
    tracking.expect(rooted.pid, rooted.marker, &file, "marker", "there");
    wait_for("its name", || &*tracking.who(rooted.pid).name == "inside");
}

#[test]
fn garbage_is_memory_of_no_file() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let file = compile(temp.path(), "garbage", OBEDIENT, &["-ldl"]);
    let whole = std::fs::read(&file).unwrap();
    let mut hostile = vec![("noise".to_owned(), b"\x7fELF\x02\x01\x01".repeat(2000)), ("empty".to_owned(), vec![])];
    for cut in [20, 64, 100, 5000, whole.len() - 900] {
        hostile.push((format!("cut{cut}"), whole[..cut].to_vec()));
    }
    for at in [0x20, 0x28, 0x34, 0x38, 0x3c, 0x3e] {
        let mut broken = whole.clone();
        broken[at..at + 4].fill(0xff);
        hostile.push((format!("broken{at}\\012\u{1b}[31m"), broken));
    }
    let tracking = Tracking::start();
    let mut process = Obedient::start(&mut Command::new(&file));
    for (name, bytes) in &hostile {
        let path = temp.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let address = process.say(&format!("map {}", path.display()));
        wait_for(&format!("an answer on {name}"), || tracking.entry(process.pid, address).is_some());
    }
    let address = process.say(&format!("map {}", temp.path().join("noise").display()));
    wait_for("an answer", || tracking.entry(process.pid, address).is_some_and(|e| e.executable == 1));
    tracking.expect(process.pid, process.marker, &file, "marker", "garbage");
    assert!(tracking.handle.stats().files_bad > 0);
}

#[test]
fn fifos_and_strangers_are_never_opened() {
    let temp = tempfile::tempdir().unwrap();
    let fifo = temp.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let metadata = std::fs::metadata(&fifo).unwrap();
    let device = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    let mut mapping = NewMapping {
        start: 4096,
        end: 8192,
        offset: 0,
        file: FileId { device, inode: metadata.ino() },
        inode_generation: 0,
        name: fifo.to_str().unwrap().as_bytes().into(),
    };
    let own = std::process::id();
    assert!(matches!(open::find(own, 0, &mapping), Err(OpenError::NotRegular)), "and it did not wait for a writer");
    let plain = temp.path().join("plain");
    std::fs::write(&plain, "x").unwrap();
    mapping.name = plain.to_str().unwrap().as_bytes().into();
    assert!(matches!(open::find(own, 0, &mapping), Err(OpenError::Gone)), "another inode is another file");
    mapping.file.inode = std::fs::metadata(&plain).unwrap().ino();
    assert_eq!(open::find(own, 0, &mapping).unwrap().stamp.size, 1);
    mapping.name = b"/proc/self/exe"[..].into();
    assert!(matches!(open::find(own, 0, &mapping), Err(OpenError::Gone)), "magic links are not followed");
}

#[test]
fn a_full_table_refuses_and_says_so() {
    if !is_root() {
        return;
    }
    let tracking = Tracking::with(TrackerOptions { max_processes: 3, ..Default::default() });
    wait_for("a refusal", || tracking.handle.stats().processes_refused > 0);
    let children: Vec<_> = (0..5).map(|_| Command::new("sleep").arg("60").spawn().unwrap()).collect();
    wait_for("more refusals", || tracking.handle.stats().processes_refused > 5);
    assert!(tracking.handle.stats().processes <= 3);
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn who_is_idle_makes_room_and_comes_back_when_a_sample_asks() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let file = compile(temp.path(), "late", OBEDIENT, &["-ldl"]);
    let there = || {
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|e| e.path().join("stat").try_exists().unwrap_or(false))
            .count()
    };
    let tracking = Tracking::with(TrackerOptions { max_processes: there() + 20, ..Default::default() });
    let mut children: Vec<_> = (0..150).map(|_| Command::new("sleep").arg("90").spawn().unwrap()).collect();
    wait_for("refusals", || tracking.handle.stats().processes_refused > 0);
    // None that has just come makes room.
    std::thread::sleep(Duration::from_secs(12));
    // Other tests' processes come and go; these are more than there is room for.
    wait_for("room to be made", || {
        children.iter().for_each(|child| tracking.handle.note_unknown_mapping(child.id()));
        tracking.handle.stats().processes_evicted > 0
    });
    let process = Obedient::start(&mut Command::new(&file));
    wait_for("its mappings", || {
        tracking.handle.note_unknown_mapping(process.pid);
        tracking.entry(process.pid, process.marker).is_some()
    });
    let is_known = |pid: u32| tracking.lists.mappings.lock().unwrap().contains_key(&pid);
    let forgotten =
        children.iter().map(std::process::Child::id).find(|pid| !is_known(*pid)).expect("not all have room");
    wait_for("it to come back", || {
        tracking.handle.note_unknown_mapping(forgotten);
        is_known(forgotten)
    });
    wait_for("its name", || &*tracking.who(forgotten).name == "sleep");
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn no_room_in_the_kernel_is_made_up_for_later() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let file = compile(temp.path(), "roomless", OBEDIENT, &["-ldl"]);
    let tracking = Tracking::start();
    tracking.lists.full.store(true, Ordering::Release);
    let process = Obedient::start(&mut Command::new(&file));
    wait_for("a refusal", || {
        let stats = tracking.handle.stats();
        stats.mappings_no_room > 0 && stats.tables_refused > 0
    });
    tracking.lists.full.store(false, Ordering::Release);
    let until = Instant::now() + Duration::from_secs(20);
    while tracking.entry(process.pid, process.marker).is_none() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    // Samples name it, so its table comes back.
    let number = tracking.entry(process.pid, process.marker).expect("it is handed over again").executable;
    wait_for("its table", || {
        tracking.handle.touch(number);
        tracking.lists.tables.lock().unwrap().contains_key(&number)
    });
}

#[test]
fn lost_records_are_made_up_for() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let file = compile(temp.path(), "storm", OBEDIENT, &["-ldl"]);
    let mut before = Obedient::start(&mut Command::new(&file));
    let tracking = Tracking::start();
    let scans = tracking.handle.stats().scans;
    tracking.lists.stalled.store(true, Ordering::Release);
    for _ in 0..20 {
        let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do for j in 1 2 3 4; do /bin/true; done; done";
        assert!(Command::new("sh").args(["-c", script]).status().unwrap().success());
    }
    let late = Obedient::start(&mut Command::new(&file));
    let child = before.fork();
    tracking.lists.stalled.store(false, Ordering::Release);
    wait_for("another look at /proc", || tracking.handle.stats().scans > scans);
    assert!(tracking.handle.stats().records_lost > 0);
    tracking.expect(late.pid, late.marker, &file, "marker", "storm");
    tracking.expect(child, before.marker, &file, "marker", "storm");
    wait_for("its name", || &*tracking.who(late.pid).name == "storm");
}

#[test]
fn a_pid_that_is_used_again_is_somebody_else() {
    if !is_root() {
        return;
    }
    let tracking = Tracking::start();
    let mut first = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
    let pid = first.id();
    wait_for("sleep", || &*tracking.who(pid).name == "sleep");
    let then = monotonic_ns();
    first.kill().unwrap();
    first.wait().unwrap();
    // Ask for the pid again, now and then in vain: others start processes too.
    for _ in 0..200 {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let mut again = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let same = again.id() == pid;
        if same {
            wait_for("cat", || &*tracking.who(pid).name == "cat");
            assert_eq!(&*tracking.handle.process(pid, then, "").name, "sleep");
            assert!(tracking.who(pid).generation > tracking.handle.process(pid, then, "").generation);
        }
        again.kill().unwrap();
        again.wait().unwrap();
        if same {
            return;
        }
    }
    panic!("the pid was never to be had");
}

#[test]
fn a_mapping_that_nobody_told_of_is_found_when_a_sample_hits_it() {
    if !is_root() {
        return;
    }
    let tracking = Tracking::start();
    let rereads = tracking.handle.stats().rereads;
    let own = std::process::id();
    tracking.handle.note_unknown_mapping(own);
    wait_for("a second look", || tracking.handle.stats().rereads > rereads);
    for _ in 0..50 {
        tracking.handle.note_unknown_mapping(own);
        std::thread::sleep(Duration::from_millis(2));
    }
    wait_for("a refusal", || tracking.handle.stats().rereads_refused > 0);
    assert!(tracking.handle.stats().rereads <= rereads + 3, "none is read again all the time");
}

#[test]
fn the_test_finds_symbols() {
    let temp = tempfile::tempdir().unwrap();
    let file = compile(temp.path(), "symbols", OBEDIENT, &["-ldl", "-no-pie"]);
    assert!(nm(Path::new(&file), "marker") >= 0x40_0000);
}

/// What it costs to follow processes is, first of all, how often the tracker wakes up.
#[test]
fn a_storm_of_processes_is_looked_at_a_few_times_a_second() {
    if !is_root() {
        return;
    }
    let tracking = Tracking::start();
    wait_for("all that run to be read", || tracking.handle.ready());
    let (before, begin) = (tracking.handle.stats(), Instant::now());
    let mut started = 0;
    while begin.elapsed() < Duration::from_secs(3) {
        assert!(Command::new("/bin/true").stdin(Stdio::null()).status().unwrap().success());
        started += 1;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let after = tracking.handle.stats();
    let answers = after.answers - before.answers;
    let turns = (after.turns - before.turns).saturating_sub(answers) as f64 / seconds;
    let records = after.records - before.records;
    eprintln!("{started} processes, {records} records, {answers} answers, {turns:.1} other turns a second");
    assert!(records > 3 * started, "fork, exec, mappings and exit of each");
    // One in 120 ms; whatever else the machine starts is in the same storm.
    assert!(turns < 15.0, "{turns} turns a second");
}

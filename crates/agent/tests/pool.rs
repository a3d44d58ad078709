//! The pool of mappings in the real kernel maps: ten thousand processes in bounded memory,
//! forks for nothing, no room as an answer, and a walk that notices when its run was given
//! to others. Needs root.
#![allow(clippy::unwrap_used)] // its helpers are tests too

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use everflame_agent::{
    bpf::{
        abi, monotonic_ns,
        pool::MappingPool,
        programs::{ProgramOptions, Programs},
    },
    processes::sink::{MappingEntry, MappingSink, TableSink},
    sample::RawSample,
};
use everflame_profile::Completeness;
use libbpf_rs::{MapCore, MapFlags, MapHandle};

/// Bytes of a chunk and pids that no process has.
const CHUNK: u64 = abi::MAPPING_CHUNK as u64 * 24;
const FIRST: u32 = 10_000_000;

fn load(mapping_bytes: u64) -> Option<(Programs, MappingPool)> {
    let options = ProgramOptions { only_wanted: true, mapping_bytes, ..ProgramOptions::default() };
    match Programs::load(&options) {
        Ok(programs) => {
            let pool = programs.mapping_pool().unwrap();
            Some((programs, pool))
        }
        Err(e) => {
            eprintln!("SKIPPED: the pool of mappings: {e}");
            None
        }
    }
}

/// `count` mappings that no other process has.
fn mappings(process: u32, count: u32) -> Vec<MappingEntry> {
    let entry = |n: u32| MappingEntry {
        start: (u64::from(process) << 20) + u64::from(n) * 0x10_0000_0000,
        pages: 16 + n,
        executable: 8 + (process * 7 + n) % 3000,
        bias: u64::from(process) << 12,
    };
    (0..count).map(entry).collect()
}

/// What the kernel's maps hold of a process, read by system calls.
fn in_kernel(programs: &Programs, pid: u32) -> Option<Vec<MappingEntry>> {
    let value = programs.map("processes").unwrap().lookup(&pid.to_le_bytes(), MapFlags::ANY).unwrap()?;
    let process = abi::Process::from_bytes(&value).unwrap();
    let outer = programs.map("mapping_chunks").unwrap();
    let id = outer.lookup(&process.chunk.to_le_bytes(), MapFlags::ANY).unwrap().expect("a chunk");
    let chunk = MapHandle::from_map_id(u32::from_le_bytes(id[..4].try_into().unwrap())).unwrap();
    let element = |at: u32| chunk.lookup(&at.to_le_bytes(), MapFlags::ANY).unwrap().expect("an element");
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(word(&element(process.first - 1), 0), u64::from(process.generation), "the head is the run's");
    let entry = |at| {
        let bytes = element(at);
        let last = word(&bytes, 16);
        MappingEntry {
            start: word(&bytes, 0),
            bias: word(&bytes, 8),
            pages: last as u32,
            executable: (last >> 32) as u32,
        }
    };
    Some((process.first..process.first + process.count).map(entry).collect())
}

#[test]
fn ten_thousand_processes_of_a_hundred_mappings_and_forks_for_nothing() {
    let Some((programs, mut pool)) = load(32 << 20) else { return };
    let now = monotonic_ns();
    let begin = Instant::now();
    for process in 0..10_000 {
        pool.set(FIRST + process, &mappings(process, 100), now).unwrap();
    }
    println!("10,000 processes of 100 mappings: {:?} each", begin.elapsed() / 10_000);
    let full = pool.usage();
    println!("{full:?}");
    // 162 runs of 101 elements fit into a chunk.
    assert_eq!((full.runs, full.elements), (10_000, 1_010_000));
    assert_eq!(full.bytes, 10_000u64.div_ceil(162) * CHUNK, "{} MiB", full.bytes >> 20);
    assert!(full.bytes < 24 << 20);
    for process in [0, 1, 161, 162, 4_999, 9_999] {
        assert_eq!(in_kernel(&programs, FIRST + process), Some(mappings(process, 100)), "process {process}");
    }
    for fork in 0..20_000 {
        pool.set(FIRST + 10_000 + fork, &mappings(fork % 10, 100), now).unwrap();
    }
    assert_eq!(pool.usage(), full, "forks take no room");
    for process in 0..10 {
        assert_eq!(pool.remove(FIRST + process), 0, "its forks have its run");
    }
    assert_eq!(in_kernel(&programs, FIRST + 10_007), Some(mappings(7, 100)));
    assert_eq!(pool.remove(FIRST + 10), 101);
    assert_eq!(in_kernel(&programs, FIRST + 10), None);
    // A process that changes leaves its forks as they were.
    pool.set(FIRST + 10_000, &mappings(77_777, 100), now).unwrap();
    assert_eq!(in_kernel(&programs, FIRST + 10_010), Some(mappings(0, 100)));
}

#[test]
fn a_full_pool_refuses_and_has_room_again_after_a_moment() {
    let Some((programs, mut pool)) = load(3 * CHUNK) else { return };
    let now = monotonic_ns();
    let fits = (0u32..).find(|process| pool.set(FIRST + process, &mappings(*process, 1000), now).is_err()).unwrap();
    assert_eq!(fits, 3 * (abi::MAPPING_CHUNK / 1001));
    assert_eq!(pool.usage().bytes, 3 * CHUNK, "it has grown as far as it may");
    assert_eq!(in_kernel(&programs, FIRST + fits), None, "who was refused has no entry");
    for process in 0..10 {
        assert_eq!(pool.remove(FIRST + process), 1001);
    }
    assert!(pool.set(FIRST + fits, &mappings(fits, 1000), now).is_err(), "a walk may still read what was freed");
    assert_eq!(pool.usage().rests, 10_010);
    std::thread::sleep(Duration::from_millis(2_100));
    for process in fits..fits + 10 {
        pool.set(FIRST + process, &mappings(process, 1000), now).unwrap();
        assert_eq!(in_kernel(&programs, FIRST + process), Some(mappings(process, 1000)));
    }
    assert!(pool.set(FIRST, &mappings(0, 1000), now).is_err());
}

#[test]
fn a_full_table_of_processes_refuses_and_leaks_no_run() {
    let Some((programs, mut pool)) = load(CHUNK) else { return };
    let now = monotonic_ns();
    let limit = programs.map("processes").unwrap().max_entries();
    let fits = (0..40_000).find(|n| pool.set(FIRST + n, &mappings(1, 100), now).is_err()).unwrap();
    // Others' execs put entries in as well, and their ends take them out.
    assert!((limit * 9 / 10..=limit).contains(&fits), "{fits} of {limit}");
    assert!(pool.set(FIRST + fits + 1, &mappings(2, 100), now).is_err());
    assert_eq!(pool.usage().elements, 101, "the run of who was refused is given back");
    for n in 0..100 {
        pool.remove(FIRST + n);
    }
    pool.set(FIRST + fits, &mappings(2, 100), now).unwrap();
}

/// A memory cgroup of our own.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(bytes: u64) -> Option<Self> {
        let path = Path::new("/sys/fs/cgroup/memory").join(format!("everflame-pool-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let cgroup = Self(path);
        fs::write(cgroup.0.join("memory.limit_in_bytes"), bytes.to_string()).ok()?;
        Some(cgroup)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The other half of [`no_memory_for_a_chunk_is_an_answer`].
#[test]
fn in_a_small_cgroup() {
    if std::env::var_os("EVERFLAME_TEST_CGROUP").is_none() {
        return;
    }
    let Some((programs, mut pool)) = load(96 << 20) else { return };
    let now = monotonic_ns();
    let fits = (0u32..100_000).find(|n| pool.set(FIRST + n, &mappings(*n, 1000), now).is_err());
    let (fits, usage) = (fits.expect("the cgroup is full at last"), pool.usage());
    println!("{fits} processes of 1,000 mappings in {} MiB", usage.bytes >> 20);
    assert!(usage.bytes > 4 << 20 && usage.bytes < 48 << 20, "{usage:?}");
    assert_eq!(in_kernel(&programs, FIRST + fits - 1), Some(mappings(fits - 1, 1000)));
    pool.remove(FIRST);
    std::thread::sleep(Duration::from_millis(2_100));
    pool.set(FIRST + fits, &mappings(fits, 1000), now).unwrap();
    println!("lived");
}

#[test]
fn no_memory_for_a_chunk_is_an_answer() {
    let Some(cgroup) = Cgroup::new(48 << 20) else {
        return eprintln!("SKIPPED: no_memory_for_a_chunk_is_an_answer: no memory cgroup (version 1) to make");
    };
    let script = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", cgroup.0.display());
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["in_a_small_cgroup", "--exact", "--nocapture", "--test-threads=1"])
        .env("EVERFLAME_TEST_CGROUP", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let skipped = String::from_utf8_lossy(&output.stderr).contains("SKIPPED");
    assert!(output.status.success() && (skipped || said.contains("lived")), "{output:?}");
    println!("{said}");
}

/// A fork that burns the CPU in a function of its own until its input ends.
const FORKING: &str = r#"
#include <stdio.h>
#include <unistd.h>
#include <signal.h>
__attribute__((noinline)) long burn(long n) { volatile long x = n; for (long i = 0; i < 100000; i++) x += i ^ x; return x; }
int main(int argc, char **argv) {
    getchar();
    int child = fork();
    if (!child) for (long s = argc;; ) s += burn(s);
    printf("%d\n", child); fflush(stdout);
    getchar();
    kill(child, 9);
    return 0;
}
"#;

/// A fork of which user space hears nothing has its parent's run, and that is given to others:
/// its stacks must say so, rather than be read by what others have mapped.
#[test]
fn a_walk_notices_that_its_run_is_others() {
    let Some((programs, mut pool)) = load(CHUNK) else { return };
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("forking");
    let mut cc = Command::new("cc")
        .args(["-O1", "-static", "-no-pie", "-w", "-x", "c", "-", "-o"])
        .arg(&program)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    cc.stdin.take().unwrap().write_all(FORKING.as_bytes()).unwrap();
    assert!(cc.wait().unwrap().success());
    let mut parent = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut tables = programs.table_space().unwrap();
    let elf = fs::read(&program).unwrap();
    tables.publish(8, everflame_unwind::convert(&elf, &Default::default()).unwrap().bytes()).unwrap();
    // A run that takes more than half of the only chunk, so that its place is used again.
    let own = MappingEntry { start: 0x40_0000, pages: 0x200, executable: 8, bias: 0 };
    let run = |own: MappingEntry| {
        let others = |n: u64| MappingEntry { start: (n + 1) << 32, pages: 1, executable: 9, bias: 0 };
        std::iter::once(own).chain((0..4_000).map(others)).collect::<Vec<_>>()
    };
    programs.want(parent.id()).unwrap();
    pool.set(parent.id(), &run(own), monotonic_ns()).unwrap();
    let (mut input, mut output) = (parent.stdin.take().unwrap(), BufReader::new(parent.stdout.take().unwrap()));
    writeln!(input).unwrap();
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let child: u32 = line.trim().parse().unwrap();

    let mut ring = programs.ring_reader().unwrap();
    let clock = programs.start_clock(997, &programs.counters().unwrap()).unwrap();
    let mut look = || {
        let _ = ring.drain();
        let begin = Instant::now();
        let mut samples: Vec<RawSample> = Vec::new();
        while begin.elapsed() < Duration::from_millis(700) {
            ring.wait(Duration::from_millis(100), None);
            samples.extend(ring.drain().into_iter().filter(|s| s.pid == child));
        }
        assert!(samples.len() > 50, "{} samples of a busy child", samples.len());
        samples
    };
    let is_complete = |s: &RawSample| s.completeness == Completeness::Complete;
    assert!(look().iter().all(is_complete), "the kernel copied the parent's entry");
    pool.remove(parent.id());
    assert!(look().iter().all(is_complete), "what was freed stays as it was for a while");
    std::thread::sleep(Duration::from_millis(1_500));
    // Other processes take all the room that there is, with other code at the same addresses.
    for stranger in 0..5 {
        let _ = pool.set(FIRST + stranger, &run(MappingEntry { executable: 4242 + stranger, ..own }), monotonic_ns());
    }
    let after = look();
    let strange = |s: &&RawSample| s.completeness != Completeness::TableChanged;
    let wrong: Vec<_> = after.iter().filter(strange).collect();
    assert!(wrong.is_empty(), "{} of {} by others' mappings: {:x?}", wrong.len(), after.len(), wrong.first());
    assert!(after.iter().all(|s| s.stack.user.is_empty()), "and no frame is made up");
    drop(clock);
    drop(input);
    parent.wait().unwrap();
}

//! The kernel programs on a real process, with mappings and tables put in by hand: whole
//! stacks of code without frame pointers, and an exact account. Needs root.

use std::{
    fs,
    io::Write,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use everflame_agent::{
    bpf::{
        monotonic_ns,
        programs::{ProgramOptions, Programs},
    },
    processes::sink::{MappingEntry, MappingSink, TableSink},
    sample::{FIRST_EXECUTABLE, Place, RawSample, UserFrame},
};
use everflame_profile::Completeness;

const SOURCE: &str = r#"
__attribute__((noinline)) long burn(long n) { volatile long x = n; for (long i = 0; i < 100000; i++) x += i ^ x; return x; }
__attribute__((noinline)) long down(int depth) {
    if (depth == 0) { long sum = 0; for (;;) sum += burn(sum); }
    long x = down(depth - 1);
    __asm__ volatile("" : "+r"(x));
    return x + depth;
}
int main(int argc, char **argv) { return down(40 + argc) & 1; }
"#;

struct Target(Child);

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The bias of a mapping, by the ELF program header of its segment.
fn bias(elf: &[u8], start: u64, offset: u64) -> u64 {
    let word = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().expect("8 bytes"));
    let half = |at: usize| u16::from_le_bytes(elf[at..at + 2].try_into().expect("2 bytes"));
    for i in 0..half(56) as usize {
        let header = word(32) as usize + i * half(54) as usize;
        let (kind, flags) = (word(header) as u32, (word(header) >> 32) as u32);
        let (file_offset, address, size) = (word(header + 8), word(header + 16), word(header + 32));
        if kind == 1 && flags & 1 == 1 && offset <= file_offset + size && file_offset & !4095 <= offset {
            return start.wrapping_sub(offset).wrapping_sub(address.wrapping_sub(file_offset));
        }
    }
    panic!("no executable segment at {offset:x}");
}

#[test]
fn whole_stacks_without_frame_pointers_and_an_exact_account() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("target");
    let mut cc = Command::new("cc")
        .args(["-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-x", "c", "-", "-o"])
        .arg(&program)
        .stdin(Stdio::piped())
        .spawn()
        .expect("cc runs");
    cc.stdin.take().expect("a pipe").write_all(SOURCE.as_bytes()).expect("written");
    assert!(cc.wait().expect("cc ends").success());
    let target = Target(Command::new(&program).spawn().expect("it runs"));
    let pid = target.0.id();
    std::thread::sleep(Duration::from_millis(100));

    let options = ProgramOptions { only_wanted: true, ..ProgramOptions::default() };
    let programs = match Programs::load(&options) {
        Ok(programs) => programs,
        Err(e) => return eprintln!("SKIPPED: whole_stacks_without_frame_pointers: {e}"),
    };
    let mut pool = programs.mapping_pool().expect("a pool");
    let mut tables = programs.table_space().expect("a space");
    let mut entries = Vec::new();
    let mut files: Vec<String> = Vec::new();
    let as_of = monotonic_ns();
    for line in fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [range, flags, offset, _, _, path] = words[..] else { continue };
        if !flags.contains('x') || !path.starts_with('/') {
            continue;
        }
        let (start, end) = range.split_once('-').expect("a range");
        let number = |hex| u64::from_str_radix(hex, 16).expect("hex");
        let elf = fs::read(path).expect("the file");
        let executable = FIRST_EXECUTABLE
            + files.iter().position(|f| f == path).unwrap_or_else(|| {
                let table = everflame_unwind::convert(&elf, &Default::default()).expect("a table");
                tables.publish(FIRST_EXECUTABLE + files.len() as u32, table.bytes()).expect("room");
                files.push(path.to_owned());
                files.len() - 1
            }) as u32;
        let start = number(start);
        let pages = ((number(end) - start) / 4096) as u32;
        entries.push(MappingEntry { start, pages, executable, bias: bias(&elf, start, number(offset)) });
    }
    pool.set(pid, &entries, as_of).expect("room");
    programs.want(pid).expect("wanted");

    let counters = programs.counters().expect("counters");
    let mut ring = programs.ring_reader().expect("a ring");
    let clock = programs.start_clock(997, &counters).expect("a clock");
    let begin = Instant::now();
    let mut samples = Vec::new();
    // Others may want the CPU as well.
    while samples.len() <= 500 && begin.elapsed() < Duration::from_secs(30) {
        ring.wait(Duration::from_millis(200), None);
        samples.extend(ring.drain());
    }
    drop(clock);
    samples.extend(ring.drain());

    let sums = counters.sums();
    assert_eq!(sums.taken, sums.idle + sums.ring + sums.ring_full, "{sums:?}");
    assert_eq!(sums.ring, samples.len() as u64, "every record of the ring was read");
    assert!(samples.len() > 500, "{} samples in 30 s of a busy process at 997 Hz", samples.len());
    assert_eq!(ring.broken(), 0);
    // burn, 42 times down, main, _start are the target's own frames; libc's are between.
    let own = |f: &&UserFrame| matches!(f.place(), Place::File { executable: FIRST_EXECUTABLE, .. });
    let is_whole = |s: &&RawSample| s.pid == pid && s.stack.user.iter().filter(own).count() >= 43;
    let cut: Vec<_> = samples.iter().filter(|s| !is_whole(s)).collect();
    assert!(cut.is_empty(), "{} of {} stacks are not whole: {:x?}", cut.len(), samples.len(), cut.first());
    let complete = samples.iter().filter(|s| s.completeness == Completeness::Complete).count();
    assert_eq!(complete, samples.len(), "and says so");
    assert!(samples.iter().all(|s| s.period > 900_000 && s.period < 1_200_000));
    eprintln!("{} samples, {:?} ns each at most {} ns", samples.len(), sums.run_ns / sums.ring, sums.max_ns);
}

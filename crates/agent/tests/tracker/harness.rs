//! A tracker with lists instead of the kernel's maps, and programs to follow.

use std::{
    collections::{HashMap, HashSet},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use everflame_agent::{
    bpf::{
        abi,
        host::{TableView, Tables},
        monotonic_ns,
    },
    executables::SymbolIndex,
    identity::ProcessIdentity,
    memory::Share,
    processes::{
        Handle, Tracker, TrackerOptions,
        sink::{MappingEntry, MappingSink, NoRoom, TableSink},
    },
    worker::client::WorkerCommand,
};

/// Nothing here takes long; a loaded machine may.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `what` says yes.
pub fn wait_for(name: &str, mut what: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !what() {
        assert!(Instant::now() < until, "{name} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a test that needs root can run; says so where it cannot.
pub fn is_root() -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    if !root {
        eprintln!("SKIPPED: this test needs root");
    }
    root
}

#[derive(Default)]
pub struct Lists {
    pub mappings: Mutex<HashMap<u32, Vec<MappingEntry>>>,
    pub tables: Mutex<HashMap<u32, Vec<u8>>>,
    /// Executables that were said to have none.
    pub without: Mutex<HashSet<u32>>,
    pub indexes: Mutex<Vec<SymbolIndex>>,
    /// While it is set, the sink of mappings does not answer.
    pub stalled: AtomicBool,
    /// While it is set, nothing has room.
    pub full: AtomicBool,
}

struct Sink(Arc<Lists>);

impl MappingSink for Sink {
    fn set(&mut self, pid: u32, entries: &[MappingEntry], _as_of: u64) -> Result<(), NoRoom> {
        while self.0.stalled.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(entries.windows(2).all(|w| w[0].start + u64::from(w[0].pages) * 4096 <= w[1].start), "sorted, apart");
        if self.0.full.load(Ordering::Acquire) {
            return Err(NoRoom);
        }
        self.0.mappings.lock().unwrap().insert(pid, entries.to_vec());
        Ok(())
    }

    fn remove(&mut self, pid: u32) -> u32 {
        self.0.mappings.lock().unwrap().remove(&pid).map_or(0, |entries| entries.len() as u32)
    }
}

impl TableSink for Sink {
    fn publish(&mut self, executable: u32, table: &[u8]) -> Result<(), NoRoom> {
        if self.0.full.load(Ordering::Acquire) {
            return Err(NoRoom);
        }
        self.0.tables.lock().unwrap().insert(executable, table.to_vec());
        Ok(())
    }

    fn withdraw(&mut self, executable: u32) {
        self.0.tables.lock().unwrap().remove(&executable);
    }

    fn never(&mut self, executable: u32) {
        self.withdraw(executable);
        self.0.without.lock().unwrap().insert(executable);
    }

    fn look(&self, with: &mut dyn FnMut(&TableView<'_>)) {
        let mut tables = Tables::default();
        for (executable, table) in self.0.tables.lock().unwrap().iter() {
            tables.add(*executable, table);
        }
        for executable in self.0.without.lock().unwrap().iter() {
            tables.set_place(*executable, abi::TABLE_NEVER);
        }
        with(&tables.view());
    }
}

/// A running tracker and what it published.
pub struct Tracking {
    pub handle: Handle,
    pub lists: Arc<Lists>,
}

impl Drop for Tracking {
    fn drop(&mut self) {
        self.lists.stalled.store(false, Ordering::Release);
        self.handle.stop();
    }
}

impl Tracking {
    pub fn start() -> Self {
        Self::with(TrackerOptions::default())
    }

    /// With a worker that is this test program again: see `worker_process`.
    pub fn with(mut options: TrackerOptions) -> Self {
        let lists = Arc::new(Lists::default());
        options.worker = WorkerCommand {
            program: std::env::current_exe().unwrap(),
            arguments: ["worker_process", "--exact", "--test-threads=1"].map(Into::into).to_vec(),
            environment: vec![("EVERFLAME_TEST_WORKER".into(), "1".into())],
            memory: None,
            share: Share::Quick,
        };
        let taker = Arc::clone(&lists);
        options.indexes = Some(Box::new(move |index| taker.indexes.lock().unwrap().push(index)));
        let handle =
            Tracker::start(options, Box::new(Sink(Arc::clone(&lists))), Box::new(Sink(Arc::clone(&lists)))).unwrap();
        let tracking = Self { handle, lists };
        wait_for("ready", || tracking.handle.ready());
        tracking
    }

    /// The published mapping of a process that holds an address.
    pub fn entry(&self, pid: u32, address: u64) -> Option<MappingEntry> {
        let mappings = self.lists.mappings.lock().unwrap();
        let holds = |e: &&MappingEntry| (e.start..e.start + u64::from(e.pages) * 4096).contains(&address);
        mappings.get(&pid)?.iter().find(holds).copied()
    }

    /// Waits until an address of a process is where `nm` says that the symbol is, in a file of
    /// that name, with an unwind table. Gives the executable number.
    pub fn expect(&self, pid: u32, address: u64, file: &Path, symbol: &str, name: &str) -> u32 {
        let vaddr = nm(file, symbol);
        let mut found = None;
        wait_for(&format!("a mapping of {symbol} in process {pid}"), || {
            found = self.entry(pid, address);
            found.is_some_and(|e| self.lists.tables.lock().unwrap().contains_key(&e.executable))
        });
        let entry = found.unwrap();
        assert_eq!(address.wrapping_sub(entry.bias), vaddr, "{symbol}: {entry:x?}");
        let mapping = self.handle.executable(entry.executable).unwrap();
        assert_eq!(&*mapping.name, name);
        assert!(mapping.content_id.is_some());
        entry.executable
    }

    /// Who a process is now.
    pub fn who(&self, pid: u32) -> Arc<ProcessIdentity> {
        self.handle.process(pid, monotonic_ns(), "nobody")
    }
}

/// The address of a symbol in a file.
pub fn nm(file: &Path, symbol: &str) -> u64 {
    let output = Command::new("nm").arg(file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|l| l.ends_with(&format!(" T {symbol}"))).unwrap();
    u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
}

/// Compiles C source into `directory/name`.
pub fn compile(directory: &Path, name: &str, source: &str, arguments: &[&str]) -> PathBuf {
    let (source_file, output) = (directory.join(format!("{name}.c")), directory.join(name));
    std::fs::write(&source_file, source).unwrap();
    let status =
        Command::new("cc").args(["-O1", "-o"]).arg(&output).arg(&source_file).args(arguments).status().unwrap();
    assert!(status.success());
    output
}

/// A program that says where its function is and then obeys lines on its standard input:
/// `dlopen FILE SYMBOL`, `map FILE`, `anon`, `fork`, `exec FILE`.
pub const OBEDIENT: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
int marker(int x) { __asm__ volatile(""); return x + 1; }
int main(int argc, char **argv) {
    char line[4096], a[2048], b[2048];
    setvbuf(stdin, 0, _IONBF, 0);
    printf("%d %p\n", getpid(), (void *)marker);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "dlopen %s %s", a, b) == 2) {
            void *h = dlopen(a, RTLD_NOW);
            printf("%p\n", h ? dlsym(h, b) : 0);
        } else if (sscanf(line, "map %s", a) == 1) {
            int fd = open(a, O_RDONLY);
            printf("%p\n", mmap(0, 8192, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0));
        } else if (!strncmp(line, "anon", 4)) {
            printf("%p\n", mmap(0, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        } else if (!strncmp(line, "fork", 4)) {
            int pid = fork();
            if (!pid) { pause(); _exit(0); }
            printf("%d\n", pid);
        } else if (sscanf(line, "exec %s", a) == 1) {
            execl(a, a, (char *)0);
        }
        fflush(stdout);
    }
    return argc ^ argc;
}
"#;

/// A running obedient program.
pub struct Obedient {
    pub child: Child,
    pub pid: u32,
    pub marker: u64,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    forked: Vec<u32>,
}

impl Drop for Obedient {
    fn drop(&mut self) {
        for pid in self.forked.iter().chain([&self.pid]) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        let _ = self.child.wait();
    }
}

impl Obedient {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut obedient = Self { pid: child.id(), child, marker: 0, input, output, forked: Vec::new() };
        obedient.introduce();
        obedient
    }

    fn introduce(&mut self) {
        let line = self.line();
        self.marker = hex(line.split(' ').nth(1).unwrap());
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Says a line and gives the address that is answered.
    pub fn say(&mut self, line: &str) -> u64 {
        writeln!(self.input, "{line}").unwrap();
        let address = hex(&self.line());
        assert!(address != 0 && address != u64::MAX, "{line}");
        address
    }

    pub fn fork(&mut self) -> u32 {
        writeln!(self.input, "fork").unwrap();
        let pid = self.line().parse().unwrap();
        self.forked.push(pid);
        pid
    }

    pub fn exec(&mut self, file: &Path) {
        writeln!(self.input, "exec {}", file.display()).unwrap();
        self.introduce();
    }
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

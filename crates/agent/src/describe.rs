//! Who and what a sample is about, from the agent's own tables: processes, executables,
//! kernel symbols.

use std::{
    cell::{Cell, RefCell},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    thread::{self, JoinHandle},
};

use everflame_profile::{Frame, FrameKind, Line, Mapping, Str};
use everflame_symbols::kallsyms::KernelSymbols;
use rustc_hash::FxHashMap;

use crate::{
    identity::{Describe, ProcessIdentity},
    processes::Handle,
    sample::{ExecutableNumber, RawSample},
    who::{Births, Cgroup, Location, Who},
};

/// Kernel addresses whose frames are kept; when there are more, all are made anew.
const FRAMES_LIMIT: usize = 16_384;

/// Processes of which the control group's birth tells more than they do, at most; when there are
/// more, all are put together anew.
const MAX_BORN: usize = 4096;

/// Process by pid and control group: as the tracker knows it, and as it was born.
type Born = FxHashMap<(u32, u64), (Arc<ProcessIdentity>, Arc<ProcessIdentity>)>;

/// The agent's answers.
#[derive(Debug)]
pub struct Describer {
    tracker: Handle,
    births: RefCell<Births>,
    born: RefCell<Born>,
    who: Who,
    symbols: RefCell<Option<KernelSymbols>>,
    reading: RefCell<Option<JoinHandle<Result<KernelSymbols, String>>>>,
    modules: Cell<u64>,
    frames: RefCell<FxHashMap<u64, Frame>>,
}

impl Describer {
    /// Begins to read the kernel's symbols.
    pub fn new(tracker: Handle) -> Self {
        let describer = Self {
            tracker,
            births: RefCell::default(),
            born: RefCell::default(),
            who: Who::default(),
            symbols: RefCell::default(),
            reading: RefCell::default(),
            modules: Cell::new(u64::MAX),
            frames: RefCell::default(),
        };
        describer.refresh();
        describer
    }

    /// Locations are named by `who` from now on.
    pub fn name_by(&mut self, who: Who) {
        self.who = who;
    }

    /// A control group was made.
    pub fn born(&self, id: u64, path: &str) {
        self.births.borrow_mut().born(id, path);
    }

    /// Reads them again if modules came or went. That takes a tenth of a second of another
    /// thread's time; who needs a name waits for it.
    pub fn refresh(&self) {
        let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        // Without the reference counts, which change all the time.
        modules.lines().filter_map(|line| line.split(' ').next()).for_each(|name| name.hash(&mut hasher));
        if self.modules.replace(hasher.finish()) == hasher.finish() {
            return;
        }
        let read = move || {
            let text = fs::read_to_string("/proc/kallsyms").map_err(|e| e.to_string())?;
            KernelSymbols::parse(&text, Some(&modules)).map_err(|e| e.to_string())
        };
        match thread::Builder::new().name("kernel-symbols".into()).spawn(read) {
            Ok(reading) => *self.reading.borrow_mut() = Some(reading),
            Err(e) => tracing::warn!("kernel frames stay addresses: {e}"),
        }
        self.frames.borrow_mut().clear();
    }

    /// Takes the symbols that are being read.
    fn take_symbols(&self) {
        let Some(reading) = self.reading.borrow_mut().take() else { return };
        match reading.join() {
            Ok(Ok(symbols)) => *self.symbols.borrow_mut() = Some(symbols),
            Ok(Err(e)) => tracing::warn!("kernel frames stay addresses: {e}"),
            Err(_) => tracing::error!("the thread that reads the kernel's symbols panicked"),
        }
    }

    fn name_kernel_frame(&self, address: u64) -> Frame {
        self.take_symbols();
        let kind = FrameKind(Arc::from(FrameKind::KERNEL));
        let symbols = self.symbols.borrow();
        let Some(symbol) = symbols.as_ref().and_then(|s| s.resolve(address)) else {
            let name: Str = Arc::from("vmlinux");
            let mapping = Some(Arc::new(Mapping { name, build_id: Arc::from(""), content_id: None }));
            return Frame { kind, mapping, address, lines: Vec::new() };
        };
        let mapping = Mapping { name: Arc::from(symbol.module), build_id: Arc::from(""), content_id: None };
        let line = Line { function: Arc::from(symbol.name), file: Arc::from(""), line: 0 };
        // The name says it all; where this kernel's code lies is nobody's business.
        Frame { kind, mapping: Some(Arc::new(mapping)), address: 0, lines: vec![line] }
    }
}

impl Describe for Describer {
    fn process(&self, sample: &RawSample, comm: &str) -> Arc<ProcessIdentity> {
        let process = self.tracker.process(sample.pid, sample.time, comm);
        let (cgroup, located) = self.births.borrow_mut().of_sample(sample.cgroup, &process.cgroup, process.located);
        if cgroup == process.cgroup && located == process.located {
            return process;
        }
        // One for all its samples, and not one for each.
        let mut born = self.born.borrow_mut();
        let key = (sample.pid, sample.cgroup);
        if let Some((_, made)) = born.get(&key).filter(|(of, made)| *of == process && made.cgroup == cgroup) {
            return Arc::clone(made);
        }
        if born.len() >= MAX_BORN {
            born.clear();
        }
        let made = Arc::new(ProcessIdentity { cgroup, located, ..(*process).clone() });
        born.insert(key, (process, Arc::clone(&made)));
        made
    }

    fn location(&self, cgroup: &Cgroup) -> Arc<Location> {
        self.who.location(cgroup)
    }

    fn executable(&self, number: ExecutableNumber) -> Option<Arc<Mapping>> {
        self.tracker.executable(number)
    }

    fn kernel_frame(&self, address: u64) -> Frame {
        if let Some(frame) = self.frames.borrow().get(&address) {
            return frame.clone();
        }
        let frame = self.name_kernel_frame(address);
        let mut frames = self.frames.borrow_mut();
        if frames.len() >= FRAMES_LIMIT {
            frames.clear();
        }
        frames.insert(address, frame.clone());
        frame
    }
}

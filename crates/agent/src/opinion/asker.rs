//! The thread that asks for second opinions: it hands the worker what it needs, compares,
//! and counts. Samples never wait for it.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use everflame_profile::{Completeness, ContentId, Mapping, Str};

use super::{
    compare::{Verdict, compare},
    files,
    message::{End, MAX_MODULES, Module, Question, Reply},
    tally::Tally,
};
use crate::{
    bpf::abi,
    processes::{Handle, patience::Patience},
    sample::{ExecutableNumber, FIRST_EXECUTABLE, Place, RawSample, RawStack, UserFrame, UserStack},
    sys,
    worker::{
        client::{Worker, WorkerError},
        protocol::{Request, Wish},
    },
};

/// Stacks that wait to be looked at; further ones are refused and counted.
pub const MAX_WAITING: usize = 64;
/// A worker that nobody asks for so long ends, and its memory goes back.
const REST_AFTER: Duration = Duration::from_secs(10);
/// Different files on one stack, at most: fewer than the worker keeps.
const MAX_FILES: usize = 32;
/// Files that cannot be used are left alone; so many are remembered.
const MAX_BAD: usize = 256;
/// Frames around a disagreement that are logged.
const SHOWN: usize = 3;

/// A stack that the sampler walked and copied.
#[derive(Debug, Clone)]
pub struct Case {
    /// Whose it is.
    pub pid: u32,
    /// When it was taken (CLOCK_MONOTONIC, nanoseconds).
    pub time: u64,
    /// What the sampler made of it.
    pub stack: Arc<RawStack>,
    /// How that ended.
    pub completeness: Completeness,
    /// What it was made of.
    pub copy: Arc<UserStack>,
}

impl Case {
    /// A sample that carries what it was made of, unless the kernel knew too little for a walk.
    pub fn of(sample: &RawSample) -> Option<Self> {
        let copy = sample.copy.as_ref().filter(|_| !sample.late)?;
        Some(Self {
            pid: sample.pid,
            time: sample.time,
            stack: Arc::clone(&sample.stack),
            completeness: sample.completeness,
            copy: Arc::clone(copy),
        })
    }
}

/// What is known of processes and executables.
pub trait Surroundings: Send {
    /// The mappings that a process had at a time, sorted; `None` where nobody knows any more.
    fn mappings(&self, pid: u32, time: u64) -> Option<Vec<abi::Mapping>>;
    /// What an executable number stands for.
    fn executable(&self, number: ExecutableNumber) -> Option<Arc<Mapping>>;
}

impl Surroundings for Handle {
    fn mappings(&self, pid: u32, time: u64) -> Option<Vec<abi::Mapping>> {
        self.mappings(pid, time)
    }

    fn executable(&self, number: ExecutableNumber) -> Option<Arc<Mapping>> {
        self.executable(number)
    }
}

/// Asks for second opinions, one after the other, in a thread of its own.
#[derive(Debug)]
pub struct Opinions {
    cases: Option<SyncSender<Case>>,
    tally: Arc<Tally>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Opinions {
    /// Starts the thread; the worker starts with the first case.
    pub fn start(worker: Worker, surroundings: Box<dyn Surroundings>, tally: Arc<Tally>) -> io::Result<Self> {
        let (cases, waiting) = sync_channel(MAX_WAITING);
        let stopping = Arc::new(AtomicBool::new(false));
        let asker = Asker {
            worker,
            surroundings,
            patience: Patience::default(),
            bad: VecDeque::new(),
            tally: Arc::clone(&tally),
        };
        let stop = Arc::clone(&stopping);
        let thread = std::thread::Builder::new().name("opinion".into()).spawn(move || asker.run(&waiting, &stop))?;
        Ok(Self { cases: Some(cases), tally, stopping, thread: Some(thread) })
    }

    /// Takes a stack to be looked at, if there is room.
    pub fn offer(&self, case: Case) {
        if self.cases.as_ref().is_none_or(|cases| cases.try_send(case).is_err()) {
            self.tally.add(Verdict::NotJudged("queue_full"), &[]);
        }
    }
}

impl Drop for Opinions {
    fn drop(&mut self) {
        self.stopping.store(true, Relaxed);
        self.cases = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Asker {
    worker: Worker,
    surroundings: Box<dyn Surroundings>,
    patience: Patience,
    bad: VecDeque<ContentId>,
    tally: Arc<Tally>,
}

impl Asker {
    fn run(mut self, waiting: &Receiver<Case>, stopping: &AtomicBool) {
        while !stopping.load(Relaxed) {
            match waiting.recv_timeout(REST_AFTER) {
                Ok(case) => {
                    let (verdict, names) = self.judge(&case);
                    self.tally.add(verdict, &names);
                }
                Err(RecvTimeoutError::Timeout) => self.worker.rest(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// The verdict, and the names of the executables that it is about.
    fn judge(&mut self, case: &Case) -> (Verdict, Vec<Str>) {
        let none = |reason| (Verdict::NotJudged(reason), Vec::new());
        let ours = &case.stack.user;
        let Some(mappings) = self.surroundings.mappings(case.pid, case.time) else { return none("process_gone") };
        let mut files = Files::default();
        for number in ours.iter().filter_map(|frame| number(*frame)) {
            if files.numbers.iter().any(|(known, _)| *known == number) {
                continue;
            }
            let content = self.surroundings.executable(number).and_then(|mapping| mapping.content_id);
            match content.filter(|content| !self.bad.contains(content)) {
                Some(content) => files.numbers.push((number, content)),
                None => files.absent = true,
            }
        }
        // By now other files may be mapped where these were.
        let mapped = |frame: &UserFrame| number(*frame).is_none_or(|n| mappings.iter().any(|m| m.executable == n));
        if !ours.iter().all(mapped) || ours.first().is_some_and(|f| *f != frame(&mappings, case.copy.registers.pc)) {
            return none("mappings_changed");
        }
        if files.numbers.len() > MAX_FILES {
            return none("too_many_files");
        }
        let (theirs, end) = match self.ask(case, &mappings, &mut files) {
            Ok(walked) => walked,
            Err(reason) => return none(reason),
        };
        let theirs: Vec<UserFrame> = theirs.into_iter().map(|address| frame(&mappings, address)).collect();
        let verdict = match compare(ours, case.completeness, &theirs, end) {
            Verdict::NotJudged("no_module") if files.absent => Verdict::NotJudged("file_gone"),
            verdict => verdict,
        };
        let names = self.names(ours, verdict);
        if let Verdict::Differ(at) | Verdict::Shorter(at) = verdict {
            let show = |frames: &[UserFrame]| {
                let shown = frames.iter().enumerate().skip(at.saturating_sub(SHOWN)).take(2 * SHOWN);
                shown.map(|(n, frame)| format!("{n}: {}", self.show(*frame))).collect::<Vec<_>>().join(", ")
            };
            tracing::debug!(
                "second opinion of process {}: {verdict:?}, at the step from {}; ours ({:?}): {}; the other's ({}): {}",
                case.pid,
                names.first().map_or("nothing", |name| name),
                case.completeness,
                show(ours),
                end.as_str(),
                show(&theirs),
            );
        }
        (verdict, names)
    }

    /// Has the stack walked, with the files that the worker does not have handed to it.
    fn ask(
        &mut self,
        case: &Case,
        mappings: &[abi::Mapping],
        files: &mut Files,
    ) -> Result<(Vec<u64>, End), &'static str> {
        // Once without, once with the files; a worker may end in between.
        for _ in 0..4 {
            let question = files.question(case, mappings);
            let failed = |asker: &mut Self, e: WorkerError| {
                tracing::debug!("second opinion: {e}");
                if matches!(e, WorkerError::Died(_) | WorkerError::Timeout(_)) {
                    files.numbers.iter().for_each(|(_, content)| asker.leave(*content));
                }
                "worker_failed"
            };
            let bytes = question.to_bytes();
            let size = bytes.len() as u64;
            let sent = sys::memory_file(c"question").and_then(|mut file| file.write_all(&bytes).map(|()| file));
            let file = sent.map_err(|_| "no_memory")?;
            let answer = self.worker.ask(&file, &Request { size, wish: Wish::Question, name: String::new() });
            let missing = match answer.map_err(|e| failed(self, e)).map(|bytes| Reply::from_bytes(&bytes))? {
                Some(Reply::Frames(frames, end)) => return Ok((frames, end)),
                Some(Reply::Missing(missing)) => missing,
                None => return Err("worker_failed"),
            };
            for content in missing {
                if !self.send(case.pid, content, &question) {
                    files.numbers.retain(|(_, known)| *known != content);
                    files.absent = true;
                }
            }
        }
        Err("worker_failed")
    }

    /// Hands the worker a file; says whether it has it now.
    fn send(&mut self, pid: u32, content: ContentId, question: &Question) -> bool {
        let Some(module) = question.modules.iter().find(|module| module.content == content) else { return false };
        let Some((file, size)) = files::mapped_at(&mut self.patience, pid, module.start) else { return false };
        let name = format!("{:032x}", content.0);
        match self.worker.ask(&file, &Request { size, wish: Wish::Module, name }) {
            Ok(_) => true,
            Err(e) => {
                tracing::debug!("second opinion, file of process {pid} at {:#x}: {e}", module.start);
                if matches!(e, WorkerError::Died(_) | WorkerError::Timeout(_)) {
                    self.leave(content);
                }
                false
            }
        }
    }

    /// A file that ended the worker is not asked about again.
    fn leave(&mut self, content: ContentId) {
        if self.bad.len() >= MAX_BAD {
            self.bad.pop_front();
        }
        self.bad.push_back(content);
    }

    fn names(&self, ours: &[UserFrame], verdict: Verdict) -> Vec<Str> {
        let frames = match verdict {
            Verdict::Agree => ours,
            Verdict::Differ(at) | Verdict::Shorter(at) => {
                let step = at.saturating_sub(1);
                ours.get(step..=step).unwrap_or_default()
            }
            Verdict::NotJudged(_) => &[],
        };
        let mut numbers: Vec<Option<u32>> = frames.iter().map(|frame| number(*frame)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut names: Vec<Str> = numbers.into_iter().map(|number| self.name(number)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn name(&self, number: Option<u32>) -> Str {
        let mapping = number.and_then(|number| self.surroundings.executable(number));
        mapping.map_or_else(|| Str::from("[anon]"), |mapping| Str::clone(&mapping.name))
    }

    fn show(&self, frame: UserFrame) -> String {
        match frame.place() {
            Place::File { executable, address } => format!("{}+{address:#x}", self.name(Some(executable))),
            Place::Absolute(address) => format!("{address:#x}"),
        }
    }
}

/// The files on a stack.
#[derive(Debug, Default)]
struct Files {
    numbers: Vec<(ExecutableNumber, ContentId)>,
    /// Some could not be had.
    absent: bool,
}

impl Files {
    fn question(&self, case: &Case, mappings: &[abi::Mapping]) -> Question {
        let module = |entry: &abi::Mapping| {
            let (_, content) = self.numbers.iter().find(|(number, _)| *number == entry.executable)?;
            let end = entry.start + u64::from(entry.pages) * 4096;
            Some(Module { start: entry.start, end, bias: entry.bias, content: *content })
        };
        Question {
            pc: case.copy.registers.pc,
            sp: case.copy.registers.sp,
            fp: case.copy.registers.fp,
            modules: mappings.iter().filter_map(module).take(MAX_MODULES).collect(),
            stack: case.copy.above().to_vec(),
        }
    }
}

fn number(frame: UserFrame) -> Option<ExecutableNumber> {
    match frame.place() {
        Place::File { executable, .. } => Some(executable),
        Place::Absolute(_) => None,
    }
}

/// An address as the sampler writes it.
fn frame(mappings: &[abi::Mapping], address: u64) -> UserFrame {
    const ADDRESS: u64 = (1 << 44) - 1;
    let at = mappings.partition_point(|entry| entry.start <= address);
    let entry = at.checked_sub(1).and_then(|at| mappings.get(at));
    let entry = entry.filter(|e| (address - e.start) / 4096 < u64::from(e.pages) && e.executable >= FIRST_EXECUTABLE);
    entry.map_or(UserFrame(address & UserFrame::ABSOLUTE), |entry| {
        UserFrame(u64::from(entry.executable) << 44 | (address.wrapping_sub(entry.bias) & ADDRESS))
    })
}

#[cfg(test)]
#[path = "asker_tests.rs"]
mod tests;

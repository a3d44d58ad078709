//! Stacks that were recorded once from programs with known truth, walked by the kernel's step on
//! the host and by framehop: both must find the same frames, down to the root.
//!
//! `make record-stacks` records new ones. They lie in `tests/corpus/stacks` with their registers
//! and mappings. Of the files, one that is ours lies beside them; others are this machine's,
//! where it has them with the same build id.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    time::{Duration, Instant},
};

use everflame_symbols::{ElfFacts, inspect};
use serde::{Deserialize, Serialize};

use super::{Images, Module, Question, Reply, Verdict, compare};
use crate::{
    bpf::{
        abi,
        host::{Memory, Registers, Tables, Walked, walk},
        programs::{ProgramOptions, Programs},
    },
    executables::open,
    processes::maps,
    sample::{FIRST_EXECUTABLE, UserFrame, UserStack},
    worker::mapping::Mapped,
};

/// Whose stacks are recorded. What is linked statically needs no other file and is kept. Shapes that framehop
/// cannot follow are left out.
const PROGRAMS: [(&str, &[&str]); 10] = [
    ("frames_static", &["edges", "2"]),
    ("frames_static", &["noreturn", "2"]),
    ("frames_static", &["strings", "2"]),
    ("frames_static", &["thread", "2"]),
    ("frames_static", &["exit", "2"]),
    ("frames_fp", &["plain", "2"]),
    ("truth_cpp", &["2"]),
    ("in_flight", &["exceptions", "2"]),
    ("interrupted", &["plain", "2"]),
    ("interrupted", &["altstack", "2"]),
];
const KEPT_FILE: &str = "frames_static";
/// Stacks of different frames that are kept of each.
const KEPT_STACKS: usize = 4;
const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/corpus/stacks");
const TARGETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/.cache/targets");

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Recorded {
    program: String,
    /// pc, sp, fp, lr, then the general registers.
    registers: Vec<u64>,
    code: Option<[u8; abi::CODE_BYTES]>,
    areas: Vec<CodeArea>,
    /// Address of the first byte of the stack.
    start: u64,
    /// As far as a walk looks, in hexadecimal.
    stack: String,
}

/// A mapping of a file's code.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct CodeArea {
    start: u64,
    end: u64,
    bias: u64,
    file: PathBuf,
    build_id: String,
}

/// What the walks need of the files.
#[derive(Default)]
struct Files {
    /// By build id.
    known: HashMap<String, Option<Known>>,
    tables: Tables,
    images: Images,
}

#[derive(Clone)]
struct Known {
    number: u32,
    facts: Rc<ElfFacts>,
    bytes: Rc<[u8]>,
}

impl Files {
    /// The file with this build id, if it is here.
    fn get(&mut self, area: &CodeArea) -> Option<Known> {
        let number = FIRST_EXECUTABLE + self.known.len() as u32;
        if let Some(known) = self.known.get(&area.build_id) {
            return known.clone();
        }
        let found = self.load(area, number);
        self.known.insert(area.build_id.clone(), found.clone());
        found
    }

    fn load(&mut self, area: &CodeArea, number: u32) -> Option<Known> {
        let kept = Path::new(HERE).join(area.file.file_name()?).with_extension("zst");
        let bytes = match fs::read(kept) {
            Ok(packed) => read(zstd::Decoder::new(&*packed).ok()?),
            Err(_) => [&area.file, &Path::new(TARGETS).join(area.file.file_name()?)].iter().find_map(fs_read)?,
        };
        let facts = inspect(&bytes).ok().filter(|facts| facts.build_id == area.build_id)?;
        self.tables.add(number, everflame_unwind::convert(&bytes, &Default::default()).ok()?.bytes());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        self.images.add(facts.content_id, Mapped::new(&file, bytes.len() as u64).unwrap()).unwrap();
        Some(Known { number, facts: facts.into(), bytes: bytes.into() })
    }
}

fn fs_read(path: &&PathBuf) -> Option<Vec<u8>> {
    fs::read(path).ok()
}

/// The stack, of which it remembers how far up it was read, and the code of the files.
struct Watched<'a> {
    copy: &'a UserStack,
    code: Vec<(CodeArea, Known)>,
    end: Cell<u64>,
}

impl Memory for Watched<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        if self.copy.read(address, into) {
            if address >= self.copy.start {
                self.end.set(self.end.get().max(address + into.len() as u64));
            }
            return true;
        }
        let Some((area, known)) = self.code.iter().find(|(area, _)| (area.start..area.end).contains(&address)) else {
            return false;
        };
        let vaddr = address.wrapping_sub(area.bias);
        let Some(segment) = known.facts.segments.iter().find(|s| s.executable && s.vaddr <= vaddr) else {
            return false;
        };
        let from = (vaddr - segment.vaddr + segment.offset) as usize;
        known.bytes.get(from..from + into.len()).is_some_and(|bytes| {
            into.copy_from_slice(bytes);
            true
        })
    }
}

/// Both walks of a stack: the first, how far up it looked, and what they make together. `None`
/// where a file is not here.
fn judge(copy: &UserStack, areas: &[CodeArea], files: &mut Files) -> Option<(Walked, u64, Verdict)> {
    let mut mappings = Vec::new();
    let (mut modules, mut code) = (Vec::new(), Vec::new());
    for area in areas {
        let known = files.get(area)?;
        let (executable, content) = (known.number, known.facts.content_id);
        let CodeArea { start, end, bias, .. } = *area;
        mappings.push(abi::Mapping { start, bias, pages: ((end - start) / 4096) as u32, executable });
        modules.push(Module { start, end, bias, content });
        code.push((area.clone(), known));
    }
    let watched = Watched { copy, code, end: Cell::new(copy.registers.sp) };
    let ours = walk(copy.registers, &mappings, &files.tables.view(), &watched);
    let Registers { pc, sp, fp, .. } = copy.registers;
    let Reply::Frames(theirs, end) =
        files.images.answer(&Question { pc, sp, fp, modules, stack: copy.above().to_vec() })
    else {
        panic!("all files are there")
    };
    let frame = |address: u64| {
        let area = mappings.iter().find(|m| (m.start..m.start + u64::from(m.pages) * 4096).contains(&address));
        let frame = area.map(|m| u64::from(m.executable) << 44 | (address.wrapping_sub(m.bias) & ((1 << 44) - 1)));
        UserFrame(frame.unwrap_or(address & 0x7fff_ffff_ffff))
    };
    let frames: Vec<UserFrame> = ours.frames.iter().copied().map(UserFrame).collect();
    let theirs: Vec<UserFrame> = theirs.into_iter().map(frame).collect();
    let verdict = compare(&frames, ours.completeness, &theirs, end);
    Some((ours, watched.end.get(), verdict))
}

impl Recorded {
    fn copy(&self) -> UserStack {
        let word = |n: usize| self.registers[n];
        let general = std::array::from_fn(|n| word(4 + n));
        let registers = Registers { pc: word(0), sp: word(1), fp: word(2), lr: word(3), general };
        let digits = self.stack.as_bytes().as_chunks::<2>().0;
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        UserStack { registers, start: self.start, code: self.code, bytes: digits.iter().map(byte).collect() }
    }
}

#[test]
fn recorded_stacks_are_walked_alike() {
    let mut files = Files::default();
    let (mut judged, mut without, mut wrong) = (0, HashSet::new(), Vec::new());
    for entry in fs::read_dir(HERE).unwrap().flatten().filter(|e| e.path().extension().is_some_and(|e| e == "json")) {
        let stacks: Vec<Recorded> = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
        for (n, recorded) in stacks.iter().enumerate() {
            match judge(&recorded.copy(), &recorded.areas, &mut files) {
                Some((_, _, Verdict::Agree)) => judged += 1,
                Some((ours, _, verdict)) => wrong.push(format!("{:?}, stack {n}: {verdict:?} {ours:x?}", entry.path())),
                None => _ = without.insert(recorded.program.clone()),
            }
        }
    }
    if !without.is_empty() {
        eprintln!("SKIPPED: the files of {without:?} are not on this machine with the build ids of the recording");
    }
    assert!(wrong.is_empty(), "the walks differ:\n{}", wrong.join("\n"));
    eprintln!("{judged} stacks are walked alike");
    assert!(judged >= 20, "{judged} stacks were judged: those of {KEPT_FILE} need nothing of the machine");
}

/// Records stacks where `EVERFLAME_RECORD_STACKS` is set: as root, with the targets built.
#[test]
fn record_stacks() {
    if std::env::var_os("EVERFLAME_RECORD_STACKS").is_none() {
        return eprintln!("SKIPPED: `make record-stacks` records stacks");
    }
    let options = ProgramOptions { only_wanted: true, copy_rate: 256 << 20, ring_bytes: 8 << 20, ..Default::default() };
    let programs = Programs::load(&options).unwrap();
    let counters = programs.counters().unwrap();
    let mut ring = programs.ring_reader().unwrap();
    let _clock = programs.start_clock(499, &counters).unwrap();
    let (mut files, mut wrong) = (Files::default(), Vec::new());
    for (program, arguments) in PROGRAMS {
        let path = fs::canonicalize(Path::new(TARGETS).join(program)).unwrap();
        let mut child = Command::new(&path).args(arguments).env_clear().spawn().unwrap();
        programs.want(child.id()).unwrap();
        let begin = Instant::now();
        let mut samples = Vec::new();
        while begin.elapsed() < Duration::from_millis(1500) {
            ring.wait(Duration::from_millis(100), None);
            samples.extend(ring.drain());
        }
        let areas = areas(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        let (mut kept, mut shapes) = (Vec::new(), HashSet::new());
        for copy in samples.into_iter().filter(|s| s.pid == child.id()).filter_map(|s| s.copy) {
            let Some((ours, end, verdict)) = judge(&copy, &areas, &mut files) else { continue };
            let length = copy.bytes.len().min((end - copy.start) as usize + 64);
            let registers = copy.registers;
            let words = [registers.pc, registers.sp, registers.fp, registers.lr];
            let recorded = Recorded {
                program: [&[program], arguments].concat().join(" "),
                registers: words.into_iter().chain(registers.general).collect(),
                code: copy.code,
                start: copy.start,
                areas: areas.clone(),
                stack: copy.bytes[..length].iter().map(|byte| format!("{byte:02x}")).collect(),
            };
            match verdict {
                Verdict::Agree if kept.len() < KEPT_STACKS && shapes.insert(ours.frames) => kept.push(recorded),
                Verdict::Differ(_) | Verdict::Shorter(_) => wrong.push(recorded),
                _ => {}
            }
        }
        eprintln!("{program} {arguments:?}: {} stacks kept", kept.len());
        let name = format!("{program}-{}.json", arguments[0]);
        fs::write(Path::new(HERE).join(name), serde_json::to_string(&kept).unwrap() + "\n").unwrap();
    }
    let kept = fs::read(Path::new(TARGETS).join(KEPT_FILE)).unwrap();
    let packed = zstd::encode_all(&*kept, 19).unwrap();
    fs::write(Path::new(HERE).join(KEPT_FILE).with_extension("zst"), packed).unwrap();
    if !wrong.is_empty() {
        let path = std::env::temp_dir().join("everflame-stacks-that-differ.json");
        fs::write(&path, serde_json::to_vec(&wrong).unwrap()).unwrap();
        panic!("the walks of {} stacks differ: they are in {}", wrong.len(), path.display());
    }
}

/// What a process has mapped of files' code.
fn areas(pid: u32) -> Vec<CodeArea> {
    let text = fs::read(format!("/proc/{pid}/maps")).unwrap();
    let mut facts: HashMap<PathBuf, ElfFacts> = HashMap::new();
    let lines = maps::lines(&text).filter(|line| line.executable && line.name.starts_with(b"/"));
    lines
        .map(|line| {
            let path = PathBuf::from(std::str::from_utf8(line.name).unwrap());
            let found = open::find(pid, 0, &line.to_mapping()).unwrap().open().unwrap();
            let known = facts.entry(path.clone()).or_insert_with(|| inspect(&read(found)).unwrap());
            let segment = known.segments.iter().find(|s| s.executable && s.offset & !4095 <= line.offset).unwrap();
            let bias = line.start.wrapping_sub(line.offset.wrapping_sub(segment.offset).wrapping_add(segment.vaddr));
            // Ours are found by name: where they were built is nobody's business.
            let ours = path.starts_with(fs::canonicalize(TARGETS).unwrap());
            let file = if ours { PathBuf::from(path.file_name().unwrap()) } else { path };
            CodeArea { start: line.start, end: line.end, bias, file, build_id: known.build_id.clone() }
        })
        .collect()
}

fn read(file: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.take(64 << 20).read_to_end(&mut bytes).unwrap();
    bytes
}

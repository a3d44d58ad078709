//! A stack of this very test program, walked by the kernel's step on the host with our
//! tables and by the worker with framehop; and the same with a table that is wrong.

use everflame_symbols::ElfFacts;
use everflame_unwind::{Limits, convert, function_ranges, layout};

use super::*;
use crate::{
    bpf::host::{Memory, Piece, Registers, Tables, walk},
    processes::maps,
    worker::client::{WorkerCommand, tests::command},
};

const NUMBER: u32 = 19;
const TOP: u64 = 0x7fff_ffff_0000;

struct Own {
    facts: ElfFacts,
    mappings: Vec<abi::Mapping>,
}

impl Own {
    fn new() -> Self {
        let facts = everflame_symbols::inspect(&std::fs::read("/proc/self/exe").unwrap()).unwrap();
        let text = std::fs::read("/proc/self/maps").unwrap();
        let exe = std::fs::read_link("/proc/self/exe").unwrap();
        let code = facts.segments.iter().find(|s| s.executable).unwrap();
        let ours = |line: &maps::Line<'_>| line.executable && line.name == exe.as_os_str().as_encoded_bytes();
        let entry = |line: maps::Line<'_>| abi::Mapping {
            start: line.start,
            pages: ((line.end - line.start) / 4096) as u32,
            executable: NUMBER,
            bias: line.start - (line.offset - code.offset % 4096 - code.offset / 4096 * 4096 + code.vaddr),
        };
        let mappings = maps::lines(&text).filter(ours).map(entry).collect();
        Self { facts, mappings }
    }

    fn bias(&self) -> u64 {
        self.mappings[0].bias
    }
}

impl Surroundings for Own {
    fn mappings(&self, pid: u32, _: u64) -> Option<Vec<abi::Mapping>> {
        (pid != 1).then(|| self.mappings.clone())
    }

    fn executable(&self, number: ExecutableNumber) -> Option<Arc<Mapping>> {
        let content_id = Some(self.facts.content_id);
        let mapping = Mapping { name: Str::from("myself"), build_id: Str::from(""), content_id };
        (number == NUMBER).then(|| Arc::new(mapping))
    }
}

fn asker(surroundings: Own) -> Asker {
    Asker {
        worker: Worker::new(command(), Duration::from_secs(60)),
        surroundings: Box::new(surroundings),
        patience: Patience::default(),
        bad: VecDeque::new(),
        tally: Arc::new(Tally::new(1)),
    }
}

/// A stack, and code that says nothing of where it stands.
struct Nops<'a>(Piece<'a>);

impl Memory for Nops<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        if address < self.0.start - (1 << 32) {
            into.fill(0x90);
            return true;
        }
        self.0.read(address, into)
    }
}

/// Bytes of a stack on which functions of this program stand, as its table says, and the
/// walk over it by a table.
fn case(own: &Own, elf: &[u8], by: &dyn Fn(&mut Vec<u8>)) -> Case {
    let table = convert(elf, &Limits::default()).unwrap();
    let entry = u64::from_le_bytes(elf[24..32].try_into().unwrap());
    let by_sp = |address: &u64| {
        let rule = table.lookup(*address);
        rule.cfa == layout::cfa::SP && rule.fp == layout::fp::SAME && (8..256).contains(&rule.cfa_offset)
    };
    let code = own.facts.segments.iter().find(|s| s.executable).unwrap();
    let byte = |address: u64| elf[(address - code.vaddr + code.offset) as usize];
    let functions = function_ranges(elf).unwrap();
    // Where callers stand: in the last byte of a call, and one it is where it leads to a function. What only
    // looks like one may lie where no caller can stand, of which a table need not tell.
    let is_call = |a: u64| {
        let target = i32::from_le_bytes(std::array::from_fn(|n| byte(a - 3 + n as u64)));
        let target = (a + 1).wrapping_add_signed(target.into());
        byte(a - 4) == 0xe8 && functions.binary_search_by_key(&target, |f| f.0).is_ok()
    };
    let call = |(start, end): (u64, u64)| (start + 5..end).find(|a| is_call(*a) && by_sp(a));
    let mut addresses: Vec<u64> = functions.iter().copied().filter_map(call).take(400).collect();
    addresses.push(entry);
    let mut stack = Vec::new();
    for pair in addresses.windows(2) {
        let cfa = stack.len() + table.lookup(pair[0]).cfa_offset as usize;
        stack.resize(cfa - 8, 0xaa);
        stack.extend_from_slice(&(own.bias() + pair[1] + 1).to_le_bytes());
    }
    stack.resize(stack.len() + 64, 0xaa);
    assert!(stack.len() < 32 << 10, "as much as is copied");
    let start = TOP - stack.len() as u64;
    let registers = Registers { pc: own.bias() + addresses[0], sp: start, ..Registers::default() };
    let mut bytes = table.bytes().to_vec();
    by(&mut bytes);
    let mut tables = Tables::default();
    tables.add(NUMBER, &bytes);
    let walked = walk(registers, &own.mappings, &tables.view(), &Nops(Piece { start, bytes: &stack }));
    let user = walked.frames.into_iter().map(UserFrame).collect();
    Case {
        pid: std::process::id(),
        time: 0,
        stack: Arc::new(RawStack { kernel: Vec::new(), user }),
        completeness: walked.completeness,
        copy: Arc::new(UserStack { registers, start, code: None, bytes: stack.into() }),
    }
}

#[test]
fn both_walks_agree_and_a_wrong_table_is_found_out() {
    let elf = std::fs::read("/proc/self/exe").unwrap();
    let own = Own::new();
    let right = case(&own, &elf, &|_| ());
    assert_eq!(right.completeness, Completeness::Complete);
    assert!(right.stack.user.len() > 100);
    // The offset of the rule of the tenth frame, and of all that share it, is one word too large.
    let table = convert(&elf, &Limits::default()).unwrap();
    let Place::File { address, .. } = right.stack.user[10].place() else { panic!("a frame of no file") };
    let wrong_rule = table.lookup(address);
    let first = right.stack.user.iter().position(|frame| match frame.place() {
        Place::File { address, .. } => table.lookup(address) == wrong_rule,
        Place::Absolute(_) => false,
    });
    let wrong = case(&own, &elf, &|bytes| {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let (rules, count) = (word(32) * 64, word(36));
        for rule in (0..count).map(|n| rules + n * 16) {
            let offset = i32::from_le_bytes(bytes[rule + 4..rule + 8].try_into().unwrap());
            if bytes[rule] == layout::cfa::SP && bytes[rule + 1] == layout::fp::SAME && offset == wrong_rule.cfa_offset
            {
                bytes[rule + 4..rule + 8].copy_from_slice(&(offset + 8).to_le_bytes());
            }
        }
    });

    let mut asker = asker(own);
    let (verdict, names) = asker.judge(&right);
    assert_eq!((verdict, &*names), (Verdict::Agree, &[Str::from("myself")][..]));
    let (verdict, names) = asker.judge(&wrong);
    let at = first.unwrap() + 1;
    assert!(matches!(verdict, Verdict::Differ(n) | Verdict::Shorter(n) if n == at), "{verdict:?}, not {at}");
    assert_eq!(&*names, &[Str::from("myself")][..]);

    let half = {
        let bytes = right.copy.bytes[..right.copy.bytes.len() / 2].into();
        Case { copy: Arc::new(UserStack { bytes, ..(*right.copy).clone() }), ..right.clone() }
    };
    assert_eq!(asker.judge(&half).0, Verdict::NotJudged("stack_too_short"));
    assert_eq!(asker.judge(&Case { pid: 1, ..right.clone() }).0, Verdict::NotJudged("process_gone"));
    assert_eq!(asker.worker.starts(), 1, "it kept the file");
    // A worker that rested has to be given the file again; of a process that is gone it is not to be had.
    asker.worker.rest();
    let gone = Case { pid: i32::MAX as u32, ..right.clone() };
    assert_eq!(asker.judge(&gone).0, Verdict::NotJudged("file_gone"));
    assert_eq!(asker.judge(&right).0, Verdict::Agree);
    assert_eq!(asker.judge(&gone).0, Verdict::Agree, "the file is at hand");
}

#[test]
fn a_file_that_is_another_one_is_not_believed() {
    let elf = std::fs::read("/proc/self/exe").unwrap();
    let mut own = Own::new();
    let right = case(&own, &elf, &|_| ());
    own.facts.content_id.0 ^= 1;
    assert_eq!(asker(own).judge(&right).0, Verdict::NotJudged("file_gone"));
}

#[test]
fn what_finds_no_room_is_refused_and_counted() {
    struct Slow;
    impl Surroundings for Slow {
        fn mappings(&self, _: u32, _: u64) -> Option<Vec<abi::Mapping>> {
            std::thread::sleep(Duration::from_millis(200));
            None
        }
        fn executable(&self, _: ExecutableNumber) -> Option<Arc<Mapping>> {
            None
        }
    }
    let tally = Arc::new(Tally::new(1));
    let worker = Worker::new(WorkerCommand::default(), Duration::from_secs(1));
    let opinions = Opinions::start(worker, Box::new(Slow), Arc::clone(&tally)).unwrap();
    let case = Case {
        pid: 7,
        time: 0,
        stack: Arc::default(),
        completeness: Completeness::Complete,
        copy: Arc::new(UserStack { registers: Registers::default(), start: 0, code: None, bytes: Box::default() }),
    };
    for _ in 0..2 * MAX_WAITING {
        opinions.offer(case.clone());
    }
    let refused = tally.report(&mut None).unwrap().not_judged["queue_full"] as usize;
    assert!((MAX_WAITING - 1..=MAX_WAITING).contains(&refused), "{refused}");
}

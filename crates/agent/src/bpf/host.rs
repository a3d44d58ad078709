//! The kernel program's walk in user space: `bpf/step.h` over arrays in memory, compiled
//! from `bpf/host`. It walks stacks that the kernel could only copy, and gives tests the very
//! code that runs in the kernel. It keeps nothing between two walks, and threads may walk
//! side by side.

use std::{ffi::c_void, fmt, marker::PhantomData};

use everflame_profile::Completeness;

use super::abi;

/// Where a walk reads what is not in its tables: stacks, and the code that frames return to.
pub trait Memory {
    /// Fills `into` from `address` on; `false` where not all of it can be read. Must not panic:
    /// the caller is C.
    fn read(&self, address: u64, into: &mut [u8]) -> bool;
}

/// Where a thread stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Registers {
    /// Program counter.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub fp: u64,
    /// Link register; 0 where the machine has none.
    pub lr: u64,
}

/// What a walk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked {
    /// User frames as in `bpf/abi.h`, leaf first.
    pub frames: Vec<u64>,
    /// Why it ended.
    pub completeness: Completeness,
    /// The executable that ended it because its table is still to come.
    pub waits_for: Option<u32>,
}

/// An array as the kernel's: values at equal distances. It may stand for memory that the
/// kernel programs read meanwhile, so that no reference to a value is ever made in Rust.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Array {
    base: *const c_void,
    count: u32,
    stride: u32,
}

impl Array {
    /// Of `count` values, `stride` bytes apart.
    pub(super) fn new(base: *const c_void, count: u32, stride: u32) -> Self {
        Self { base, count, stride }
    }

    fn of<T>(values: &[T], bytes: usize) -> Self {
        let count = size_of_val(values) / bytes;
        Self::new(values.as_ptr().cast(), u32::try_from(count).unwrap_or(u32::MAX), bytes as u32)
    }
}

/// Unwind tables that a walk looks up, wherever they lie.
#[derive(Debug)]
pub struct TableView<'a> {
    /// Words of `tables`, by executable number.
    places: Array,
    /// Of elements, by chunk number.
    chunks: Vec<Array>,
    lives: PhantomData<&'a ()>,
}

impl TableView<'_> {
    /// The arrays must be as large as they say and must not be freed or written during `'a`.
    pub(super) fn new(places: Array, chunks: Vec<Array>) -> Self {
        Self { places, chunks, lives: PhantomData }
    }
}

/// Unwind tables in our own memory, as the kernel side lays them out.
#[derive(Debug, Default)]
pub struct Tables {
    places: Vec<u64>,
    /// Whole elements; u64 for their alignment.
    chunks: Vec<Vec<u64>>,
    elements: u32,
}

const ELEMENT_WORDS: usize = abi::ELEMENT_SIZE / 8;

impl Tables {
    /// Makes a table known under an executable number. Its bytes may be anything; what is
    /// missing of the last element is zeros.
    pub fn add(&mut self, executable: u32, table: &[u8]) {
        let place = executable as usize;
        if self.places.len() <= place {
            self.places.resize(place + 1, 0);
        }
        self.places[place] = u64::from(self.elements) + 1;
        for element in table.chunks(abi::ELEMENT_SIZE) {
            if self.elements.is_multiple_of(abi::CHUNK_ELEMENTS) {
                self.chunks.push(Vec::new());
            }
            let mut bytes = [0; abi::ELEMENT_SIZE];
            bytes[..element.len()].copy_from_slice(element);
            let words: [u64; ELEMENT_WORDS] =
                std::array::from_fn(|n| u64::from_ne_bytes(std::array::from_fn(|b| bytes[n * 8 + b])));
            if let Some(chunk) = self.chunks.last_mut() {
                chunk.extend_from_slice(&words);
            }
            self.elements += 1;
        }
    }

    /// Writes any word as an executable's place.
    pub fn set_place(&mut self, executable: u32, word: u32) {
        self.add(executable, &[]);
        self.places[executable as usize] = u64::from(word);
    }

    /// As a walk sees them.
    pub fn view(&self) -> TableView<'_> {
        let chunks = self.chunks.iter().map(|chunk| Array::of(chunk, abi::ELEMENT_SIZE)).collect();
        TableView::new(Array::of(&self.places, 8), chunks)
    }
}

/// `struct host` of `bpf/host/host.h`.
#[repr(C)]
struct Host {
    mappings: Array,
    row_chunks: Array,
    tables: Array,
    read: extern "C" fn(*const c_void, u64, *mut u8, u32) -> i32,
    memory: *const c_void,
    pc: u64,
    sp: u64,
    fp: u64,
    lr: u64,
    frames: *mut u64,
    taken: u32,
    reason: u32,
    late: u32,
    reserved: u32,
}

unsafe extern "C" {
    fn everflame_walk(host: *mut Host);
}

/// Walks from `at` to the root, or as far as it gets. `mappings` are sorted by start; where
/// they are not, or where tables are nonsense, so is the answer, but it comes all the same.
pub fn walk(at: Registers, mappings: &[abi::Mapping], tables: &TableView<'_>, memory: &dyn Memory) -> Walked {
    let mut frames = Vec::with_capacity(abi::USER_FRAMES);
    let mut host = Host {
        mappings: Array::of(mappings, size_of::<abi::Mapping>()),
        row_chunks: Array::of(&tables.chunks, size_of::<Array>()),
        tables: tables.places,
        read,
        memory: (&raw const memory).cast(),
        pc: at.pc,
        sp: at.sp,
        fp: at.fp,
        lr: at.lr,
        frames: frames.as_mut_ptr(),
        taken: 0,
        reason: 0,
        late: 0,
        reserved: 0,
    };
    // SAFETY: all arrays are as long as they say and live until the call returns, as does
    // `memory`, to which the context points; the C code writes at most USER_FRAMES words to
    // `frames`, which has room for them, and says how many.
    unsafe {
        everflame_walk(&mut host);
        frames.set_len((host.taken as usize).min(abi::USER_FRAMES));
    }
    let reason = u8::try_from(host.reason).ok().and_then(Completeness::from_u8);
    let completeness = reason.unwrap_or(Completeness::LostFrames);
    Walked { frames, completeness, waits_for: (host.late != 0).then_some(host.late) }
}

extern "C" fn read(memory: *const c_void, address: u64, to: *mut u8, size: u32) -> i32 {
    // SAFETY: the context is the one that `walk` passed, a pointer to its `memory`, which
    // outlives the call; `to` has room for `size` bytes that the C code has set to something.
    let (memory, into) = unsafe {
        to.write_bytes(0, size as usize);
        (*memory.cast::<&dyn Memory>(), std::slice::from_raw_parts_mut(to, size as usize))
    };
    if memory.read(address, into) { 0 } else { -1 }
}

/// A piece of memory at its address; nothing else can be read.
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    /// Address of the first byte.
    pub start: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl Memory for Piece<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let Some(from) = address.checked_sub(self.start).and_then(|n| usize::try_from(n).ok()) else { return false };
        let Some(bytes) = from.checked_add(into.len()).and_then(|end| self.bytes.get(from..end)) else { return false };
        into.copy_from_slice(bytes);
        true
    }
}

impl fmt::Debug for Piece<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:#x}", self.bytes.len(), self.start)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, mem::offset_of, process::Command};

    use everflame_unwind::{Limits, convert, function_ranges, layout};

    use super::*;

    const NUMBER: u32 = 9;
    const BIAS: u64 = 0x5555_0000_0000;
    const TOP: u64 = 0x7fff_ffff_0000;

    /// One mapping that holds every address of the executable.
    fn mapping() -> [abi::Mapping; 1] {
        [abi::Mapping { start: BIAS, bias: BIAS, pages: 1 << 20, executable: NUMBER }]
    }

    fn frame(address: u64) -> u64 {
        u64::from(NUMBER) << 44 | address
    }

    /// A stack, and code of which all that can be said is that it is no beginning and no end of a function.
    struct Running<'a>(Piece<'a>);

    impl Memory for Running<'_> {
        fn read(&self, address: u64, into: &mut [u8]) -> bool {
            if address >> 40 == BIAS >> 40 {
                into.fill(0x90);
                return true;
            }
            self.0.read(address, into)
        }
    }

    /// A stack of frames that stand at `addresses`, leaf first, laid out by the table's rules.
    fn stack_of(addresses: &[u64], table: &everflame_unwind::Table) -> Vec<u8> {
        let mut stack = Vec::new();
        for pair in addresses.windows(2) {
            let rule = table.lookup(pair[0]);
            assert_eq!(rule.cfa, layout::cfa::SP);
            let cfa = stack.len() + rule.cfa_offset as usize;
            stack.resize(cfa - 8, 0xaa);
            // The caller stands behind its call: its frame is at the address before.
            stack.extend_from_slice(&(BIAS + pair[1] + 1).to_le_bytes());
        }
        stack.resize(stack.len() + 64, 0xaa);
        stack
    }

    #[test]
    fn walks_a_stack_by_the_tables_of_this_very_program() {
        let elf = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let table = convert(&elf, &Limits::default()).unwrap();
        let entry = u64::from_le_bytes(elf[24..32].try_into().unwrap());
        assert_eq!(table.lookup(entry).cfa, layout::cfa::END, "the entry point is a root");
        let by_sp = |address: &u64| {
            let rule = table.lookup(*address);
            rule.cfa == layout::cfa::SP && rule.fp == layout::fp::SAME && (8..512).contains(&rule.cfa_offset)
        };
        let middles = function_ranges(&elf).unwrap().into_iter().map(|(start, end)| start + (end - start) / 2);
        let mut addresses: Vec<u64> = middles.filter(by_sp).step_by(5).take(500).collect();
        assert!(addresses.len() > 100, "a program has functions");
        addresses.push(entry);
        let bytes = stack_of(&addresses, &table);

        let mut tables = Tables::default();
        tables.add(3, &vec![0x55; abi::ELEMENT_SIZE * abi::CHUNK_ELEMENTS as usize - 64]);
        tables.add(NUMBER, table.bytes());
        let start = TOP - bytes.len() as u64;
        let at = Registers { pc: BIAS + addresses[0], sp: start, ..Registers::default() };
        let walked = walk(at, &mapping(), &tables.view(), &Running(Piece { start, bytes: &bytes }));
        assert_eq!(walked.completeness, Completeness::Complete);
        assert_eq!(walked.frames, addresses.iter().map(|a| frame(*a)).collect::<Vec<_>>());

        // Half a stack ends where it ends, and says so.
        let half = Running(Piece { start, bytes: &bytes[..bytes.len() / 2] });
        let cut = walk(at, &mapping(), &tables.view(), &half);
        assert_eq!(cut.completeness, Completeness::UnreadableMemory);
        assert!(walked.frames.starts_with(&cut.frames) && cut.frames.len() > 10);

        let unread = walk(at, &mapping(), &Tables::default().view(), &half);
        assert_eq!((unread.frames.len(), unread.waits_for), (1, None), "no place at all: there will be none");
        tables.set_place(NUMBER, abi::TABLE_NOT_YET);
        let early = walk(at, &mapping(), &tables.view(), &half);
        assert_eq!((early.frames.len(), early.waits_for), (1, Some(NUMBER)));
        let nowhere = walk(at, &[], &tables.view(), &half);
        assert_eq!((nowhere.frames.len(), nowhere.completeness), (1, Completeness::UnknownMapping));
    }

    #[test]
    fn threads_walk_side_by_side() {
        // Each thread has one mapping of no file at an address of its own, and frame pointers.
        let threads: Vec<_> = (1..5u64)
            .map(|n| {
                std::thread::spawn(move || {
                    let code = n << 32;
                    let mappings = [abi::Mapping { start: code, bias: 0, pages: 16, executable: 1 }];
                    struct Frames(u64);
                    impl Memory for Frames {
                        fn read(&self, address: u64, into: &mut [u8]) -> bool {
                            if address >> 32 == self.0 >> 32 {
                                into.fill(0xe8); // calls, wherever one looks
                            } else if into.len() == 16 {
                                into[..8].copy_from_slice(&(address + 16).to_le_bytes());
                                into[8..].copy_from_slice(&(self.0 + 0x100).to_le_bytes());
                            }
                            address < TOP
                        }
                    }
                    let start = TOP - 16 * 50;
                    let at = Registers { pc: code, sp: start, fp: start, lr: 0 };
                    for _ in 0..1000 {
                        let walked = walk(at, &mappings, &Tables::default().view(), &Frames(code));
                        assert_eq!(walked.completeness, Completeness::UnreadableMemory);
                        assert_eq!(walked.frames.len(), 51);
                        assert!(walked.frames[1..].iter().all(|f| *f == code + 0xff));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
    }

    #[test]
    fn the_border_is_that_of_the_header() {
        let mut source = String::from("#include <linux/types.h>\n#include <stddef.h>\n#include \"host.h\"\n");
        for (field, offset) in [
            ("row_chunks", offset_of!(Host, row_chunks)),
            ("tables", offset_of!(Host, tables)),
            ("read", offset_of!(Host, read)),
            ("memory", offset_of!(Host, memory)),
            ("pc", offset_of!(Host, pc)),
            ("lr", offset_of!(Host, lr)),
            ("frames", offset_of!(Host, frames)),
            ("taken", offset_of!(Host, taken)),
            ("reason", offset_of!(Host, reason)),
            ("late", offset_of!(Host, late)),
        ] {
            source += &format!("_Static_assert(offsetof(struct host, {field}) == {offset}, \"{field}\");\n");
        }
        for (name, size) in [("host", size_of::<Host>()), ("array", size_of::<Array>())] {
            source += &format!("_Static_assert(sizeof(struct {name}) == {size}, \"{name}\");\n");
        }
        let mut file = tempfile::Builder::new().suffix(".c").tempfile().unwrap();
        file.write_all(source.as_bytes()).unwrap();
        let host = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bpf/host");
        let status = Command::new("cc").args(["-fsyntax-only", "-I", host]).arg(file.path()).status().unwrap();
        assert!(status.success(), "host.rs and host.h disagree: see the assertion above");
    }
}

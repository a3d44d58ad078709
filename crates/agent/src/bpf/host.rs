//! The kernel program's walk in user space: `bpf/step.h` over arrays in memory, compiled
//! from `bpf/host`. It walks stacks that the kernel could only copy, and gives tests the very
//! code that runs in the kernel. It keeps nothing between two walks, and threads may walk
//! side by side.

use std::{ffi::c_void, fmt, marker::PhantomData};

use everflame_profile::Completeness;
use everflame_unwind::Rule;

pub use super::abi::Registers;
use super::{abi, machine};

/// Where a walk reads what is not in its tables: stacks, and the code that frames return to.
pub trait Memory {
    /// Fills `into` from `address` on; `false` where not all of it can be read. Must not panic:
    /// the caller is C.
    fn read(&self, address: u64, into: &mut [u8]) -> bool;
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
    at: Registers,
    address_mask: u64,
    frames: *mut u64,
    taken: u32,
    reason: u32,
    late: u32,
    reserved: u32,
}

unsafe extern "C" {
    fn everflame_walk(host: *mut Host);
    fn everflame_rules(host: *mut Host, executable: u32, addresses: *const u64, count: u32, rules: *mut Rule);
}

impl Host {
    /// With these tables, and nothing else to look at.
    fn with(tables: &TableView<'_>) -> Self {
        Self {
            mappings: Array::of::<abi::Mapping>(&[], size_of::<abi::Mapping>()),
            row_chunks: Array::of(&tables.chunks, size_of::<Array>()),
            tables: tables.places,
            read: nothing,
            memory: std::ptr::null(),
            at: Registers::default(),
            address_mask: machine::address_mask(),
            frames: std::ptr::null_mut(),
            taken: 0,
            reason: 0,
            late: 0,
            reserved: 0,
        }
    }
}

extern "C" fn nothing(_: *const c_void, _: u64, _: *mut u8, _: u32) -> i32 {
    -1
}

/// What an executable's table says of ELF virtual addresses, by the look-up of the kernel
/// program; [`Rule::NONE`] where it says nothing.
pub fn rules(tables: &TableView<'_>, executable: u32, addresses: &[u64]) -> Vec<Rule> {
    let mut rules = vec![Rule::NONE; addresses.len()];
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    // SAFETY: all arrays are as long as they say and live until the call returns; there are as
    // many rules as addresses, and any bytes make a rule.
    unsafe { everflame_rules(&mut Host::with(tables), executable, addresses.as_ptr(), count, rules.as_mut_ptr()) };
    rules
}

/// Walks from `at` to the root, or as far as it gets. `mappings` are sorted by start; where
/// they are not, or where tables are nonsense, so is the answer, but it comes all the same.
pub fn walk(at: Registers, mappings: &[abi::Mapping], tables: &TableView<'_>, memory: &dyn Memory) -> Walked {
    let mut frames = Vec::with_capacity(abi::USER_FRAMES);
    let mut host = Host {
        mappings: Array::of(mappings, size_of::<abi::Mapping>()),
        read,
        memory: (&raw const memory).cast(),
        at,
        address_mask: machine::address_mask(),
        frames: frames.as_mut_ptr(),
        ..Host::with(tables)
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
#[path = "host_tests.rs"]
mod tests;

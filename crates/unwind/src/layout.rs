//! The table as the kernel program reads it: `bpf/abi.h`, "unwind tables", in Rust.
//!
//! The numbers here are the border. A test compiles a small C program against `abi.h`
//! and compares every size, offset and constant.

/// Bytes of one element.
pub const ELEMENT_SIZE: usize = 64;
/// Elements of one chunk of the linear space.
pub const CHUNK_ELEMENTS: u32 = 16_384;
/// Grows when a table of the same file comes to mean or hold something else: tables that are kept are made anew.
pub const VERSION: u32 = 5;
/// First word of every table, "EFT1".
pub const TABLE_MAGIC: u32 = 0x3154_4645;
/// Pairs in a block of rows.
pub const BLOCK_PAIRS: usize = 30;
/// (offset, rule) pairs in a sequence.
pub const SEQUENCE_PAIRS: usize = 16;
/// The same in a short one, of which four share an element.
pub const SHORT_SEQUENCE_PAIRS: usize = 4;
/// Rules in an element.
pub const RULES_PER_ELEMENT: usize = 4;
/// Pages of the directory in an element.
pub const PAGES_PER_ELEMENT: usize = 8;
/// Delta value that means "advance by code * 256", or the end of the block where code is 0.
pub const DELTA_ADVANCE: u8 = 255;
/// Code that means "the rule's number is the next pair".
pub const CODE_ESCAPE: u8 = 255;
/// `unwind_rule.flags`: the caller's pc is exact, not a return address.
pub const RULE_SIGNAL: u8 = 1;
/// `unwind_rule.flags`: the caller is on another stack, so its CFA may be anywhere.
pub const RULE_SWITCH: u8 = 2;
/// `unwind_rule.flags`: where a thread stands, its code is looked at first ([`crate::peek`]).
pub const RULE_PEEK: u8 = 4;
/// `unwind_rule.flags`: the caller's rbx is at cfa + `ra_offset`, unchanged where that is 0.
pub const RULE_RBX: u8 = 8;

/// DWARF's number of rbx.
pub const RBX: i16 = 3;

/// How the canonical frame address is found.
pub mod cfa {
    /// No unwind data here.
    pub const NONE: u8 = 0;
    /// sp + `cfa_offset`.
    pub const SP: u8 = 1;
    /// fp + `cfa_offset`.
    pub const FP: u8 = 2;
    /// sp + 8 + (8 if (pc & 15) >= `cfa_offset`).
    pub const PLT: u8 = 3;
    /// *(fp + `cfa_offset`) + `cfa_add`.
    pub const DEREF_FP: u8 = 4;
    /// *(sp + `cfa_offset`) + `cfa_add`.
    pub const DEREF_SP: u8 = 5;
    /// The return address is undefined: this frame is a root.
    pub const END: u8 = 6;
    /// There is unwind data that cannot be expressed.
    pub const UNSUPPORTED: u8 = 7;
    /// Register number `cfa_add`, where it is known, + `cfa_offset`.
    pub const REGISTER: u8 = 8;
}

/// Where the caller's frame pointer is.
pub mod fp {
    /// Still in the register.
    pub const SAME: u8 = 0;
    /// At cfa + `fp_offset`.
    pub const CFA: u8 = 1;
    /// At sp + `fp_offset`, sp before this step.
    pub const SP: u8 = 2;
    /// Not recoverable.
    pub const UNKNOWN: u8 = 3;
    /// At fp + `fp_offset`, fp before this step (realigned stacks).
    pub const FP: u8 = 4;
}

/// Where the return address is.
pub mod ra {
    /// At cfa - 8.
    pub const CFA_8: u8 = 0;
    /// At sp + `ra_offset`, sp before this step.
    pub const SP: u8 = 1;
    /// In register number `ra_offset`, where it is known.
    pub const REGISTER: u8 = 2;
    /// At cfa + `fp_offset` + 8: behind the caller's frame pointer, where that is saved at all.
    pub const RECORD: u8 = 3;
    /// At cfa + `ra_offset` words of 8 bytes.
    pub const CFA_WORDS: u8 = 4;
}

/// One way to unwind a frame: `struct unwind_rule`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct Rule {
    /// One of [`cfa`].
    pub cfa: u8,
    /// One of [`fp`].
    pub fp: u8,
    /// One of [`ra`].
    pub ra: u8,
    /// [`RULE_SIGNAL`], [`RULE_SWITCH`], [`RULE_PEEK`], [`RULE_RBX`].
    pub flags: u8,
    /// Bytes; see [`cfa`].
    pub cfa_offset: i32,
    /// Bytes; see [`fp`].
    pub fp_offset: i32,
    /// Bytes, or a register; see [`ra`] and [`RULE_RBX`].
    pub ra_offset: i16,
    /// Bytes added after the dereference, or a register.
    pub cfa_add: i16,
}

impl Rule {
    /// Size in a table.
    pub const SIZE: usize = 16;
    /// No unwind data.
    pub const NONE: Self = Self::of(cfa::NONE, 0);
    /// A root.
    pub const END: Self = Self::of(cfa::END, 0);
    /// Unwind data that cannot be expressed.
    pub const UNSUPPORTED: Self = Self::of(cfa::UNSUPPORTED, 0);
    /// A signal trampoline of x86-64: sp points at the kernel's `struct ucontext`.
    pub const SIGNAL_FRAME: Self = Self {
        cfa: cfa::DEREF_SP,
        fp: fp::SP,
        ra: ra::SP,
        flags: RULE_SIGNAL,
        cfa_offset: 160,
        fp_offset: 120,
        ra_offset: 168,
        cfa_add: 0,
    };

    /// A rule with this CFA, frame pointer unchanged, return address at cfa - 8.
    pub const fn of(cfa: u8, cfa_offset: i32) -> Self {
        Self { cfa, fp: fp::SAME, ra: ra::CFA_8, flags: 0, cfa_offset, fp_offset: 0, ra_offset: 0, cfa_add: 0 }
    }

    /// The same with the caller's frame pointer saved at cfa + `offset`.
    pub const fn with_fp_at(mut self, offset: i32) -> Self {
        self.fp = fp::CFA;
        self.fp_offset = offset;
        self
    }

    /// Whether the frame is found by a register that functions below it may have saved.
    pub fn is_found_by_rbx(self) -> bool {
        self.cfa == cfa::REGISTER && self.cfa_add == RBX
    }

    /// As it lies in a table.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[..4].copy_from_slice(&[self.cfa, self.fp, self.ra, self.flags]);
        out[4..8].copy_from_slice(&self.cfa_offset.to_le_bytes());
        out[8..12].copy_from_slice(&self.fp_offset.to_le_bytes());
        out[12..14].copy_from_slice(&self.ra_offset.to_le_bytes());
        out[14..].copy_from_slice(&self.cfa_add.to_le_bytes());
        out
    }

    /// The inverse of [`Rule::to_bytes`].
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [cfa, fp, ra, flags, a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Self {
            cfa,
            fp,
            ra,
            flags,
            cfa_offset: i32::from_le_bytes([a, b, c, d]),
            fp_offset: i32::from_le_bytes([e, f, g, h]),
            ra_offset: i16::from_le_bytes([i, j]),
            cfa_add: i16::from_le_bytes([k, l]),
        }
    }
}

/// Element 0 of a table: `struct table_header`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Header {
    /// [`TABLE_MAGIC`].
    pub magic: u32,
    /// Length of the table.
    pub elements: u32,
    /// ELF virtual address of relative pc 0.
    pub base: u64,
    /// First element of the page directory.
    pub directory: u32,
    /// 64 KiB pages covered.
    pub pages: u32,
    /// First element of the row blocks.
    pub blocks: u32,
    /// How many of them.
    pub block_count: u32,
    /// First element of the rules.
    pub rules: u32,
    /// How many of them.
    pub rule_count: u32,
    /// Codes below this number are rules.
    pub direct_rules: u32,
    /// First element of the sequences.
    pub sequences: u32,
    /// How many of them.
    pub sequence_count: u32,
    /// How many of them are short, the first ones.
    pub short_count: u32,
    /// Zero.
    pub reserved: u32,
}

impl Header {
    /// As it lies in a table.
    pub fn to_bytes(&self) -> [u8; ELEMENT_SIZE] {
        let mut out = [0; ELEMENT_SIZE];
        out[..4].copy_from_slice(&self.magic.to_le_bytes());
        out[4..8].copy_from_slice(&self.elements.to_le_bytes());
        out[8..16].copy_from_slice(&self.base.to_le_bytes());
        let words = [
            self.directory,
            self.pages,
            self.blocks,
            self.block_count,
            self.rules,
            self.rule_count,
            self.direct_rules,
            self.sequences,
            self.sequence_count,
            self.short_count,
        ];
        for (slot, word) in out[16..].chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        out
    }
}

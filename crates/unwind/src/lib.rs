//! ELF bytes to compact unwind rows and rule tables. No IO, no unsafe.
//!
//! [`convert`] reads call frame information (`.eh_frame`, `.debug_frame`) and Go's function
//! tables, follows the code of musl (and of the vDSO of arm64), which has neither, and writes them in the one layout
//! that the kernel program reads as it is (`bpf/abi.h`, mirrored in [`layout`]). A file is never trusted: what is malformed is
//! counted and passed over, what is too much is refused, and nothing panics.
#![forbid(unsafe_code)]

mod cfa;
mod code;
mod code_arm64;
mod elf;
mod encode;
mod error;
mod expression;
mod frame;
mod functions;
mod go;
mod go_arm64;
mod go_text;
mod instruction;
mod known;
pub mod layout;
mod limits;
mod machine;
mod pclntab;
pub mod peek;
mod pieces;
mod reader;
mod rules;
mod sections;
mod sequences;
mod stack;
mod table;

pub use error::Error;
pub use layout::Rule;
pub use limits::Limits;
pub use machine::Machine;
pub use table::{Stats, Table};

use elf::Elf;
use functions::{Aim, Collector};

/// The unwind table of an executable, a shared library or a vDSO image.
///
/// `elf` is the whole file (or the whole image, for the vDSO).
///
/// # Errors
/// See [`Error`]. Malformed parts of the unwind data are no error but counted in [`Stats`].
pub fn convert(elf: &[u8], limits: &Limits) -> Result<Table, Error> {
    let elf = Elf::parse(elf)?;
    if limits.machine.is_some_and(|machine| machine != elf.machine) {
        return Err(Error::Unsupported(format!("of another machine: {:?}", elf.machine)));
    }
    if elf.machine != Machine::X86_64 {
        return finish(collect(&elf, limits, Aim::Rows)?, limits);
    }
    let functions = collect(&elf, limits, Aim::RowsBesideCode)?;
    if functions.found_by_rbx && functions.stats.fdes <= limits::MAX_FOLLOWED {
        return finish(collect(&elf, limits, Aim::RowsWithRbx)?, limits);
    }
    if functions.code_tells_enough() {
        return finish(functions, limits);
    }
    drop(functions);
    finish(collect(&elf, limits, Aim::Rows)?, limits)
}

fn finish(mut functions: Collector<'_>, limits: &Limits) -> Result<Table, Error> {
    let (base, rows) = functions.flatten()?;
    let mut stats = functions.stats;
    let rules = functions.rules.list();
    let unsupported = |row: &&functions::FlatRow| rules[row.rule as usize].cfa == layout::cfa::UNSUPPORTED;
    stats.unsupported_rows = rows.iter().filter(unsupported).count() as u64;
    let bytes = encode::encode(base, rows, &functions.rules, limits, &mut stats)?;
    Ok(Table::new(bytes, stats))
}

/// Virtual address ranges `[start, end)` of the functions that have unwind data, sorted, without overlap.
///
/// Code without symbols is grouped by them.
///
/// # Errors
/// As [`convert`], except that rows are not looked at.
pub fn function_ranges(elf: &[u8]) -> Result<Vec<(u64, u64)>, Error> {
    let elf = Elf::parse(elf)?;
    let ranges = collect(&elf, &Limits::default(), Aim::Ranges)?.covered();
    if ranges.is_empty() { Err(Error::NoUnwindData) } else { Ok(ranges) }
}

/// Where functions begin in code that has no unwind data, sorted, as far as its instructions tell.
///
/// Only musl's code is followed. Symbols of its assembly do not say their size, and what is behind
/// one may be another function without a name.
///
/// # Errors
/// As [`convert`], except that rows are not looked at.
pub fn function_begins(elf: &[u8]) -> Result<Vec<u64>, Error> {
    let elf = Elf::parse(elf)?;
    if elf.machine != Machine::X86_64 {
        return Ok(Vec::new());
    }
    let limits = Limits::default();
    Ok(code::begins(&elf, &mut collect(&elf, &limits, Aim::Ranges)?))
}

fn collect<'l>(elf: &Elf<'l>, limits: &'l Limits, aim: Aim) -> Result<Collector<'l>, Error> {
    let mut out = Collector::new(elf.machine, limits, elf.code().copied().collect(), aim);
    let is_go = go::read(elf, &mut out)?;
    if let Some(section) = sections::eh_frame(elf) {
        frame::read(&section, &mut out)?;
    }
    // Go compresses its own, which says no more than its function table.
    if let Some(data) = sections::debug_frame(elf, !is_go) {
        let section = frame::Section { data: &data, address: 0, debug: true, unbounded: false };
        frame::read(&section, &mut out)?;
    }
    if aim != Aim::Ranges {
        let bare = out.stats.fdes == 0;
        known::read(elf, &mut out)?;
        match elf.machine {
            Machine::X86_64 => code::read(elf, &mut out)?,
            Machine::Arm64 => code_arm64::read(elf, bare, &mut out)?,
        }
    }
    Ok(out)
}

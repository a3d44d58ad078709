//! What gimli says of an address. Framehop answers something everywhere: where a file says
//! nothing of an address, or says it in a way that it cannot follow, it guesses by frame
//! pointer. A guess is no second opinion, so each address is looked at first.

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrameHdr, LittleEndian, Operation, RegisterRule, StoreOnHeap, UnwindContext,
    UnwindSection, X86_64,
};

use super::image::{Bytes, Part};

/// Most functions of a file without a search table that are looked at.
const MAX_FUNCTIONS: usize = 1 << 20;

/// What is needed to go from a frame to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    /// The canonical frame address is a register and an offset, the return address lies
    /// below it, the caller's frame pointer at an offset from it or still in its register.
    Plain { from_fp: bool, offset: i64, fp_at: Option<i64> },
    /// An expression over registers (the procedure linkage table).
    Computed,
    /// The return address is undefined: a root.
    End,
    /// What the kernel left for a signal handler to return to.
    Signal,
    /// Nothing that framehop can follow.
    Unsupported,
}

/// How the description of a function is found.
#[derive(Debug)]
pub(super) enum Finder {
    /// By `.eh_frame_hdr`.
    Header(Part),
    /// By our own list of (start, offset), sorted.
    Index(Vec<(u64, usize)>),
}

impl Finder {
    /// Lists all functions of a section.
    pub fn index<'a, S: UnwindSection<Bytes<'a>>>(section: &S, bases: &BaseAddresses) -> Self {
        let mut list = Vec::new();
        let mut entries = section.entries(bases);
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else { continue };
            let Ok(fde) = partial.parse(S::cie_from_offset) else { continue };
            list.push((fde.initial_address(), fde.offset()));
            if list.len() >= MAX_FUNCTIONS {
                break;
            }
        }
        list.sort_unstable();
        Self::Index(list)
    }

    fn offset(&self, bases: &BaseAddresses, address: u64) -> Option<usize> {
        match self {
            Self::Header(header) => {
                let header = EhFrameHdr::new(header, LittleEndian).parse(bases, 8).ok()?;
                let table = header.table()?;
                table.pointer_to_offset(table.lookup(address, bases).ok()?).ok().map(|offset| offset.0)
            }
            Self::Index(list) => {
                let at = list.partition_point(|(start, _)| *start <= address).checked_sub(1)?;
                list.get(at).map(|(_, offset)| *offset)
            }
        }
    }

    /// The row for an ELF virtual address; `None` where the section says nothing of it.
    pub fn row<'a, S: UnwindSection<Bytes<'a>>>(
        &self,
        section: &S,
        bases: &BaseAddresses,
        address: u64,
    ) -> Option<Row> {
        let offset = S::Offset::from(self.offset(bases, address)?);
        let fde = section.fde_from_offset(bases, offset, S::cie_from_offset).ok()?;
        if !fde.contains(address) {
            return None;
        }
        if fde.is_signal_trampoline() {
            return Some(Row::Signal);
        }
        let mut context: UnwindContext<usize, StoreOnHeap> = UnwindContext::new();
        let row = fde.unwind_info_for_address(section, bases, &mut context, address).ok()?;
        match row.register(X86_64::RA) {
            None | Some(RegisterRule::Undefined) => return Some(Row::End),
            Some(RegisterRule::Offset(-8)) => {}
            Some(_) => return Some(Row::Unsupported),
        }
        let fp_at = match row.register(X86_64::RBP) {
            None | Some(RegisterRule::SameValue) => None,
            Some(RegisterRule::Offset(offset)) => Some(offset),
            Some(_) => return Some(Row::Unsupported),
        };
        Some(match row.cfa() {
            // Framehop counts in words.
            CfaRule::RegisterAndOffset { offset, .. } if offset % 8 != 0 => Row::Unsupported,
            CfaRule::RegisterAndOffset { register: X86_64::RSP, offset } => {
                Row::Plain { from_fp: false, offset: *offset, fp_at }
            }
            CfaRule::RegisterAndOffset { register: X86_64::RBP, offset } => {
                Row::Plain { from_fp: true, offset: *offset, fp_at }
            }
            CfaRule::RegisterAndOffset { .. } => Row::Unsupported,
            CfaRule::Expression(expression) => {
                let expression = expression.get(section).ok()?;
                let mut operations = expression.operations(fde.cie().encoding());
                let mut follows = fp_at.is_none();
                while let Ok(Some(operation)) = operations.next() {
                    follows &= match operation {
                        Operation::Deref { .. } => false,
                        Operation::RegisterOffset { register, .. } => {
                            matches!(register, X86_64::RSP | X86_64::RBP | X86_64::RA)
                        }
                        _ => true,
                    };
                }
                if follows { Row::Computed } else { Row::Unsupported }
            }
        })
    }
}

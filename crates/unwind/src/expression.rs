//! The few DWARF expressions that compilers and libraries really use in call frame information.
//!
//! A general evaluator has no place in a kernel program; what is not recognised here is
//! counted as unsupported.
use crate::machine::Machine;
use crate::reader::Reader;

const DW_OP_DEREF: u8 = 0x06;
const DW_OP_PLUS: u8 = 0x22;
const DW_OP_PLUS_UCONST: u8 = 0x23;
const DW_OP_LIT0: u8 = 0x30;
const DW_OP_LIT31: u8 = 0x4f;
const DW_OP_BREG0: u8 = 0x70;

/// The frame or the stack pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    Fp,
    Sp,
}

/// A recognised expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// register + offset
    Sum(Base, i64),
    /// *(register + offset) + add
    Deref(Base, i64, i64),
    /// another register, by its number, + offset; no expression that is recognised here is one
    Register(i16, i64),
    /// sp + 8 + (8 if (pc & 15) >= the number)
    Plt(u8),
}

/// What `code` computes, if it is one of the known shapes.
pub(crate) fn recognise(code: &[u8], machine: Machine) -> Option<Shape> {
    // x86-64: breg7 8; breg16 0; lit15; and; litN; ge; lit3; shl; plus
    if let [0x77, 8, 0x80, 0, 0x3f, 0x1a, at @ DW_OP_LIT0..=DW_OP_LIT31, 0x2a, 0x33, 0x24, DW_OP_PLUS] = *code {
        return Some(Shape::Plt(at - DW_OP_LIT0));
    }
    let mut reader = Reader::new(code);
    let base = match reader.u8()? {
        op if op == DW_OP_BREG0 + machine.fp() as u8 => Base::Fp,
        op if op == DW_OP_BREG0 + machine.sp() as u8 => Base::Sp,
        _ => return None,
    };
    let mut offset = reader.sleb()?;
    let mut deref = false;
    let mut add = 0i64;
    while !reader.is_empty() {
        match reader.u8()? {
            DW_OP_DEREF if !deref => deref = true,
            DW_OP_PLUS_UCONST => {
                let more = i64::try_from(reader.uleb()?).ok()?;
                let target = if deref { &mut add } else { &mut offset };
                *target = target.checked_add(more)?;
            }
            _ => return None,
        }
    }
    Some(if deref { Shape::Deref(base, offset, add) } else { Shape::Sum(base, offset) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognise(code: &[u8]) -> Option<Shape> {
        super::recognise(code, Machine::X86_64)
    }

    #[test]
    fn knows_what_compilers_write() {
        let plt = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
        assert_eq!(recognise(&plt), Some(Shape::Plt(11)));
        assert_eq!(recognise(&[0x76, 0x78, 0x06]), Some(Shape::Deref(Base::Fp, -8, 0)));
        assert_eq!(recognise(&[0x77, 0xa0, 0x01, 0x06]), Some(Shape::Deref(Base::Sp, 160, 0)));
        assert_eq!(recognise(&[0x77, 0x00, 0x06, 0x23, 0x10]), Some(Shape::Deref(Base::Sp, 0, 16)));
        assert_eq!(recognise(&[0x76, 0]), Some(Shape::Sum(Base::Fp, 0)));
        assert_eq!(super::recognise(&[0x8d, 16, 0x06], Machine::Arm64), Some(Shape::Deref(Base::Fp, 16, 0)));
        assert_eq!(super::recognise(&[0x8f, 8], Machine::Arm64), Some(Shape::Sum(Base::Sp, 8)));
        assert_eq!(super::recognise(&[0x76, 0], Machine::Arm64), None);
    }

    #[test]
    fn refuses_the_rest() {
        for code in [&[][..], &[0x75, 0], &[0x76], &[0x76, 0x78, 0x06, 0x06], &[0x77, 8, 0x80, 0, 0x3f, 0x1a]] {
            assert_eq!(recognise(code), None, "{code:x?}");
        }
    }
}

//! The interpreter of call frame programs: from instructions to rows, for the registers that unwinding needs.
//!
//! Tracked are the CFA, the frame pointer, rbx, the stack pointer and the return address; all else is passed over. A
//! row is told to the caller as the pc from which a [`Rule`] holds.
use crate::expression::{Base, Shape, recognise};
use crate::layout::{RULE_RBX, RULE_SIGNAL, Rule, cfa, fp, ra};
use crate::limits::MAX_REMEMBERED;
use crate::machine::{LINK, Machine};
use crate::reader::Reader;

const RCX: u64 = 2;
const RBX: u64 = 3;

/// The registers that are tracked, by DWARF's numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tracked {
    machine: Machine,
    fp: u64,
    sp: u64,
    bx: u64,
    ra: u64,
}

impl Tracked {
    /// `ra` is what the file calls the return address.
    pub fn new(machine: Machine, ra: u64) -> Self {
        let bx = if machine == Machine::X86_64 { RBX } else { u64::MAX };
        Self { machine, fp: machine.fp(), sp: machine.sp(), bx, ra }
    }
}

/// How the CFA is computed.
#[derive(Debug, Clone, Copy)]
enum Cfa<'a> {
    Unset,
    Register(u64, i64),
    Expression(&'a [u8]),
}

/// Where a register of the caller is.
#[derive(Debug, Clone, Copy)]
enum Saved<'a> {
    Unset,
    Undefined,
    Same,
    At(i64),
    Value(i64),
    Expression(&'a [u8]),
    Register(u64),
    Other,
}

/// One row of the table that the instructions describe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State<'a> {
    cfa: Cfa<'a>,
    fp: Saved<'a>,
    bx: Saved<'a>,
    sp: Saved<'a>,
    ra: Saved<'a>,
}

impl<'a> State<'a> {
    pub const EMPTY: Self =
        Self { cfa: Cfa::Unset, fp: Saved::Unset, bx: Saved::Unset, sp: Saved::Unset, ra: Saved::Unset };

    fn slot(&mut self, register: u64, tracked: &Tracked) -> Option<&mut Saved<'a>> {
        match register {
            r if r == tracked.fp => Some(&mut self.fp),
            r if r == tracked.bx => Some(&mut self.bx),
            r if r == tracked.sp => Some(&mut self.sp),
            r if r == tracked.ra => Some(&mut self.ra),
            _ => None,
        }
    }

    fn set(&mut self, register: u64, tracked: &Tracked, saved: Saved<'a>) {
        if let Some(slot) = self.slot(register, tracked) {
            *slot = saved;
        }
    }

    fn restore(&mut self, register: u64, tracked: &Tracked, mut initial: Self) {
        if let Some(initial) = initial.slot(register, tracked) {
            self.set(register, tracked, *initial);
        }
    }

    /// The row as a rule, which says where rbx is if it is to be followed; what cannot be expressed is
    /// [`Rule::UNSUPPORTED`].
    pub fn rule(&self, machine: Machine, signal: bool, follow_rbx: bool) -> Rule {
        if matches!(self.ra, Saved::Undefined) {
            return Rule::END;
        }
        let rule = self.express(machine, signal).unwrap_or(Rule::UNSUPPORTED);
        if follow_rbx && rule.ra == ra::CFA_8 { self.with_rbx(rule) } else { rule }
    }

    fn with_rbx(&self, rule: Rule) -> Rule {
        let offset = match self.bx {
            Saved::Unset | Saved::Same => Some(0),
            Saved::At(offset) => i16::try_from(offset).ok().filter(|offset| *offset != 0),
            _ => None,
        };
        offset.map_or(rule, |offset| Rule { flags: rule.flags | RULE_RBX, ra_offset: offset, ..rule })
    }

    fn express(&self, machine: Machine, signal: bool) -> Option<Rule> {
        let recognise = |code| recognise(code, machine);
        let mut rule = Rule { flags: if signal { RULE_SIGNAL } else { 0 }, ..Rule::NONE };
        let shape = match self.cfa {
            Cfa::Unset => None,
            Cfa::Register(number, offset) if number == machine.fp() => Some(Shape::Sum(Base::Fp, offset)),
            Cfa::Register(number, offset) if number == machine.sp() => Some(Shape::Sum(Base::Sp, offset)),
            Cfa::Register(number, offset) if number < machine.registers() => {
                Some(Shape::Register(number as i16, offset))
            }
            Cfa::Register(..) => None,
            Cfa::Expression(code) => recognise(code),
        }?;
        match shape {
            Shape::Register(number, offset) => {
                rule.cfa = cfa::REGISTER;
                rule.cfa_offset = i32::try_from(offset).ok()?;
                rule.cfa_add = number;
                // The end of an unwinder's own function, by which it leaves for a landing pad: no
                // call stands before that.
                if machine == Machine::X86_64 && number as u64 == RCX {
                    rule.flags |= RULE_SIGNAL;
                }
            }
            Shape::Sum(base, offset) => {
                rule.cfa = if base == Base::Fp { cfa::FP } else { cfa::SP };
                rule.cfa_offset = i32::try_from(offset).ok()?;
            }
            Shape::Deref(base, offset, add) => {
                rule.cfa = if base == Base::Fp { cfa::DEREF_FP } else { cfa::DEREF_SP };
                rule.cfa_offset = i32::try_from(offset).ok()?;
                rule.cfa_add = i16::try_from(add).ok()?;
            }
            Shape::Plt(at) => {
                rule.cfa = cfa::PLT;
                rule.cfa_offset = i32::from(at);
            }
        }
        match self.fp {
            Saved::Unset | Saved::Same => rule.fp = fp::SAME,
            Saved::At(offset) => rule = rule.with_fp_at(i32::try_from(offset).ok()?),
            Saved::Expression(code) => match recognise(code) {
                Some(Shape::Sum(base, offset)) => {
                    rule.fp = if base == Base::Fp { fp::FP } else { fp::SP };
                    rule.fp_offset = i32::try_from(offset).ok()?;
                }
                _ => rule.fp = fp::UNKNOWN,
            },
            Saved::Undefined | Saved::Value(_) | Saved::Register(_) | Saved::Other => rule.fp = fp::UNKNOWN,
        }
        match self.ra {
            Saved::At(-8) if machine == Machine::X86_64 => rule.ra = ra::CFA_8,
            Saved::At(offset) if machine == Machine::Arm64 => {
                if rule.fp == fp::SAME {
                    rule.fp_offset = i32::try_from(offset.checked_sub(8)?).ok()?;
                }
                if matches!(rule.fp, fp::SAME | fp::CFA) && i64::from(rule.fp_offset) + 8 == offset {
                    rule.ra = ra::RECORD;
                } else {
                    rule.ra = ra::CFA_WORDS;
                    rule.ra_offset = i16::try_from(offset / 8).ok().filter(|_| offset % 8 == 0)?;
                }
            }
            Saved::Unset | Saved::Same if machine == Machine::Arm64 => {
                rule.ra = ra::REGISTER;
                rule.ra_offset = LINK;
            }
            Saved::Register(number) if number < machine.registers() => {
                rule.ra = ra::REGISTER;
                rule.ra_offset = number as i16;
                // On x86-64 no call leaves its return address in a register.
                if machine == Machine::X86_64 {
                    rule.flags |= RULE_SIGNAL;
                }
            }
            Saved::Expression(code) => match recognise(code)? {
                Shape::Sum(Base::Sp, offset) => {
                    rule.ra = ra::SP;
                    rule.ra_offset = i16::try_from(offset).ok()?;
                }
                _ => return None,
            },
            _ => return None,
        }
        // The caller's sp is the CFA, by convention; other words for the same are fine.
        match self.sp {
            Saved::Unset | Saved::Same | Saved::Value(0) => Some(rule),
            Saved::Expression(code) => match (recognise(code), shape) {
                (Some(Shape::Sum(base, at)), Shape::Deref(from, offset, 0)) if base == from && at == offset => {
                    Some(rule)
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// What the instructions of one CIE and its FDEs are read with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program<'a> {
    pub code_align: u64,
    pub data_align: i64,
    pub tracked: Tracked,
    /// The state after the CIE's own instructions.
    pub initial: State<'a>,
}

/// Why a program ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// States remembered, reused from one function to the next.
pub(crate) type Remembered<'a> = Vec<State<'a>>;

impl<'a> Program<'a> {
    /// Runs `code` from `start`. `row(pc, state)` is called for each pc at which one or more
    /// rules may have changed, in growing order of pc; the first time with `start` itself.
    /// `set_loc` decodes the operand of `DW_CFA_set_loc`.
    pub fn run(
        &self,
        mut code: Reader<'a>,
        start: u64,
        remembered: &mut Remembered<'a>,
        set_loc: impl Fn(&mut Reader<'a>) -> Option<u64>,
        mut row: impl FnMut(u64, &State<'a>),
    ) -> Result<State<'a>, Malformed> {
        let mut state = self.initial;
        let mut pc = start;
        remembered.clear();
        while !code.is_empty() {
            let step = self.step(&mut code, &mut state, remembered, &set_loc, pc).ok_or(Malformed);
            match step {
                Ok(Some(next)) if next != pc => {
                    row(pc, &state);
                    pc = next;
                }
                Ok(_) => {}
                Err(error) => {
                    row(pc, &State::EMPTY);
                    return Err(error);
                }
            }
        }
        row(pc, &state);
        Ok(state)
    }

    /// One instruction; answers the new pc where it advances. `None`: malformed.
    #[inline]
    fn step(
        &self,
        reader: &mut Reader<'a>,
        state: &mut State<'a>,
        remembered: &mut Remembered<'a>,
        set_loc: impl Fn(&mut Reader<'a>) -> Option<u64>,
        pc: u64,
    ) -> Option<Option<u64>> {
        let advance = |units: u64| pc.checked_add(units.checked_mul(self.code_align)?);
        let scaled = |n: i64| n.checked_mul(self.data_align);
        let unsigned = |n: u64| scaled(i64::try_from(n).ok()?);
        let opcode = reader.u8()?;
        let low = u64::from(opcode & 0x3f);
        match opcode >> 6 {
            1 => return advance(low).map(Some),
            2 => {
                state.set(low, &self.tracked, Saved::At(unsigned(reader.uleb()?)?));
                return Some(None);
            }
            3 => {
                state.restore(low, &self.tracked, self.initial);
                return Some(None);
            }
            _ => {}
        }
        match opcode {
            0x00 => {}
            0x01 => {
                let next = set_loc(reader)?;
                return (next >= pc).then_some(Some(next));
            }
            0x02 => return advance(u64::from(reader.u8()?)).map(Some),
            0x03 => return advance(u64::from(reader.u16()?)).map(Some),
            0x04 => return advance(u64::from(reader.u32()?)).map(Some),
            // offset_extended, restore_extended, undefined, same_value, register
            0x05 => {
                let register = reader.uleb()?;
                state.set(register, &self.tracked, Saved::At(unsigned(reader.uleb()?)?));
            }
            0x06 => state.restore(reader.uleb()?, &self.tracked, self.initial),
            0x07 => state.set(reader.uleb()?, &self.tracked, Saved::Undefined),
            0x08 => state.set(reader.uleb()?, &self.tracked, Saved::Same),
            0x09 => {
                let register = reader.uleb()?;
                state.set(register, &self.tracked, Saved::Register(reader.uleb()?));
            }
            // remember_state, restore_state
            0x0a => {
                if remembered.len() >= MAX_REMEMBERED {
                    return None;
                }
                remembered.push(*state);
            }
            0x0b => *state = remembered.pop()?,
            // def_cfa, def_cfa_register, def_cfa_offset, def_cfa_expression
            0x0c => state.cfa = Cfa::Register(reader.uleb()?, i64::try_from(reader.uleb()?).ok()?),
            0x0d => match state.cfa {
                Cfa::Register(_, offset) => state.cfa = Cfa::Register(reader.uleb()?, offset),
                _ => return None,
            },
            0x0e => match state.cfa {
                Cfa::Register(register, _) => {
                    state.cfa = Cfa::Register(register, i64::try_from(reader.uleb()?).ok()?);
                }
                _ => return None,
            },
            0x0f => state.cfa = Cfa::Expression(block(reader)?),
            // expression, val_expression
            0x10 => {
                let register = reader.uleb()?;
                state.set(register, &self.tracked, Saved::Expression(block(reader)?));
            }
            0x16 => {
                let register = reader.uleb()?;
                block(reader)?;
                state.set(register, &self.tracked, Saved::Other);
            }
            // offset_extended_sf, def_cfa_sf, def_cfa_offset_sf
            0x11 => {
                let register = reader.uleb()?;
                state.set(register, &self.tracked, Saved::At(scaled(reader.sleb()?)?));
            }
            0x12 => state.cfa = Cfa::Register(reader.uleb()?, scaled(reader.sleb()?)?),
            0x13 => match state.cfa {
                Cfa::Register(register, _) => state.cfa = Cfa::Register(register, scaled(reader.sleb()?)?),
                _ => return None,
            },
            // val_offset, val_offset_sf
            0x14 => {
                let register = reader.uleb()?;
                state.set(register, &self.tracked, Saved::Value(unsigned(reader.uleb()?)?));
            }
            0x15 => {
                let register = reader.uleb()?;
                state.set(register, &self.tracked, Saved::Value(scaled(reader.sleb()?)?));
            }
            // AARCH64_negate_ra_state_with_pc, AARCH64_negate_ra_state: how a return address is signed, which is
            // taken off in any case
            0x2c | 0x2d if self.tracked.machine == Machine::Arm64 => {}
            // GNU_args_size, GNU_negative_offset_extended
            0x2e => drop(reader.uleb()?),
            0x2f => {
                let register = reader.uleb()?;
                state.set(register, &self.tracked, Saved::At(unsigned(reader.uleb()?)?.checked_neg()?));
            }
            _ => return None,
        }
        Some(None)
    }
}

fn block<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = reader.uleb()?;
    reader.take(length)
}

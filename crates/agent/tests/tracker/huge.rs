//! An ELF file with as much unwind data as one likes.

use std::{fs::File, io::Write, path::Path};

const ADDRESS: u64 = 0x40_0000;
/// Bytes of code of a function.
const FUNCTION: u64 = 32;

/// Writes one of so many functions, two rows each, filled up to a size.
pub fn write(path: &Path, functions: u64, size: u64) {
    let code = functions * FUNCTION;
    // Header, one segment of everything, and one that leads to the unwind data.
    let headers = 64 + 2 * 56;
    let hint = headers + code;
    let frames = hint + 8;
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    for half in [3u16, 62, 1, 0] {
        out.extend(half.to_le_bytes());
    }
    for word in [0u64, 64, 0] {
        out.extend(word.to_le_bytes());
    }
    for half in [0u16, 0, 64, 56, 2, 64, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    for (kind, offset, length) in [(1u32, 0, size), (0x6474_e550, hint, 8)] {
        out.extend(kind.to_le_bytes());
        out.extend(5u32.to_le_bytes());
        for word in [offset, ADDRESS + offset, ADDRESS + offset, length, length, 4096] {
            out.extend(word.to_le_bytes());
        }
    }
    out.resize(hint as usize, 0x90);
    // .eh_frame_hdr: version 1, pointer relative to itself.
    out.extend([1, 0x1b, 0xff, 0xff]);
    out.extend(4u32.to_le_bytes());
    // CIE: CFA = rsp + 8, return address at CFA - 8, pointers of four bytes relative to themselves.
    let cie = [1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1];
    out.extend(20u32.to_le_bytes());
    out.extend(0u32.to_le_bytes());
    out.extend(cie);
    out.extend([0; 2]);
    for function in 0..functions {
        let at = out.len() as u64;
        let start = headers + function * FUNCTION;
        out.extend(20u32.to_le_bytes());
        out.extend(((at + 4 - frames) as u32).to_le_bytes());
        out.extend((start.wrapping_sub(at + 8) as u32).to_le_bytes());
        out.extend((FUNCTION as u32).to_le_bytes());
        // No augmentation; from a place that differs on, CFA = rsp + one of many offsets.
        let offset = 16 + function % 37 * 2;
        out.extend([0, 0x41 + (function % 29) as u8, 0x0e, offset as u8]);
        out.extend([0; 4]);
    }
    out.extend(0u32.to_le_bytes());
    assert!(out.len() as u64 <= size, "{} bytes", out.len());
    let mut file = File::create(path).unwrap();
    file.write_all(&out).unwrap();
    file.set_len(size).unwrap();
}

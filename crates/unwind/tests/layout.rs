//! The Rust mirror of the table's layout against `bpf/abi.h` itself, by way of a C compiler.
use everflame_unwind::layout::{self, Header, Rule};
use std::mem::{offset_of, size_of};
use std::process::Command;

/// Compiles a program that prints `expressions`, each a C integer expression over abi.h.
fn values(expressions: &[String]) -> Vec<u64> {
    let abi = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bpf/abi.h");
    let lines: String =
        expressions.iter().map(|e| format!("printf(\"%llu\\n\", (unsigned long long)({e}));\n")).collect();
    let source = format!(
        "#include <linux/types.h>\n#include <stddef.h>\n#include <stdio.h>\n#include \"{abi}\"\nint main(void) {{\n{lines}return 0;\n}}\n"
    );
    let directory = tempfile::tempdir().expect("a directory for the C program");
    let (file, program) = (directory.path().join("abi.c"), directory.path().join("abi"));
    std::fs::write(&file, source).expect("written");
    let done = Command::new("cc").arg("-o").arg(&program).arg(&file).status().expect("a C compiler named cc");
    assert!(done.success(), "abi.h compiles");
    let output = Command::new(&program).output().expect("runs");
    String::from_utf8(output.stdout).expect("text").lines().map(|l| l.parse().expect("a number")).collect()
}

#[test]
fn mirrors_abi_h() {
    let mut expected: Vec<(String, u64)> = vec![
        ("sizeof(struct table_header)".into(), size_of::<Header>() as u64),
        ("sizeof(struct unwind_rule)".into(), size_of::<Rule>() as u64),
        ("sizeof(struct unwind_rule)".into(), Rule::SIZE as u64),
        ("sizeof(struct row_block)".into(), layout::ELEMENT_SIZE as u64),
        ("sizeof(((struct row_block *)0)->pairs) / 2".into(), layout::BLOCK_PAIRS as u64),
        ("offsetof(struct row_block, pairs)".into(), 4),
        ("ELEMENT_SIZE / sizeof(struct page_blocks)".into(), layout::PAGES_PER_ELEMENT as u64),
        ("ELEMENT_SIZE / sizeof(struct unwind_rule)".into(), layout::RULES_PER_ELEMENT as u64),
        ("ELEMENT_SIZE".into(), layout::ELEMENT_SIZE as u64),
        ("CHUNK_ELEMENTS".into(), u64::from(layout::CHUNK_ELEMENTS)),
        ("TABLE_MAGIC".into(), u64::from(layout::TABLE_MAGIC)),
        ("RULE_SIGNAL".into(), u64::from(layout::RULE_SIGNAL)),
        ("RULE_SWITCH".into(), u64::from(layout::RULE_SWITCH)),
        ("RULE_PEEK".into(), u64::from(layout::RULE_PEEK)),
    ];
    let kinds = [
        ("CFA_NONE", layout::cfa::NONE),
        ("CFA_SP", layout::cfa::SP),
        ("CFA_FP", layout::cfa::FP),
        ("CFA_PLT", layout::cfa::PLT),
        ("CFA_DEREF_FP", layout::cfa::DEREF_FP),
        ("CFA_DEREF_SP", layout::cfa::DEREF_SP),
        ("CFA_END", layout::cfa::END),
        ("CFA_UNSUPPORTED", layout::cfa::UNSUPPORTED),
        ("CFA_REGISTER", layout::cfa::REGISTER),
        ("RA_REGISTER", layout::ra::REGISTER),
        ("RULE_RBX", layout::RULE_RBX),
        ("FP_SAME", layout::fp::SAME),
        ("FP_CFA", layout::fp::CFA),
        ("FP_SP", layout::fp::SP),
        ("FP_UNKNOWN", layout::fp::UNKNOWN),
        ("FP_FP", layout::fp::FP),
        ("RA_CFA_8", layout::ra::CFA_8),
        ("RA_SP", layout::ra::SP),
        ("RA_RECORD", layout::ra::RECORD),
        ("RA_CFA_WORDS", layout::ra::CFA_WORDS),
    ];
    expected.extend(kinds.iter().map(|(name, value)| ((*name).to_owned(), u64::from(*value))));
    macro_rules! offsets {
        ($c:literal, $rust:ty, $($field:ident)*) => {
            $(expected.push((format!("offsetof(struct {}, {})", $c, stringify!($field)), offset_of!($rust, $field) as u64));)*
        };
    }
    offsets!("table_header", Header, magic elements base directory pages blocks block_count rules rule_count
        direct_rules sequences sequence_count short_count reserved);
    offsets!("unwind_rule", Rule, cfa fp ra flags cfa_offset fp_offset ra_offset cfa_add);
    let found = values(&expected.iter().map(|(e, _)| e.clone()).collect::<Vec<_>>());
    assert_eq!(found.len(), expected.len());
    for ((expression, want), got) in expected.iter().zip(found) {
        assert_eq!(got, *want, "{expression}");
    }
}

#[test]
fn bytes_lie_where_the_fields_are() {
    let rule = Rule {
        cfa: 1,
        fp: 2,
        ra: 3,
        flags: 4,
        cfa_offset: 0x0807_0605,
        fp_offset: 0x0c0b_0a09,
        ra_offset: 0x0e0d,
        cfa_add: 0x100f,
    };
    let bytes: Vec<u8> = (1..=16).collect();
    assert_eq!(rule.to_bytes()[..], bytes);
    assert_eq!(Rule::from_bytes(rule.to_bytes()), rule);

    let header = Header { magic: 1, elements: 2, base: 3, directory: 4, sequence_count: 12, ..Header::default() };
    let bytes = header.to_bytes();
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    assert_eq!(word(offset_of!(Header, magic)), 1);
    assert_eq!(word(offset_of!(Header, elements)), 2);
    assert_eq!(word(offset_of!(Header, base)), 3);
    assert_eq!(word(offset_of!(Header, directory)), 4);
    assert_eq!(word(offset_of!(Header, sequence_count)), 12);
}

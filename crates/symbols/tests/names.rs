//! Names of frames, and indexes as older programs wrote them.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use everflame_profile::{Frame, FrameKind, Line, Mapping};
use everflame_symbols::{ContentId, Error, Index, name_frame};

/// Written by version 1 of the format, from a program with `helper`, `work` and
/// `_start`. Never made anew: old indexes are read for ever.
const V1: &[u8] = include_bytes!("fixtures/v1.efsym");

#[test]
fn version_1_is_read() {
    let index = Index::parse(V1).unwrap();
    assert_eq!((index.name(), index.build_id()), ("tiny", "1234567890abcdef"));
    assert_eq!(Some(index.content_id()), ContentId::parse("ac5b3fb10a25de78aa19e10ab15edd0f"));
    assert_eq!((index.functions(), index.named(), index.refused()), (3, 3, 0));
    let functions: Vec<_> = index.iter().map(|f| (f.start, f.end, f.name.unwrap())).collect();
    let expected = [(0x401000, 0x40100c, "helper"), (0x40100c, 0x401015, "work"), (0x401015, 0x401021, "_start")];
    assert_eq!(functions, expected);
    assert_eq!(index.lookup(0x40100b).unwrap().name, Some("helper"));
    assert_eq!(index.lookup(0x401021), None);
    assert_eq!(index.lookup(0x400fff), None);
}

#[test]
fn another_version_says_what_to_do() {
    let mut newer = V1.to_vec();
    newer[8] = 2;
    assert_eq!(Index::parse(newer).unwrap_err(), Error::IndexVersion { found: 2, known: 1 });
    assert_eq!(Index::parse(b"something else").unwrap_err(), Error::NotIndex);
}

fn frame(module: Option<&str>, address: u64, lines: &[(&str, &str, u32)]) -> Frame {
    let mapping = |name: &str| Arc::new(Mapping { name: name.into(), build_id: "".into(), content_id: None });
    let line =
        |&(function, file, line): &(&str, &str, u32)| Line { function: function.into(), file: file.into(), line };
    let kind = FrameKind(FrameKind::NATIVE.into());
    Frame { kind, mapping: module.map(mapping), address, lines: lines.iter().map(line).collect() }
}

fn named(frame: &Frame, index: Option<&Index<&[u8]>>) -> Vec<(String, String, u32)> {
    name_frame(frame, index).into_iter().map(|n| (n.function.into_owned(), n.file.to_owned(), n.line)).collect()
}

fn one(function: &str) -> Vec<(String, String, u32)> {
    vec![(function.to_owned(), String::new(), 0)]
}

#[test]
fn names_that_came_with_the_frame_stand() {
    let index = Index::parse(V1).unwrap();
    let frame = frame(Some("tiny"), 0x401000, &[("inner", "a.py", 3), ("outer", "b.py", 4)]);
    let expected = vec![("inner".into(), "a.py".into(), 3), ("outer".into(), "b.py".into(), 4)];
    assert_eq!(named(&frame, Some(&index)), expected);
}

#[test]
fn an_empty_name_that_came_is_none() {
    let index = Index::parse(V1).unwrap();
    let frame = frame(Some("tiny"), 0x401001, &[("", "a.c", 3)]);
    assert_eq!(named(&frame, Some(&index)), [("helper".into(), "a.c".into(), 3)]);
}

#[test]
fn the_index_names_native_frames() {
    let index = Index::parse(V1).unwrap();
    assert_eq!(named(&frame(Some("tiny"), 0x401010, &[]), Some(&index)), one("work"));
    assert_eq!(named(&frame(Some("tiny"), 0x401021, &[]), Some(&index)), one("tiny+0x401021"));
}

#[test]
fn without_an_index_the_address_is_the_name() {
    assert_eq!(named(&frame(Some("envoy"), 0x1a2b44, &[]), None), one("envoy+0x1a2b44"));
    assert_eq!(named(&frame(Some("[anon]"), 0x7f00_0000_1000, &[]), None), one("[anon]"));
    assert_eq!(named(&frame(None, 0x7f00_0000_1000, &[]), None), one("[anon]"));
}

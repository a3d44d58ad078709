//! Folded stacks: one line a stack, `process;outermost;…;leaf COUNT`, which flame
//! graph programs and `sort | uniq` understand.

use std::collections::BTreeMap;

use crate::named::{NamedFrame, NamedProfile, NamedSample};

/// The profile as folded text, in samples: equal stacks summed, lines sorted.
///
/// The first frame is the process; kernel frames end in `_[k]`; a stack that did not
/// reach its root has `[incomplete: REASON]` after the process. In names, `;` becomes
/// `:`, and line ends and other control characters become spaces, so that a line is
/// always one stack.
pub fn folded(profile: &NamedProfile) -> String {
    let mut counts = BTreeMap::<String, u64>::new();
    for sample in &profile.samples {
        let count = counts.entry(stack(sample)).or_default();
        *count = count.saturating_add(sample.count);
    }
    counts.iter().filter(|(_, count)| **count > 0).map(|(stack, count)| format!("{stack} {count}\n")).collect()
}

fn stack(sample: &NamedSample) -> String {
    let mut line = String::new();
    push_escaped(&mut line, if sample.process.trim().is_empty() { "[unknown]" } else { &sample.process });
    if let Some(marker) = sample.marker() {
        line.push(';');
        push_escaped(&mut line, &marker);
    }
    for NamedFrame { function, kernel, .. } in sample.frames.iter().rev() {
        line.push(';');
        push_escaped(&mut line, if function.trim().is_empty() { "[unknown]" } else { function });
        if *kernel {
            line.push_str("_[k]");
        }
    }
    line
}

fn push_escaped(line: &mut String, name: &str) {
    line.extend(name.chars().map(|c| match c {
        ';' => ':',
        c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => ' ',
        c => c,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Completeness;

    fn frame(function: &str, kernel: bool) -> NamedFrame {
        let function = function.into();
        NamedFrame { function, file: "".into(), line: 0, kernel, inlined: false, mapping: None, address: 0 }
    }

    fn sample(process: &str, leaf_first: &[(&str, bool)], count: u64, completeness: Completeness) -> NamedSample {
        let frames = leaf_first.iter().map(|(name, kernel)| frame(name, *kernel)).collect();
        let (pid, tid, value) = (7, 8, count as i64);
        NamedSample { frames, process: process.into(), pid, thread: process.into(), tid, count, value, completeness }
    }

    #[test]
    fn root_first_summed_and_sorted() {
        let samples = vec![
            sample("shop", &[("read", true), ("f", false), ("main", false)], 2, Completeness::Complete),
            sample("shop", &[("f", false), ("main", false)], 1, Completeness::Complete),
            sample("shop", &[("read", true), ("f", false), ("main", false)], 3, Completeness::Complete),
            sample("shop", &[("f", false)], 4, Completeness::NoUnwindInfo),
        ];
        let text = folded(&NamedProfile { samples, ..Default::default() });
        let expected = "shop;[incomplete: no_unwind_info];f 4\nshop;main;f 1\nshop;main;f;read_[k] 5\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_name_cannot_break_out_of_its_frame() {
        let hostile = sample("a;b\nc 9", &[("x;y\n\r\u{2028}z", false), ("", false)], 1, Completeness::Complete);
        let text = folded(&NamedProfile { samples: vec![hostile], ..Default::default() });
        assert_eq!(text, "a:b c 9;[unknown];x:y   z 1\n");
    }

    #[test]
    fn no_samples_no_lines() {
        let nothing = sample("idle", &[], 0, Completeness::Complete);
        assert_eq!(folded(&NamedProfile { samples: vec![nothing], ..Default::default() }), "");
    }
}

//! How many instructions the verifier may look at: a program that needs more than its budget
//! fails here, long before an old kernel refuses it (at a million) or takes seconds to load it.

use std::collections::BTreeMap;

use everflame_tests::machine;
use serde_json::Value;

use super::image::Kernel;

/// Compares the figures of a kernel with the budget and prints them.
pub fn check(kernel: &Kernel, release: &str, counts: &Value) {
    let path = machine::repository().join("tests/kernels/budget.json");
    let budget: BTreeMap<String, u64> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut over = Vec::new();
    for (program, count) in counts.as_object().unwrap() {
        let count = count.as_u64().unwrap();
        let limit = budget.get(program).unwrap_or_else(|| panic!("{program} has no budget in budget.json"));
        println!("verified {release} {} {program}: {count} of {limit}", kernel.architecture);
        if count > *limit {
            over.push(format!("{program} needs {count} verified instructions, its budget is {limit}"));
        }
    }
    assert!(over.is_empty(), "kernel {release}: {over:?}");
    assert_eq!(counts.as_object().unwrap().len(), budget.len(), "programs in budget.json that are not loaded");
}

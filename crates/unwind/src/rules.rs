//! The different rules of a file, each with a number: rows name them by it.
use crate::layout::{RULE_PEEK, Rule};
use rustc_hash::FxHashMap;

/// Rules by number.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    list: Vec<Rule>,
    numbers: FxHashMap<Rule, u32>,
}

impl Rules {
    pub fn number(&mut self, rule: Rule) -> u32 {
        *self.numbers.entry(rule).or_insert_with(|| {
            self.list.push(rule);
            // No more rules than rows, and those are counted in u32.
            (self.list.len() - 1) as u32
        })
    }

    pub fn list(&self) -> &[Rule] {
        &self.list
    }

    pub fn get(&self, number: u32) -> Rule {
        self.list.get(number as usize).copied().unwrap_or_default()
    }

    /// Whether this is a rule that lets the code speak first.
    pub fn peeks(&self, number: u32) -> bool {
        self.get(number).flags & RULE_PEEK != 0
    }

    /// The number of the same rule that lets the code speak first.
    pub fn peeking(&mut self, number: u32) -> u32 {
        let rule = self.get(number);
        self.number(Rule { flags: rule.flags | RULE_PEEK, ..rule })
    }
}

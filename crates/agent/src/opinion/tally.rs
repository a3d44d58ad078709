//! The sum of all verdicts, whole and by executable, under a bound.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use everflame_profile::{ExecutableOpinion, SecondOpinion, Str};

use super::compare::Verdict;
use crate::status::Metrics;

/// Executables that are counted apart, by name; all others are counted under [`OTHER`].
pub const MAX_NAMES: usize = 256;
/// Of these, how many `/metrics` names, and how many a report does.
pub const MAX_LABELS: usize = 50;
/// See [`MAX_LABELS`].
pub const MAX_REPORTED: usize = 16;
/// What stands for the executables beyond a bound.
pub const OTHER: &str = "(other)";
/// How often a report says it.
const SAID_EVERY: Duration = Duration::from_secs(30);
/// Longest name in a report.
const MAX_NAME: usize = 64;

#[derive(Debug, Default)]
struct Sums {
    agree: u64,
    differ: u64,
    shorter: u64,
    not_judged: BTreeMap<&'static str, u64>,
    names: HashMap<Str, Counts>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    agree: u64,
    differ: u64,
    shorter: u64,
}

impl Counts {
    fn judged(&self) -> u64 {
        self.agree + self.differ + self.shorter
    }
}

/// All verdicts so far.
#[derive(Debug)]
pub struct Tally {
    every: u32,
    sums: Mutex<Sums>,
}

impl Tally {
    /// One sample in `every` is looked at.
    pub fn new(every: u32) -> Self {
        Self { every, sums: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a verdict. `names` are the executables it is about: those on the stack where
    /// both agree, the one whose step went wrong where they do not.
    pub fn add(&self, verdict: Verdict, names: &[Str]) {
        let mut sums = self.lock();
        match verdict {
            Verdict::Agree => sums.agree += 1,
            Verdict::Differ(_) => sums.differ += 1,
            Verdict::Shorter(_) => sums.shorter += 1,
            Verdict::NotJudged(reason) => {
                *sums.not_judged.entry(reason).or_default() += 1;
                return;
            }
        }
        for name in names {
            let full = sums.names.len() >= MAX_NAMES && !sums.names.contains_key(name);
            let name = if full { Str::from(OTHER) } else { Str::clone(name) };
            let counts = sums.names.entry(name).or_default();
            match verdict {
                Verdict::Agree => counts.agree += 1,
                Verdict::Differ(_) => counts.differ += 1,
                _ => counts.shorter += 1,
            }
        }
    }

    /// For a report, unless there is nothing to say or one to the same server said it not long
    /// ago: it is a good part of a report's bytes. `said`: when that was.
    pub fn report(&self, said: &mut Option<Instant>) -> Option<SecondOpinion> {
        let now = Instant::now();
        if said.is_some_and(|said| now - said < SAID_EVERY) {
            return None;
        }
        let opinion = self.sums();
        if opinion.agree + opinion.differ + opinion.shorter == 0 && opinion.not_judged.is_empty() {
            return None;
        }
        *said = Some(now);
        Some(opinion)
    }

    fn sums(&self) -> SecondOpinion {
        let sums = self.lock();
        let executables = sums.top(MAX_REPORTED).into_iter().map(|(name, counts)| ExecutableOpinion {
            name: name.chars().take(MAX_NAME).collect(),
            agree: counts.agree,
            differ: counts.differ,
            shorter: counts.shorter,
        });
        SecondOpinion {
            every: self.every,
            agree: sums.agree,
            differ: sums.differ,
            shorter: sums.shorter,
            not_judged: sums.not_judged.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
            executables: executables.collect(),
        }
    }

    /// For `/metrics`.
    pub fn metrics(&self, metrics: &mut Metrics) {
        let sums = self.lock();
        let help = "Stacks that a second, independent walk was compared with, by outcome.";
        for (outcome, count) in [("agree", sums.agree), ("differ", sums.differ), ("shorter", sums.shorter)] {
            metrics.counter("second_opinion_stacks", help, &[("outcome", outcome)], count as f64);
        }
        let help = "Stacks that the second walk could not judge, by the reason it ended.";
        for (reason, count) in &sums.not_judged {
            metrics.counter("second_opinion_not_judged", help, &[("reason", reason)], *count as f64);
        }
        let help =
            "Stacks judged by executable: all on the stack where both walks agree, else the one whose step differs.";
        for (name, counts) in sums.top(MAX_LABELS) {
            for (outcome, count) in [("agree", counts.agree), ("differ", counts.differ), ("shorter", counts.shorter)] {
                let labels = [("executable", &*name), ("outcome", outcome)];
                metrics.counter("second_opinion_executable_stacks", help, &labels, count as f64);
            }
        }
    }
}

impl Sums {
    /// The executables that most was said of; what is left under one name.
    fn top(&self, limit: usize) -> Vec<(Str, Counts)> {
        let mut all: Vec<(Str, Counts)> = self.names.iter().map(|(name, counts)| (Str::clone(name), *counts)).collect();
        // A disagreement is worth a line before any agreement.
        all.sort_by(|(a, x), (b, y)| (y.differ, y.judged(), a).cmp(&(x.differ, x.judged(), b)));
        let mut rest = Counts::default();
        let other = all.iter().position(|(name, _)| &**name == OTHER).map(|at| all.remove(at).1);
        for (_, counts) in all.drain(limit.min(all.len())..).chain(other.map(|counts| (Str::from(OTHER), counts))) {
            rest.agree += counts.agree;
            rest.differ += counts.differ;
            rest.shorter += counts.shorter;
        }
        if rest.judged() > 0 {
            all.push((Str::from(OTHER), rest));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_bound_are_one() {
        let tally = Tally::new(7);
        let name = |n: usize| Str::from(format!("file{n:03}"));
        for n in 0..MAX_NAMES + 100 {
            for _ in 0..=n % 3 {
                tally.add(Verdict::Agree, &[name(n), Str::from("libc.so.6")]);
            }
        }
        tally.add(Verdict::Differ(3), &[name(5)]);
        tally.add(Verdict::Shorter(3), &[name(4)]);
        tally.add(Verdict::NotJudged("stack_too_short"), &[name(4)]);
        let mut said = None;
        let report = tally.report(&mut said).unwrap();
        assert_eq!(tally.report(&mut said), None, "said a moment ago");
        assert_eq!((report.every, report.differ, report.shorter, report.not_judged["stack_too_short"]), (7, 1, 1, 1));
        assert_eq!(report.executables.len(), MAX_REPORTED + 1);
        assert_eq!((report.executables[0].name.as_str(), report.executables[0].differ), ("file005", 1));
        assert_eq!((report.executables[1].name.as_str(), report.executables[1].agree), ("libc.so.6", report.agree));
        assert_eq!(report.executables.last().unwrap().name, OTHER);
        let said: u64 = report.executables.iter().map(|e| e.agree).sum();
        assert_eq!(said, 2 * report.agree, "each names two");
        assert_eq!(tally.lock().names.len(), MAX_NAMES + 1);
        let mut metrics = Metrics::default();
        tally.metrics(&mut metrics);
        let text = metrics.into_text();
        assert_eq!(text.matches("outcome=\"agree\"").count(), 1 + MAX_LABELS + 1);
        assert!(text.contains("everflame_agent_second_opinion_not_judged_total{reason=\"stack_too_short\"} 1"));
    }
}

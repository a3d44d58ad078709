//! The account of one instance, living or dead.

use everflame_profile::Report;
use serde::{Deserialize, Serialize};

use super::{
    About, KernelCounters, KernelCounts, KernelUsage, LedgerError,
    region::{BANK, Region},
};

/// Reasons there are.
const REASONS: usize = 5;
/// Where their figures begin in a region: further reasons go behind, where there were zeros before.
const DROPPED: usize = 16;

/// Why user space dropped samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The spool was at its limit, or could be written neither on disk nor in memory.
    SpoolFull,
    /// A batch in the spool could not be read back.
    SpoolUnreadable,
    /// The agent was killed while they were in its ring, its aggregate or only in its memory.
    AgentDied,
    /// The server refused the whole request for good (too large, not understood).
    Refused,
    /// Of processes that are not to be profiled.
    Filtered,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; REASONS] =
        [Self::SpoolFull, Self::SpoolUnreadable, Self::AgentDied, Self::Refused, Self::Filtered];

    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SpoolFull => "spool_full",
            Self::SpoolUnreadable => "spool_unreadable",
            Self::AgentDied => "agent_died",
            Self::Refused => "refused",
            Self::Filtered => "filtered",
        }
    }
}

/// What user space counts. Samples, except for the sequences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// Taken out of the ring buffer, ever.
    pub consumed: u64,
    /// In the aggregate, or in a batch that is not in the spool yet.
    pub aggregate: u64,
    /// In the spool, not under way.
    pub spool: u64,
    /// In a request that is under way.
    pub sent: u64,
    /// Acknowledged by the server, ever.
    pub acknowledged: u64,
    /// Dropped, by [`Reason`] in the order of [`Reason::ALL`].
    #[serde(deserialize_with = "by_reason")]
    pub dropped: [u64; REASONS],
    /// Last batch that left the head of the spool: acknowledged, refused for good or
    /// unreadable. The first batch is 1.
    pub finished_sequence: u64,
    /// Last batch that was dropped to make room.
    pub dropped_sequence: u64,
    /// The older batch that stayed in the spool then.
    pub kept_sequence: u64,
    /// Last report.
    pub report_sequence: u64,
}

impl Figures {
    fn to_words(self) -> [u64; BANK] {
        let fields = [
            self.consumed,
            self.aggregate,
            self.spool,
            self.sent,
            self.acknowledged,
            self.finished_sequence,
            self.dropped_sequence,
            self.kept_sequence,
            self.report_sequence,
        ];
        let mut words = [0; BANK];
        words[..fields.len()].copy_from_slice(&fields);
        words[DROPPED..DROPPED + REASONS].copy_from_slice(&self.dropped);
        words
    }

    fn from_words(words: &[u64; BANK]) -> Self {
        let mut dropped = [0; REASONS];
        dropped.copy_from_slice(&words[DROPPED..DROPPED + REASONS]);
        Self {
            consumed: words[0],
            aggregate: words[1],
            spool: words[2],
            sent: words[3],
            acknowledged: words[4],
            finished_sequence: words[5],
            dropped_sequence: words[6],
            kept_sequence: words[7],
            report_sequence: words[8],
            dropped,
        }
    }

    /// Counts samples as dropped.
    pub fn drop_for(&mut self, reason: Reason, samples: u64) {
        self.dropped[reason as usize] += samples;
    }

    /// Whether the batch of a file has left the spool as far as the figures go.
    fn is_gone(&self, sequence: u64) -> bool {
        sequence <= self.finished_sequence || (sequence <= self.dropped_sequence && sequence != self.kept_sequence)
    }
}

/// What an agent of another version wrote may have fewer reasons.
fn by_reason<'de, D: serde::Deserializer<'de>>(from: D) -> Result<[u64; REASONS], D::Error> {
    let given = Vec::<u64>::deserialize(from)?;
    Ok(std::array::from_fn(|at| given.get(at).copied().unwrap_or(0)))
}

/// An account as it is kept beside the spool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    /// Whose.
    pub about: About,
    /// Of the same moment.
    pub figures: Figures,
    /// Of the same moment.
    pub kernel: KernelCounts,
}

/// Reports that an instance may have sent after its account was last saved: the sequence
/// goes on beyond them.
const UNSAVED_REPORTS: u64 = 1 << 32;

enum Place {
    Region(Region),
    Memory(Figures),
}

/// One instance's figures, wherever they are kept, and its kernel counters.
pub(super) struct Account {
    pub about: About,
    place: Place,
    kernel: Box<dyn KernelCounters>,
}

impl Account {
    /// The account of a new instance.
    pub fn open(about: About, region: Region, kernel: Box<dyn KernelCounters>) -> Result<Self, LedgerError> {
        let instance = match u128::from_str_radix(&about.instance, 16) {
            Ok(instance) if about.instance.len() == 32 => instance,
            _ => return Err(LedgerError::Instance(about.instance)),
        };
        region.sign(instance, about.since);
        Ok(Self { about, place: Place::Region(region), kernel })
    }

    /// The account that a dead instance left in memory.
    pub fn reopen(mut about: About, region: Region, kernel: Box<dyn KernelCounters>) -> Self {
        let (instance, since) = region.signature();
        about.instance = format!("{instance:032x}");
        about.since = since;
        Self { about, place: Place::Region(region), kernel }
    }

    /// The account that a dead instance left on disk.
    pub fn revive(saved: Saved) -> Self {
        let Saved { about, mut figures, kernel } = saved;
        figures.report_sequence += UNSAVED_REPORTS;
        Self { about, place: Place::Memory(figures), kernel: Box::new(Kept(kernel)) }
    }

    pub fn figures(&self) -> Figures {
        match &self.place {
            Place::Region(region) => Figures::from_words(&region.read()),
            Place::Memory(figures) => *figures,
        }
    }

    pub fn counts(&self) -> KernelCounts {
        self.kernel.snapshot()
    }

    pub fn usage(&self) -> KernelUsage {
        self.kernel.usage()
    }

    pub fn save(&self) -> Saved {
        Saved { about: self.about.clone(), figures: self.figures(), kernel: self.counts() }
    }

    pub fn change(&mut self, change: impl FnOnce(&mut Figures)) {
        let mut figures = self.figures();
        change(&mut figures);
        match &mut self.place {
            Place::Region(region) => region.write(&figures.to_words()),
            Place::Memory(kept) => *kept = figures,
        }
    }

    /// The report once `acknowledged` samples have left `sent`. Of the dead, what still
    /// waits in the ring has died with them.
    pub fn report(&mut self, acknowledged: u64, dead: bool) -> Report {
        let kernel = self.counts();
        self.change(|f| {
            f.report_sequence += 1;
            if dead {
                bury(f, &kernel);
            }
        });
        let f = self.figures();
        let About { instance, node, since, agent_version, kernel: release, cpus, rate, project } = self.about.clone();
        let mut dropped: std::collections::BTreeMap<String, u64> =
            Reason::ALL.into_iter().map(|reason| (reason.as_str().to_string(), f.dropped[reason as usize])).collect();
        dropped.insert("ring_full".to_string(), kernel.ring_full);
        dropped.retain(|_, samples| *samples > 0);
        let stages = [
            ("ring", kernel.ring.saturating_sub(f.consumed)),
            ("aggregate", f.aggregate),
            ("spool", f.spool),
            ("sent", f.sent.saturating_sub(acknowledged)),
        ];
        Report {
            instance,
            node,
            project,
            sequence: f.report_sequence,
            since,
            agent_version,
            kernel: release,
            cpus,
            rate,
            taken: kernel.taken,
            idle: kernel.idle,
            in_flight: stages.into_iter().map(|(stage, samples)| (stage.to_string(), samples)).collect(),
            dropped,
            missed_sure: kernel.missed_sure,
            missed_perhaps_idle: kernel.missed_perhaps_idle,
            ..Report::default()
        }
    }

    /// Brings the figures of a dead instance in line with what its spool holds, and counts
    /// what died. `files`: sequence and samples. Answers with the sequences of files that
    /// have left the spool as far as the figures go.
    pub fn settle(&mut self, files: &[(u64, u64)]) -> Vec<u64> {
        let before = self.figures();
        let gone: Vec<u64> = files.iter().map(|(sequence, _)| *sequence).filter(|s| before.is_gone(*s)).collect();
        let kept = files.iter().filter(|(sequence, _)| !before.is_gone(*sequence));
        let spooled: u64 = kept.map(|(_, samples)| samples).sum();
        let mut kernel = self.counts();
        // Batches on disk that the figures do not know at all (saved before them): they
        // were taken, so they are added to what is known.
        let known = kernel.ring.saturating_sub(before.consumed) + before.aggregate + before.spool + before.sent;
        let unknown = spooled.saturating_sub(known);
        if unknown > 0 {
            kernel.taken += unknown;
            kernel.ring += unknown;
            self.kernel = Box::new(Kept(kernel));
        }
        self.change(|f| {
            // Everything that was not dropped or acknowledged, in whatever stage it was...
            let alive = kernel.ring.saturating_sub(f.consumed) + f.aggregate + f.spool + f.sent;
            f.consumed = f.consumed.max(kernel.ring);
            (f.aggregate, f.spool, f.sent) = (0, spooled, 0);
            // ...is in a file, or it died.
            f.drop_for(Reason::AgentDied, alive.saturating_sub(spooled));
        });
        gone
    }
}

/// Counts what a dead instance left in its ring.
fn bury(figures: &mut Figures, kernel: &KernelCounts) {
    let died = kernel.ring.saturating_sub(figures.consumed);
    figures.consumed += died;
    figures.drop_for(Reason::AgentDied, died);
}

/// Counters that no program changes any more.
struct Kept(KernelCounts);

impl KernelCounters for Kept {
    fn snapshot(&self) -> KernelCounts {
        self.0
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("about", &self.about).field("figures", &self.figures()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_of_before_has_fewer_reasons() {
        let text = r#"{"consumed":9,"dropped":[1,2,3,4],"finished_sequence":5}"#;
        let figures: Figures = serde_json::from_str(text).unwrap();
        assert_eq!((figures.consumed, figures.dropped, figures.finished_sequence), (9, [1, 2, 3, 4, 0], 5));
        let again: Figures = serde_json::from_str(&serde_json::to_string(&figures).unwrap()).unwrap();
        assert_eq!((again, Figures::from_words(&figures.to_words())), (figures, figures));
    }
}

//! The figures of names that came late, and of the watch, for `/metrics`.

use std::sync::atomic::Ordering::Relaxed;

use super::kubernetes::Watch;
use crate::{aggregate::Waited, status::Metrics};

impl Waited {
    /// What became of those that waited.
    pub fn metrics(&self, to: &mut Metrics) {
        let figures = [
            ("samples_waited", "Samples that waited for the name of their pod.", &self.samples),
            ("containers_unnamed", "Containers that were not named in time.", &self.given_up),
        ];
        for (name, help, counter) in figures {
            to.counter(name, help, &[], counter.load(Relaxed) as f64);
        }
    }
}

impl Watch {
    /// How the pods are known.
    pub fn metrics(&self, to: &mut Metrics) {
        let stats = self.stats();
        let connected = f64::from(u8::from(stats.connected.load(Relaxed)));
        to.gauge("kubernetes_connected", "1 while the API server tells of pods.", &[], connected);
        let (all, gone) = self.pods().len();
        let help = "Pods that are known, by state.";
        to.gauge("kubernetes_pods", help, &[("state", "there")], all.saturating_sub(gone) as f64);
        to.gauge("kubernetes_pods", help, &[("state", "gone")], gone as f64);
        let refused = self.pods().refused() as f64;
        to.counter("kubernetes_pods_refused", "Times that a pod found no room.", &[], refused);
        let figures = [
            ("kubernetes_events", "News of pods.", &stats.events),
            ("kubernetes_bookmarks", "Bookmarks, which keep a quiet watch fresh.", &stats.bookmarks),
            ("kubernetes_lists", "Complete lists.", &stats.lists),
            ("kubernetes_watches", "Watches begun.", &stats.watches),
            ("kubernetes_expired", "Times that the server had forgotten where we were.", &stats.expired),
            ("kubernetes_failures", "Attempts that failed.", &stats.failures),
            ("kubernetes_owners_asked", "Owners of pods that were asked for.", &stats.owners_asked),
        ];
        for (name, help, counter) in figures {
            to.counter(name, help, &[], counter.load(Relaxed) as f64);
        }
    }
}

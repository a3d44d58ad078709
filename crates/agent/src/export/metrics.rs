//! The figures of ledgers, exporters and symbol uploads for `/metrics`. What each exporter has for
//! itself carries its name as the label `exporter`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{ExportCounters, Exporters, SymbolUploads};
use crate::{
    ledger::{Ledger, Reason},
    status::Metrics,
    usage,
};

/// Takes one counter out of those of an exporter.
type Counter = fn(&ExportCounters) -> &AtomicU64;

impl Ledger {
    /// The figures of this instance that are not one exporter's.
    fn metrics(&self, to: &mut Metrics) {
        let (about, _, kernel, cost) = self.own();
        let number = |n: u64| n as f64;
        let who = [
            ("instance", about.instance.as_str()),
            ("version", about.agent_version.as_str()),
            ("kernel", about.kernel.as_str()),
            ("node", about.node.as_str()),
        ];
        to.gauge("info", "Who this agent is.", &who, 1.0);
        to.gauge("cpus", "CPUs that are sampled.", &[], about.cpus.into());
        to.gauge("rate_hertz", "Samples per second and CPU that were asked for.", &[], about.rate.into());
        to.counter("samples_taken", "Ticks counted by the kernel program.", &[], number(kernel.taken));
        to.counter("samples_idle", "Ticks on an idle task.", &[], number(kernel.idle));
        let help = "Ticks that never reached the program.";
        to.counter("ticks_missed", help, &[("how", "sure")], number(kernel.missed_sure));
        to.counter("ticks_missed", help, &[("how", "perhaps_idle")], number(kernel.missed_perhaps_idle));
        to.gauge("program_longest_seconds", "Longest run of the kernel program.", &[], number(kernel.max_ns) / 1e9);
        to.counter("program_seconds", "Time that the kernel programs ran.", &[], number(cost.run_ns) / 1e9);
        to.gauge("kernel_maps_bytes", "Memory of the kernel maps.", &[], number(cost.map_bytes));
        let cpu = usage::cpu_seconds().unwrap_or(0.0);
        to.counter("process_cpu_seconds", "CPU time of the agent's process.", &[], cpu);
        let resident = usage::resident_bytes().unwrap_or(0);
        to.gauge("process_resident_bytes", "Memory of the agent's process.", &[], number(resident));
    }
}

impl Exporters {
    /// Everything: of the instance, and of each exporter.
    pub fn metrics(&self, to: &mut Metrics) {
        if let Some(exporter) = self.iter().next() {
            exporter.ledger().metrics(to);
        }
        self.accounts(to);
        self.requests(to);
        self.spools(to);
    }

    fn accounts(&self, to: &mut Metrics) {
        let all: Vec<_> = self.iter().map(|e| (e.name(), e.ledger().own())).collect();
        let help = "Samples that the server took.";
        for (exporter, (_, figures, ..)) in &all {
            to.counter("samples_acknowledged", help, &[("exporter", exporter)], figures.acknowledged as f64);
        }
        let help = "Samples on their way, by stage.";
        for (exporter, (_, figures, kernel, _)) in &all {
            let ring = kernel.ring.saturating_sub(figures.consumed);
            let stages =
                [("ring", ring), ("aggregate", figures.aggregate), ("spool", figures.spool), ("sent", figures.sent)];
            for (stage, samples) in stages {
                to.gauge("samples_in_flight", help, &[("exporter", exporter), ("stage", stage)], samples as f64);
            }
        }
        let help = "Samples dropped, by reason.";
        for (exporter, (_, figures, kernel, _)) in &all {
            let own = Reason::ALL.map(|reason| (reason.as_str(), figures.dropped[reason as usize]));
            for (reason, samples) in [("ring_full", kernel.ring_full)].into_iter().chain(own) {
                to.counter("samples_dropped", help, &[("exporter", exporter), ("reason", reason)], samples as f64);
            }
        }
        let help = "Killed agents whose accounts are open.";
        for exporter in self.iter() {
            let waiting = exporter.ledger().predecessors().len();
            to.gauge("dead_instances", help, &[("exporter", exporter.name())], waiting as f64);
        }
    }

    fn requests(&self, to: &mut Metrics) {
        let figures: [(&str, &str, Counter); 8] = [
            ("batches", "Batches handed to the exporter.", |c| &c.batches),
            ("batch_samples", "Their samples.", |c| &c.samples),
            ("batch_bytes", "Their bytes before compression.", |c| &c.request_bytes),
            ("batch_compressed_bytes", "Their bytes compressed.", |c| &c.compressed_bytes),
            ("requests_acknowledged", "Requests that the server took.", |c| &c.acknowledged),
            ("requests_retried", "Attempts that failed and are made again.", |c| &c.retries),
            ("requests_refused", "Requests that the server refused for good.", |c| &c.refused),
            ("requests_partial", "Requests that the server took in part.", |c| &c.partial),
        ];
        for (name, help, counter) in figures {
            for exporter in self.iter() {
                let value = counter(exporter.counters()).load(Relaxed) as f64;
                to.counter(name, help, &[("exporter", exporter.name())], value);
            }
        }
    }

    fn spools(&self, to: &mut Metrics) {
        let all: Vec<_> = self.iter().map(|e| (e.name(), e.spool())).collect();
        for (exporter, spool) in &all {
            to.gauge("spool_batches", "Batches in the spool.", &[("exporter", exporter)], spool.batches as f64);
        }
        let help = "Bytes of the spool, by place.";
        for (exporter, spool) in &all {
            for (place, bytes) in [("disk", spool.disk_bytes), ("memory", spool.memory_bytes)] {
                to.gauge("spool_bytes", help, &[("exporter", exporter), ("place", place)], bytes as f64);
            }
        }
        let flag = |is: bool| f64::from(u8::from(is));
        let help = "1 while the spool cannot be written to disk.";
        for (exporter, spool) in &all {
            to.gauge("spool_disk_failing", help, &[("exporter", exporter)], flag(spool.disk_failing));
        }
        let help = "1 while the server does not take batches.";
        for exporter in self.iter() {
            to.gauge("server_failing", help, &[("exporter", exporter.name())], flag(exporter.failure().is_some()));
        }
    }
}

impl SymbolUploads {
    /// The symbol indexes, by the exporter beside which they go.
    pub fn metrics(all: &[(&str, Self)], to: &mut Metrics) {
        for (exporter, uploads) in all {
            to.gauge("symbols_queued", "Symbol indexes that wait.", &[("exporter", exporter)], uploads.queued as f64);
        }
        for (exporter, uploads) in all {
            let bytes = uploads.queued_bytes as f64;
            to.gauge("symbols_queued_bytes", "Their bytes.", &[("exporter", exporter)], bytes);
        }
        let help = "Symbol indexes, by what became of them.";
        for (exporter, u) in all {
            let outcomes =
                [("uploaded", u.uploaded), ("known", u.known), ("refused", u.refused), ("dropped", u.dropped)];
            for (outcome, indexes) in outcomes {
                to.counter("symbols", help, &[("exporter", exporter), ("outcome", outcome)], indexes as f64);
            }
        }
        let help = "Bytes of indexes that were uploaded.";
        for (exporter, uploads) in all {
            to.counter("symbols_bytes", help, &[("exporter", exporter)], uploads.uploaded_bytes as f64);
        }
        let help = "Attempts that failed and are made again.";
        for (exporter, uploads) in all {
            to.counter("symbols_retries", help, &[("exporter", exporter)], uploads.retries as f64);
        }
    }
}

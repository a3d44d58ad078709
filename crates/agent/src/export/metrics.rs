//! The figures of ledger, exporter and symbol uploads for `/metrics`.

use std::sync::atomic::Ordering::Relaxed;

use super::{Exporter, SymbolUploads};
use crate::{ledger::Ledger, ledger::Reason, status::Metrics, usage};

impl Ledger {
    /// Every figure of this instance.
    pub fn metrics(&self, to: &mut Metrics) {
        let (about, figures, kernel, cost) = self.own();
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
        to.counter("samples_acknowledged", "Samples that the server took.", &[], number(figures.acknowledged));
        let help = "Samples on their way, by stage.";
        let ring = kernel.ring.saturating_sub(figures.consumed);
        let stages =
            [("ring", ring), ("aggregate", figures.aggregate), ("spool", figures.spool), ("sent", figures.sent)];
        for (stage, samples) in stages {
            to.gauge("samples_in_flight", help, &[("stage", stage)], number(samples));
        }
        let help = "Samples dropped, by reason.";
        to.counter("samples_dropped", help, &[("reason", "ring_full")], number(kernel.ring_full));
        for reason in Reason::ALL {
            to.counter(
                "samples_dropped",
                help,
                &[("reason", reason.as_str())],
                number(figures.dropped[reason as usize]),
            );
        }
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
        let waiting = self.predecessors().len();
        to.gauge("dead_instances", "Killed agents whose accounts are open.", &[], waiting as f64);
    }
}

impl Exporter {
    /// What it has done and how full the spool is.
    pub fn metrics(&self, to: &mut Metrics) {
        let counters = self.counters();
        let figures = [
            ("batches", "Batches handed to the exporter.", &counters.batches),
            ("batch_samples", "Their samples.", &counters.samples),
            ("batch_bytes", "Their bytes before compression.", &counters.request_bytes),
            ("batch_compressed_bytes", "Their bytes compressed.", &counters.compressed_bytes),
            ("requests_acknowledged", "Requests that the server took.", &counters.acknowledged),
            ("requests_retried", "Attempts that failed and are made again.", &counters.retries),
            ("requests_refused", "Requests that the server refused for good.", &counters.refused),
            ("requests_partial", "Requests that the server took in part.", &counters.partial),
        ];
        for (name, help, counter) in figures {
            to.counter(name, help, &[], counter.load(Relaxed) as f64);
        }
        let spool = self.spool();
        to.gauge("spool_batches", "Batches in the spool.", &[], spool.batches as f64);
        let help = "Bytes of the spool, by place.";
        to.gauge("spool_bytes", help, &[("place", "disk")], spool.disk_bytes as f64);
        to.gauge("spool_bytes", help, &[("place", "memory")], spool.memory_bytes as f64);
        let failing = f64::from(u8::from(spool.disk_failing));
        to.gauge("spool_disk_failing", "1 while the spool cannot be written to disk.", &[], failing);
        let failing = f64::from(u8::from(self.failure().is_some()));
        to.gauge("server_failing", "1 while the server does not take batches.", &[], failing);
    }
}

impl SymbolUploads {
    /// The symbol indexes.
    pub fn metrics(&self, to: &mut Metrics) {
        to.gauge("symbols_queued", "Symbol indexes that wait.", &[], self.queued as f64);
        to.gauge("symbols_queued_bytes", "Their bytes.", &[], self.queued_bytes as f64);
        let help = "Symbol indexes, by what became of them.";
        let outcomes =
            [("uploaded", self.uploaded), ("known", self.known), ("refused", self.refused), ("dropped", self.dropped)];
        for (outcome, indexes) in outcomes {
            to.counter("symbols", help, &[("outcome", outcome)], indexes as f64);
        }
        to.counter("symbols_bytes", "Bytes of indexes that were uploaded.", &[], self.uploaded_bytes as f64);
        to.counter("symbols_retries", "Attempts that failed and are made again.", &[], self.retries as f64);
    }
}

//! What a thousand pods on a node cost in memory, counted by the allocator: a figure that is the
//! same on every machine. The only test in its program, for the count is of all of it.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "pods/cluster.rs"]
mod cluster;

use std::{alloc::System, sync::atomic::Ordering::Relaxed};

use cap::Cap;
use cluster::{Cluster, pod, until};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const PODS: usize = 1_000;

#[test]
fn a_thousand_pods() {
    let cluster = Cluster::start();
    (0..PODS).for_each(|number| cluster.put(pod(number, true)));
    let sent: usize = (0..PODS).map(|number| pod(number, true).to_string().len()).sum();
    let before = HEAP.allocated();
    let watch = cluster.watch_with(None, &["version"]);
    until("all are known", || watch.stats().lists.load(Relaxed) == 1 && watch.pods().len().0 == PODS);
    until("the watch is under way", || watch.stats().watches.load(Relaxed) == 1);
    // What the server made of its answer is let go of.
    until("the list is over", || HEAP.allocated() < before + sent);
    let held = HEAP.allocated() - before;
    println!("{PODS} pods: {sent} bytes sent, {held} held, {} a pod", held / PODS);
    assert!(held < 1_500 * PODS, "{held} bytes are held");
}

//! The registry's numbers: none is lost for good.

use std::os::unix::net::UnixStream;

use super::*;
use crate::{bpf::host::TableView, processes::sink::NoRoom};

struct Nowhere;

impl TableSink for Nowhere {
    fn publish(&mut self, _: u32, _: &[u8]) -> Result<(), NoRoom> {
        Err(NoRoom)
    }
    fn withdraw(&mut self, _: u32) {}
    fn never(&mut self, _: u32) {}
    fn look(&self, _: &mut dyn FnMut(&TableView<'_>)) {}
}

#[test]
fn numbers_that_rested_are_used_again_when_there_are_no_new_ones() {
    let shared = Arc::new(Shared::new(UnixStream::pair().unwrap().0));
    let mut registry = Registry::new(Box::new(Nowhere), 0, Arc::default(), Arc::clone(&shared), None, None);
    let add = |registry: &mut Registry| registry.add(Arc::from("x"), 1, State::Unopened, None);
    let first = add(&mut registry).unwrap();
    registry.executables.remove(&first);
    registry.forget(first);
    assert_eq!(add(&mut registry), Some(first + 1), "new ones first");
    registry.next = NUMBERS;
    assert_eq!(add(&mut registry), None, "it has not rested");
    assert_eq!(shared.stats.snapshot().executables_refused, 1);
    registry.resting[0].0 = shared.seconds();
    assert_eq!(add(&mut registry), Some(first));
    assert_eq!(add(&mut registry), None);
}

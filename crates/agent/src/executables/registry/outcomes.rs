//! What the worker's answers change: facts, unwind tables and symbol indexes of an executable.

use std::sync::Arc;

use everflame_profile::Mapping;

use super::{ROOM_AGAIN, Registry, Wish};
use crate::{
    executables::{
        Outcome, SymbolIndex,
        executable::{Change, Index, State, Table},
        tables::Published,
    },
    worker::protocol::{Facts, is_table},
};

impl Registry {
    /// Takes in what a worker made.
    pub fn done(&mut self, outcome: Outcome) -> Change {
        let Outcome { job, result, starts, cached } = outcome;
        self.stats().worker_starts.add(starts);
        self.stats().tables_from_disk.add(cached.into());
        let number = job.number;
        let change = match (job.wish, result) {
            (Wish::Facts, Ok(bytes)) => match Facts::from_bytes(&bytes) {
                Some(facts) => self.learn(number, facts),
                None => {
                    self.set_bad(number, "the worker answered nonsense");
                    Change::Known(number)
                }
            },
            (Wish::Facts, Err(e)) => {
                self.set_bad(number, &e.to_string());
                Change::Known(number)
            }
            (Wish::Table, result) => {
                self.take_table(number, result.map_err(|e| e.to_string()));
                Change::None
            }
            (Wish::Index, result) => {
                self.take_index(number, result.map_err(|e| e.to_string()));
                Change::None
            }
            _ => Change::None,
        };
        if let Some(wish) = self.wish(number) {
            self.ask(number, wish, job.file);
        }
        change
    }

    fn learn(&mut self, number: u32, facts: Facts) -> Change {
        let same = self.by_content.get(&facts.content_id).copied();
        if let Some(same) = same.filter(|same| *same != number && self.executables.contains_key(same)) {
            let files = self.executables.remove(&number).map(|e| e.files).unwrap_or_default();
            for file in &files {
                if let Some(known) = self.files.get_mut(file).filter(|known| known.number == number) {
                    known.number = same;
                }
            }
            if let Some(executable) = self.executables.get_mut(&same) {
                executable.files.extend(files);
            }
            self.shared.touch(same);
            self.forget(number);
            return Change::Same(number, same);
        }
        let Some(executable) = self.executables.get_mut(&number) else { return Change::None };
        self.by_content.insert(facts.content_id, number);
        let mapping = Arc::new(Mapping {
            name: executable.name.clone(),
            build_id: Arc::from(facts.build_id),
            content_id: Some(facts.content_id),
        });
        executable.state = State::Known { segments: facts.segments.into(), mapping: Arc::clone(&mapping) };
        self.shared.set_mapping(number, mapping);
        Change::Known(number)
    }

    pub(super) fn set_bad(&mut self, number: u32, reason: &str) {
        let Some(executable) = self.executables.get_mut(&number) else { return };
        tracing::debug!("{}: {reason}", executable.name);
        executable.state = State::Bad;
        self.stats().files_bad.add(1);
    }

    fn take_table(&mut self, number: u32, result: Result<Vec<u8>, String>) {
        let now = self.shared.seconds();
        let Some(executable) = self.executables.get_mut(&number) else { return };
        let table = result.and_then(|t| if is_table(&t) { Ok(t) } else { Err("the worker answered nonsense".into()) });
        executable.table = match table {
            Ok(table) => match self.tables.publish(number, &table, now, |n| self.shared.used(n)) {
                Published::Yes => Table::Published,
                Published::NoRoom => {
                    // Until there is room nothing is to wait for it.
                    self.tables.never(number);
                    Table::NoRoom(now + ROOM_AGAIN)
                }
            },
            Err(reason) => {
                tracing::debug!("{} has no unwind table: {reason}", executable.name);
                self.shared.stats.tables_bad.add(1);
                self.tables.never(number);
                Table::Bad
            }
        };
        for (other, executable) in &mut self.executables {
            if executable.table == Table::Published && !self.tables.is_published(*other) {
                executable.table = Table::Absent(now);
            }
        }
        let stats = self.stats();
        stats.tables.set(self.tables.count() as u64);
        stats.table_bytes.set(self.tables.bytes());
        stats.tables_evicted.set(self.tables.evicted);
        stats.tables_refused.set(self.tables.refused);
    }

    fn take_index(&mut self, number: u32, result: Result<Vec<u8>, String>) {
        let Some(executable) = self.executables.get_mut(&number) else { return };
        executable.index = Index::Done;
        let State::Known { mapping, .. } = &executable.state else { return };
        match (result, mapping.content_id, &mut self.taker) {
            (Ok(bytes), Some(content_id), Some(taker)) => {
                self.shared.stats.indexes.add(1);
                taker(SymbolIndex {
                    content_id,
                    build_id: mapping.build_id.clone(),
                    name: mapping.name.clone(),
                    bytes,
                });
            }
            (Err(reason), ..) => {
                tracing::debug!("{} has no symbol index: {reason}", executable.name);
                self.shared.stats.indexes_bad.add(1);
            }
            _ => {}
        }
    }
}

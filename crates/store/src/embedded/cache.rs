//! Dictionaries of blocks in memory, the least recently used dropped beyond a budget.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use rustc_hash::FxHashMap;

use super::{
    block::{Block, BlockNames},
    dictionary::Stacks,
};

/// A bounded cache by block.
#[derive(Debug)]
pub(crate) struct Cache {
    budget: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    names: FxHashMap<String, Entry<BlockNames>>,
    stacks: FxHashMap<String, Entry<Stacks>>,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Entry<T> {
    value: Arc<T>,
    bytes: usize,
    used: u64,
}

impl Cache {
    pub fn new(budget: usize) -> Self {
        Self { budget, kept: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    pub fn names(&self, block: &Block) -> io::Result<Arc<BlockNames>> {
        self.get(block, |kept| &mut kept.names, Block::names)
    }

    pub fn stacks(&self, block: &Block) -> io::Result<Arc<Stacks>> {
        self.get(block, |kept| &mut kept.stacks, Block::stacks)
    }

    fn get<T>(
        &self,
        block: &Block,
        map: impl Fn(&mut Kept) -> &mut FxHashMap<String, Entry<T>>,
        read: impl FnOnce(&Block) -> io::Result<(T, usize)>,
    ) -> io::Result<Arc<T>> {
        {
            let mut kept = self.lock();
            kept.clock += 1;
            let used = kept.clock;
            if let Some(entry) = map(&mut kept).get_mut(&block.meta.id) {
                entry.used = used;
                return Ok(entry.value.clone());
            }
        }
        // Read without the lock: two queries may read the same, none waits.
        let (value, bytes) = read(block)?;
        let value = Arc::new(value);
        if bytes <= self.budget {
            let mut kept = self.lock();
            let used = kept.clock;
            let entry = Entry { value: value.clone(), bytes, used };
            let replaced = map(&mut kept).insert(block.meta.id.clone(), entry);
            kept.bytes += bytes;
            kept.bytes -= replaced.map_or(0, |entry| entry.bytes);
            while kept.bytes > self.budget && kept.drop_oldest() {}
        }
        Ok(value)
    }

    /// Drops what belongs to a block that is gone.
    pub fn forget(&self, id: &str) {
        let mut kept = self.lock();
        let freed = kept.names.remove(id).map_or(0, |entry| entry.bytes)
            + kept.stacks.remove(id).map_or(0, |entry| entry.bytes);
        kept.bytes -= freed;
    }
}

impl Kept {
    fn drop_oldest(&mut self) -> bool {
        fn oldest<T>(map: &FxHashMap<String, Entry<T>>) -> Option<(u64, String)> {
            map.iter().map(|(id, entry)| (entry.used, id)).min().map(|(used, id)| (used, id.clone()))
        }
        let (names, stacks) = (oldest(&self.names), oldest(&self.stacks));
        let freed = match (names, stacks) {
            (Some((used, id)), other) if other.as_ref().is_none_or(|(stacks, _)| used <= *stacks) => {
                self.names.remove(&id).map(|entry| entry.bytes)
            }
            (_, Some((_, id))) => self.stacks.remove(&id).map(|entry| entry.bytes),
            _ => None,
        };
        self.bytes -= freed.unwrap_or(0);
        freed.is_some()
    }
}

//! The symbol service: indexes as files, bounded in bytes, and names for addresses at
//! read time. What is shared is keyed by content, so that an upload can never change
//! what another executable's functions are called.

mod files;
mod map;
mod resolver;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use everflame_profile::ContentId;
use everflame_symbols::Index;
use rustc_hash::FxHashMap;

pub use resolver::{Resolver, Symbol};

use self::{files::Files, map::Mapped};
use crate::web::error::ApiError;

/// Longest index that is taken, in bytes.
pub const MAX_INDEX_BYTES: usize = 256 << 20;
/// Bounds of the symbol service.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of index files on disk; past it the longest unused ones go.
    pub stored_bytes: u64,
    /// Number of index files on disk.
    pub stored_files: usize,
    /// Bytes of indexes that are mapped at once.
    pub mapped_bytes: u64,
    /// Number of indexes that are mapped at once.
    pub mapped_files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { stored_bytes: 8 << 30, stored_files: 20_000, mapped_bytes: 1 << 30, mapped_files: 512 }
    }
}

/// Who made an index; the later one is trusted more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// An agent, from the executable it met. Stands under its content id alone.
    Agent,
    /// A person, who vouches for the build id it was put under.
    Operator,
}

impl Source {
    /// Its name in answers and file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Operator => "operator",
        }
    }
}

/// What is known of a stored index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable {
    /// Names the content that the index was made from.
    pub content_id: ContentId,
    /// GNU build id, empty where there is none.
    pub build_id: String,
    /// Base name.
    pub name: String,
    /// Functions in the index.
    pub functions: u32,
    /// Those of them with a name.
    pub named: u32,
    /// Who made it.
    pub source: Source,
}

impl Executable {
    /// What makes one better than another.
    fn quality(&self) -> (Source, u32, u32) {
        (self.source, self.named, self.functions)
    }
}

/// What became of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// Stored, as the first or the better one.
    Created,
    /// One that is at least as good stands there.
    Stands,
}

/// An index that is mapped.
#[derive(Debug)]
struct Open {
    index: Index<Mapped>,
    executable: Executable,
    bytes: u64,
}

/// Counters of the service since start.
#[derive(Debug, Default)]
pub struct SymbolCounters {
    /// Indexes stored.
    pub stored: AtomicU64,
    /// Uploads refused because they were broken.
    pub refused: AtomicU64,
    /// Indexes deleted to keep within the limits of what is stored.
    pub evicted: AtomicU64,
    /// Indexes unmapped to keep within the limits of what is mapped.
    pub unmapped: AtomicU64,
    /// Stored files that could not be read and were left aside.
    pub unreadable: AtomicU64,
}

/// The indexes of one server.
#[derive(Debug)]
pub struct Symbols {
    state: Mutex<State>,
    /// Counters.
    pub counters: SymbolCounters,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    files: Files,
    open: FxHashMap<ContentId, (Arc<Open>, u64)>,
    open_bytes: u64,
    clock: u64,
    /// Content that an operator bound to a build id.
    by_build_id: FxHashMap<String, ContentId>,
}

impl Symbols {
    /// Takes up what the directory holds, creating it if need be.
    pub fn open(directory: &Path, limits: Limits) -> std::io::Result<Self> {
        let files = Files::open(directory, limits)?;
        let operators: Vec<ContentId> = files.from(Source::Operator).collect();
        let state = State {
            limits,
            files,
            open: FxHashMap::default(),
            open_bytes: 0,
            clock: 0,
            by_build_id: FxHashMap::default(),
        };
        let symbols = Self { state: Mutex::new(state), counters: SymbolCounters::default() };
        for id in operators {
            let Some(open) = symbols.find(id) else { continue };
            let found = &open.executable;
            let bound = symbols.find_build_id(&found.build_id);
            if bound
                .is_none_or(|bound| (bound.executable.quality(), bound.executable.content_id) < (found.quality(), id))
            {
                symbols.lock().by_build_id.insert(found.build_id.clone(), id);
            }
        }
        Ok(symbols)
    }

    /// Stores an index under the id it was put under: its content id (an agent) or its
    /// build id (an operator, who must be one: `may_vouch`). Blocks.
    pub fn put(&self, id: &str, bytes: &[u8], may_vouch: bool) -> Result<Put, ApiError> {
        let index = Index::parse(bytes).map_err(|e| {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            ApiError::invalid(format!("this is not a symbol index: {e}"))
        })?;
        let content_id = index.content_id();
        let source = if ContentId::parse(&id.to_ascii_lowercase()) == Some(content_id) {
            Source::Agent
        } else if !id.is_empty() && id.eq_ignore_ascii_case(index.build_id()) {
            Source::Operator
        } else {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return Err(ApiError::invalid(format!(
                "the index is of content id {content_id}, build id \"{}\", not of {id}: put it under one of its own ids",
                index.build_id()
            )));
        };
        if source == Source::Operator && !may_vouch {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return Err(ApiError::forbidden(
                "an index under a build id gives names to every project: use a token of role admin",
            ));
        }
        let quality = (source, index.named(), index.functions());
        let same_content = self.find(content_id);
        // An operator's speaks for all that have the build id: a stripped file does not take the
        // place of its debug file.
        let same_build_id = (source == Source::Operator).then(|| self.find_build_id(index.build_id())).flatten();
        if same_content.into_iter().chain(same_build_id).any(|standing| standing.executable.quality() >= quality) {
            return Ok(Put::Stands);
        }
        let mut state = self.lock();
        let evicted = state.files.write(content_id, source, bytes).map_err(|e| {
            ApiError::unavailable(format!("the symbol index cannot be stored: {e}: free space in the data directory"))
        })?;
        self.counters.stored.fetch_add(1, Ordering::Relaxed);
        self.counters.evicted.fetch_add(evicted.len() as u64, Ordering::Relaxed);
        for gone in evicted.into_iter().chain([content_id]) {
            state.close(gone);
            state.by_build_id.retain(|_, id| *id != gone);
        }
        if source == Source::Operator {
            state.by_build_id.insert(index.build_id().to_owned(), content_id);
        }
        Ok(Put::Created)
    }

    /// Stored bytes and number of files.
    pub fn stored(&self) -> (u64, usize) {
        let state = self.lock();
        (state.files.bytes(), state.files.len())
    }

    /// Mapped bytes and number of files.
    pub fn mapped(&self) -> (u64, usize) {
        let state = self.lock();
        (state.open_bytes, state.open.len())
    }

    /// What is known under a content id, or a build id that an operator vouches for.
    pub fn get(&self, id: &str) -> Option<Executable> {
        let id = id.to_ascii_lowercase();
        let by_content = ContentId::parse(&id).and_then(|id| self.find(id));
        let open = by_content.or_else(|| self.find_build_id(&id))?;
        Some(open.executable.clone())
    }

    /// All executables, by name and then content id. Reads every index once.
    pub fn list(&self) -> Vec<Executable> {
        let ids: Vec<ContentId> = self.lock().files.ids().collect();
        let mut all: BTreeMap<(String, ContentId), Executable> = BTreeMap::new();
        for id in ids {
            let Some(open) = self.find(id) else { continue };
            all.insert((open.executable.name.clone(), id), open.executable.clone());
        }
        all.into_values().collect()
    }

    /// Names addresses for one request.
    pub fn resolver(&self) -> Resolver<'_> {
        Resolver::new(self)
    }

    fn find_build_id(&self, build_id: &str) -> Option<Arc<Open>> {
        let id = self.lock().by_build_id.get(build_id).copied()?;
        self.find(id)
    }

    /// The mapped index of a content.
    fn find(&self, id: ContentId) -> Option<Arc<Open>> {
        let mut state = self.lock();
        state.clock += 1;
        let now = state.clock;
        if let Some((open, used)) = state.open.get_mut(&id) {
            *used = now;
            return Some(open.clone());
        }
        let (path, source) = state.files.path(id)?;
        // Checking a large index takes a while: not under the lock.
        drop(state);
        let open = match read(&path, source) {
            Ok(open) if open.executable.content_id == id => Arc::new(open),
            outcome => {
                let cause = outcome.err().unwrap_or_else(|| "it is of other content than its name says".to_owned());
                tracing::warn!(path = %path.display(), cause, "a symbol index cannot be read and is left aside");
                self.counters.unreadable.fetch_add(1, Ordering::Relaxed);
                self.lock().files.forget(id);
                return None;
            }
        };
        let mut state = self.lock();
        let unmapped = state.keep(id, &open, now);
        self.counters.unmapped.fetch_add(unmapped, Ordering::Relaxed);
        state.files.used(id);
        Some(open)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Remembers an open index and answers how many others had to go for it.
    fn keep(&mut self, id: ContentId, open: &Arc<Open>, now: u64) -> u64 {
        self.close(id);
        self.open_bytes += open.bytes;
        self.open.insert(id, (open.clone(), now));
        let mut gone = 0;
        while self.open.len() > 1
            && (self.open_bytes > self.limits.mapped_bytes || self.open.len() > self.limits.mapped_files)
        {
            let oldest = self.open.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id);
            let Some(oldest) = oldest else { break };
            self.close(oldest);
            gone += 1;
        }
        gone
    }

    fn close(&mut self, id: ContentId) {
        if let Some((open, _)) = self.open.remove(&id) {
            self.open_bytes -= open.bytes;
        }
    }
}

fn read(path: &Path, source: Source) -> Result<Open, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mapped = Mapped::open(&file).map_err(|e| e.to_string())?;
    let bytes = mapped.as_ref().len() as u64;
    let index = Index::parse(mapped).map_err(|e| e.to_string())?;
    let executable = Executable {
        content_id: index.content_id(),
        build_id: index.build_id().to_owned(),
        name: index.name().to_owned(),
        functions: index.functions(),
        named: index.named(),
        source,
    };
    Ok(Open { index, executable, bytes })
}

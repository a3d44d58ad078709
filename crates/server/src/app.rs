//! What all requests of a server share.

use std::sync::Arc;

use everflame_store::Store;

use crate::{
    Config,
    access::{Access, Caller, Project, Scoped},
    ingest::body::{Budget, HELD_BYTES},
    lane::{INGEST_THREADS, INGEST_WAITING, Lane, QUERY_WAITING, query_threads},
    symbols::Symbols,
    tls::Tls,
    web::{error::ApiError, guard::Guard, metrics::Metrics},
};

/// What a request meets first.
#[derive(Debug)]
pub struct Door {
    /// By which names the server may be called.
    pub guard: Guard,
    /// How connections are encrypted, where they are.
    pub tls: Option<Tls>,
    /// Who may do what.
    pub access: Access,
}

/// One server's state.
pub struct App {
    /// How it was started.
    pub config: Config,
    /// Who may talk to it.
    pub guard: Guard,
    /// How connections are encrypted, where they are.
    pub tls: Option<Tls>,
    /// Who may do what.
    pub access: Access,
    /// Where samples are, of all projects: for what is about no caller. All else goes
    /// through [`App::store`].
    pub whole_store: Arc<dyn Store>,
    /// Where names are.
    pub symbols: Symbols,
    /// Bytes of request bodies.
    pub budget: Budget,
    /// Threads that append.
    pub ingest_lane: Lane,
    /// Threads that answer queries.
    pub query_lane: Lane,
    /// The thread that says whether the server is ready.
    pub probe_lane: Lane,
    /// Counters.
    pub metrics: Metrics,
}

impl App {
    /// The state of a server that starts now.
    pub fn new(config: Config, door: Door, whole_store: Arc<dyn Store>, symbols: Symbols) -> Self {
        let Door { guard, tls, access } = door;
        Self {
            config,
            guard,
            tls,
            access,
            whole_store,
            symbols,
            budget: Budget::new(HELD_BYTES),
            ingest_lane: Lane::new("ingest", INGEST_THREADS, INGEST_WAITING),
            query_lane: Lane::new("queries", query_threads(), QUERY_WAITING),
            probe_lane: Lane::new("probes", 1, QUERY_WAITING),
            metrics: Metrics::default(),
        }
    }

    /// The store as a caller sees it.
    pub fn store(&self, caller: &Caller) -> Scoped {
        match &caller.project {
            Project::One(project) => Scoped::to(self.whole_store.clone(), project.clone()),
            Project::Any => Scoped::all(self.whole_store.clone()),
        }
    }

    /// Runs a caller's query on one of the query threads.
    pub async fn query<T: Send + 'static>(
        self: &Arc<Self>,
        caller: &Caller,
        work: impl FnOnce(&Self, &Scoped) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (app, store) = (self.clone(), self.store(caller));
        self.query_lane.run(move || work(&app, &store)).await
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("config", &self.config).finish_non_exhaustive()
    }
}

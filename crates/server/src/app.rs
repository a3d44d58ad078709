//! What all requests of a server share.

use std::sync::Arc;

use everflame_store::Store;

use crate::{
    Config,
    ingest::body::{Budget, HELD_BYTES},
    lane::{INGEST_THREADS, INGEST_WAITING, Lane, QUERY_WAITING, query_threads},
    symbols::Symbols,
    web::{error::ApiError, guard::Guard, metrics::Metrics},
};

/// One server's state.
pub struct App {
    /// How it was started.
    pub config: Config,
    /// Who may talk to it.
    pub guard: Guard,
    /// Where samples are.
    pub store: Arc<dyn Store>,
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
    pub fn new(config: Config, guard: Guard, store: Arc<dyn Store>, symbols: Symbols) -> Self {
        Self {
            config,
            guard,
            store,
            symbols,
            budget: Budget::new(HELD_BYTES),
            ingest_lane: Lane::new("ingest", INGEST_THREADS, INGEST_WAITING),
            query_lane: Lane::new("queries", query_threads(), QUERY_WAITING),
            probe_lane: Lane::new("probes", 1, QUERY_WAITING),
            metrics: Metrics::default(),
        }
    }

    /// Runs a query on one of the query threads.
    pub async fn query<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let app = self.clone();
        self.query_lane.run(move || work(&app)).await
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("config", &self.config).finish_non_exhaustive()
    }
}

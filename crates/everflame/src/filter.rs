//! `--allow` and `--deny`: which processes are profiled.

use clap::Args;
use everflame_agent::filter::{Filter, Rules};

/// Which processes are profiled.
#[derive(Debug, Args, Clone)]
pub struct FilterOptions {
    /// Profile only processes that one of these selectors names, e.g. '{namespace=~"shop.*"}, {process="envoy"}'
    #[arg(long, value_name = "SELECTORS", env = "EVERFLAME_ALLOW", value_parser = Rules::parse)]
    pub allow: Vec<Rules>,
    /// Never profile processes that one of these selectors names, whatever --allow says
    #[arg(long, value_name = "SELECTORS", env = "EVERFLAME_DENY", value_parser = Rules::parse)]
    pub deny: Vec<Rules>,
}

impl FilterOptions {
    /// What they say together.
    pub fn filter(&self) -> Filter {
        Filter { allow: Rules::all(self.allow.clone()), deny: Rules::all(self.deny.clone()) }
    }
}

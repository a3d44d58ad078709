//! The environment variables that say where credentials are. They are handed in, so that a test can
//! say what stands there without changing its own process.

use std::{collections::HashMap, fmt, sync::Arc};

/// How a variable is looked up.
type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Variables by name.
#[derive(Clone)]
pub struct Environment(Arc<Lookup>);

impl Environment {
    /// Those of this process, as they are when asked.
    pub fn of_process() -> Self {
        Self(Arc::new(|name| std::env::var(name).ok()))
    }

    /// Exactly these.
    pub fn of<K: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        let variables: HashMap<String, String> = variables.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Self(Arc::new(move |name| variables.get(name).cloned()))
    }

    /// A variable; an empty one counts as none.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// The first of several that is there.
    pub(crate) fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.get(name))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

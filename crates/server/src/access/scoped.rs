//! The store as one caller sees it: what is written goes into the caller's project, and
//! what is read comes from it. Every query and every batch goes through here, so that this
//! is the one place that keeps projects apart.

use std::sync::Arc;

use everflame_profile::{Labels, Matcher, MatcherOp, Selector, Str};
use everflame_store::{
    Accounting, Append, Appended, Covered, LabelValue, NodeInfo, ProcessInfo, Selection, SeriesSums, StackSums, Store,
    StoreError, StoreStats, TypeInfo,
};

/// The label that says whose a sample is.
pub const PROJECT: &str = "project";

/// A store, or one project of it.
#[derive(Clone)]
pub struct Scoped {
    store: Arc<dyn Store>,
    project: Option<Str>,
}

impl Scoped {
    /// All of a store.
    pub fn all(store: Arc<dyn Store>) -> Self {
        Self { store, project: None }
    }

    /// One project of it.
    pub fn to(store: Arc<dyn Store>, project: Str) -> Self {
        Self { store, project: Some(project) }
    }

    /// The project, where it is one.
    pub fn project(&self) -> Option<&Str> {
        self.project.as_ref()
    }

    /// A selection within the project.
    fn within(&self, selection: &Selection) -> Selection {
        let mut selection = selection.clone();
        selection.selector = self.selector(&selection.selector);
        selection
    }

    fn selector(&self, selector: &Selector) -> Selector {
        let mut selector = selector.clone();
        if let Some(project) = &self.project {
            let op = MatcherOp::Equal(project.to_string());
            selector.matchers.push(Matcher { name: PROJECT.to_owned(), op });
        }
        selector
    }

    /// Whether an agent's report is of the project.
    fn has(&self, project: &str) -> bool {
        self.project.as_ref().is_none_or(|own| own.as_ref() == project)
    }

    /// The unit of an answer. That of a type which others have and this project has not is
    /// theirs to know.
    fn unit(&self, unit: String, sample_type: &str, empty: bool) -> String {
        match self.project {
            Some(_) if empty => if sample_type == "cpu" { "nanoseconds" } else { "count" }.to_owned(),
            _ => unit,
        }
    }
}

impl Store for Scoped {
    fn take(&self, mut append: Append) -> Result<Appended, StoreError> {
        if let Some(project) = &self.project {
            for resource in &mut append.batch.resources {
                *resource = with_project(resource, project);
            }
            // A sample's own attribute would go before its resource's.
            let none = Str::from("");
            let samples = append.batch.profiles.iter_mut().flat_map(|profile| &mut profile.samples);
            for sample in samples.filter(|sample| sample.labels.get(PROJECT).is_some()) {
                sample.labels = with_project(&sample.labels, &none);
            }
            if let Some(report) = &mut append.report {
                report.project = project.to_string();
            }
        }
        self.store.take(append)
    }

    fn stacks(&self, selection: &Selection, group: &[String]) -> Result<StackSums, StoreError> {
        let sums = self.store.stacks(&self.within(selection), group)?;
        let unit = self.unit(sums.unit, &selection.sample_type, sums.sums.is_empty());
        Ok(StackSums { unit, ..sums })
    }

    fn series(&self, selection: &Selection, by: Option<&str>, step_ms: i64) -> Result<SeriesSums, StoreError> {
        let sums = self.store.series(&self.within(selection), by, step_ms)?;
        let unit = self.unit(sums.unit, &selection.sample_type, sums.series.is_empty());
        Ok(SeriesSums { unit, ..sums })
    }

    fn labels(&self, selection: &Selection) -> Result<(Covered, Vec<String>), StoreError> {
        self.store.labels(&self.within(selection))
    }

    fn label_values(&self, selection: &Selection, name: &str) -> Result<(Covered, Vec<LabelValue>), StoreError> {
        self.store.label_values(&self.within(selection), name)
    }

    fn processes(&self, selection: &Selection) -> Result<(Covered, Vec<ProcessInfo>), StoreError> {
        self.store.processes(&self.within(selection))
    }

    fn types(&self, selector: &Selector) -> Result<Vec<TypeInfo>, StoreError> {
        self.store.types(&self.selector(selector))
    }

    fn nodes(&self) -> Result<Vec<NodeInfo>, StoreError> {
        let mut nodes = self.store.nodes()?;
        nodes.retain(|node| self.has(&node.report.project));
        Ok(nodes)
    }

    fn accounting(&self) -> Result<Vec<Accounting>, StoreError> {
        let mut accounts = self.store.accounting()?;
        accounts.retain(|account| self.has(&account.report.project));
        Ok(accounts)
    }

    /// Of the whole store: these are its own figures, not those of what is in it.
    fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.store.flush()
    }
}

impl std::fmt::Debug for Scoped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scoped").field("project", &self.project).finish_non_exhaustive()
    }
}

/// The labels with a project in place of any that is there; the empty one is none.
fn with_project(labels: &Labels, project: &Str) -> Labels {
    let others = labels.iter().filter(|(name, _)| name.as_ref() != PROJECT).cloned();
    others.chain([(Str::from(PROJECT), project.clone())]).collect()
}

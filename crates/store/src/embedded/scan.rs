//! The one way of every query: pick heads and blocks by time, series by their
//! labels, rows by what is left, and fold them on two threads.

use std::{
    io,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use everflame_profile::{Selector, Str};

use super::{
    binding::{BoundMatcher, Tested},
    block::{Block, BlockNames},
    dictionary::Names,
    head::HeadView,
    row::{NANOS_PER_MS, Row, ceil_ms, floor_ms},
    rows_reader::{Columns, RowReader},
};
use crate::query::{Covered, Selection};

/// Threads of one query.
const THREADS: usize = 2;

/// Heads and blocks at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub heads: Vec<Arc<HeadView>>,
    pub blocks: Vec<Arc<Block>>,
}

/// A head or block with what every query needs of it.
#[derive(Debug)]
pub(crate) enum Source {
    Head(Arc<HeadView>),
    Block(Arc<Block>, Arc<BlockNames>),
}

impl Source {
    pub fn names(&self) -> &Names {
        match self {
            Self::Head(head) => &head.names,
            Self::Block(_, names) => &names.names,
        }
    }
}

/// What a query does with rows, in one task; `bind` makes it for a source.
pub(crate) trait Fold: Send {
    fn row(&mut self, row: &Row);
}

/// The range in milliseconds that a selection covers, half open.
pub(crate) fn range_ms(selection: &Selection) -> Range<i64> {
    floor_ms(selection.from)..ceil_ms(selection.until)
}

/// The range that an answer states: whole milliseconds.
pub(crate) fn covered(selection: &Selection) -> Covered {
    let Range { start, end } = range_ms(selection);
    Covered {
        from: start.saturating_mul(NANOS_PER_MS),
        until: end.saturating_mul(NANOS_PER_MS),
        resolution: NANOS_PER_MS,
    }
}

/// A piece of a source that one thread works on.
enum Task {
    Head(usize),
    Group(usize, Vec<Range<usize>>),
}

/// A source with its conditions.
struct Bound<'a> {
    source: &'a Source,
    series: Vec<bool>,
    matchers: Vec<BoundMatcher<'a>>,
    time: Option<Range<i64>>,
    columns: Columns,
}

impl<'a> Bound<'a> {
    fn new(source: &'a Source, selection: &'a Selection, columns: Columns) -> Self {
        let names = source.names();
        let mut series: Vec<bool> =
            names.series.iter().map(|series| *series.sample_type.name == *selection.sample_type).collect();
        let mut matchers = Vec::new();
        let mut columns = columns.with(Columns::SERIES);
        for matcher in &selection.selector.matchers {
            let matcher = BoundMatcher::new(matcher, names);
            if matcher.label.by_series {
                let mut tested = Tested::default();
                for (index, selected) in series.iter_mut().enumerate() {
                    *selected &= matcher.accepts(&Row { series: index as u32, ..Row::EMPTY }, &mut tested);
                }
            } else {
                columns = columns.with(matcher.label.columns);
                matchers.push(matcher);
            }
        }
        let range = range_ms(selection);
        let inside = match source {
            Source::Head(_) => false,
            Source::Block(block, _) => range.start <= block.meta.from_ms && block.meta.until_ms <= range.end,
        };
        if !inside {
            columns = columns.with(Columns::TIME);
        }
        Self { source, series, matchers, time: (!inside).then_some(range), columns }
    }

    fn tasks(&self) -> io::Result<Vec<Task>> {
        if !self.series.contains(&true) {
            return Ok(Vec::new());
        }
        match self.source {
            Source::Head(head) => Ok((0..head.rows.chunks().count()).map(Task::Head).collect()),
            Source::Block(_, names) => {
                let ranges = self.series.iter().zip(&names.ranges).filter(|(selected, _)| **selected);
                let ranges = ranges.map(|(_, range)| range.clone());
                let rows = names.metadata.metadata().row_groups().iter().map(|group| group.num_rows().max(0) as usize);
                Ok(split(ranges, rows))
            }
        }
    }

    fn run(&self, task: &Task, fold: &mut impl Fold, tested: &mut [Tested], buffer: &mut Vec<Row>) -> io::Result<()> {
        match (task, self.source) {
            (Task::Head(chunk), Source::Head(head)) => {
                for row in head.rows.chunks().nth(*chunk).unwrap_or_default() {
                    self.row(row, fold, tested);
                }
            }
            (Task::Group(group, ranges), Source::Block(block, names)) => {
                let mut reader = RowReader::open(block, &names.metadata, Some((*group, ranges)), self.columns)?;
                loop {
                    buffer.clear();
                    if !reader.next(buffer)? {
                        break;
                    }
                    for row in buffer.iter() {
                        self.row(row, fold, tested);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    #[inline]
    fn row(&self, row: &Row, fold: &mut impl Fold, tested: &mut [Tested]) {
        if let Some(time) = &self.time
            && !time.contains(&row.time)
        {
            return;
        }
        if !self.series.get(row.series as usize).copied().unwrap_or(false) {
            return;
        }
        let fits = self.matchers.iter().zip(tested).all(|(matcher, tested)| matcher.accepts(row, tested));
        if fits {
            fold.row(row);
        }
    }
}

/// Name and unit of the sample types of those series that a selector selects.
pub(crate) fn types(source: &Source, selector: &Selector) -> Vec<(Str, Str)> {
    let names = source.names();
    let matchers: Vec<BoundMatcher<'_>> = selector.matchers.iter().map(|m| BoundMatcher::new(m, names)).collect();
    let selected = |index: usize| {
        let row = Row { series: index as u32, ..Row::EMPTY };
        matchers.iter().all(|matcher| matcher.accepts(&row, &mut Tested::default()))
    };
    let series = names.series.iter().enumerate().filter(|(index, _)| selected(*index));
    series.map(|(_, series)| (series.sample_type.name.clone(), series.sample_type.unit.clone())).collect()
}

/// Splits ascending row ranges of a file by its row groups; ranges count from the
/// start of their group.
fn split(ranges: impl Iterator<Item = Range<usize>>, groups: impl Iterator<Item = usize>) -> Vec<Task> {
    let mut bounds = Vec::new();
    let mut start = 0;
    for rows in groups {
        bounds.push(start..start + rows);
        start += rows;
    }
    let mut tasks: Vec<Task> = Vec::new();
    let mut at = 0;
    for range in ranges {
        let mut range = range;
        while !range.is_empty() {
            let Some(group) = bounds.get(at) else { return tasks };
            if range.start >= group.end {
                at += 1;
                continue;
            }
            let piece = range.start - group.start..range.end.min(group.end) - group.start;
            range.start = group.start + piece.end;
            match tasks.last_mut() {
                Some(Task::Group(last, pieces)) if *last == at => match pieces.last_mut() {
                    Some(last) if last.end == piece.start => last.end = piece.end,
                    _ => pieces.push(piece),
                },
                _ => tasks.push(Task::Group(at, vec![piece])),
            }
        }
    }
    tasks
}

/// Folds all selected rows: for each source the folds of the threads that worked on
/// it. `bind` says what a fold needs of a source, and which columns.
pub(crate) fn scan<'a, F: Fold, B: Sync>(
    sources: &'a [Source],
    selection: &'a Selection,
    bind: impl Fn(&'a Source) -> (B, Columns),
    fold: impl Fn(&B) -> F + Sync,
) -> io::Result<Vec<(B, Vec<F>)>> {
    let bound: Vec<(Bound<'a>, B)> = sources
        .iter()
        .map(|source| {
            let (binding, columns) = bind(source);
            (Bound::new(source, selection, columns), binding)
        })
        .collect();
    let mut tasks = Vec::new();
    for (index, (bound, _)) in bound.iter().enumerate() {
        tasks.extend(bound.tasks()?.into_iter().map(|task| (index, task)));
    }
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, F)>> = Mutex::new(Vec::new());
    let work = || -> io::Result<()> {
        let mut buffer = Vec::new();
        let mut current: Option<(usize, F, Vec<Tested>)> = None;
        let put = |current: Option<(usize, F, Vec<Tested>)>| {
            if let Some((index, fold, _)) = current {
                done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((index, fold));
            }
        };
        while let Some((index, task)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (source, binding) = &bound[*index];
            if current.as_ref().is_none_or(|(current, ..)| current != index) {
                let tested = source.matchers.iter().map(|_| Tested::default()).collect();
                put(current.replace((*index, fold(binding), tested)));
            }
            if let Some((_, fold, tested)) = &mut current {
                source.run(task, fold, tested, &mut buffer)?;
            }
        }
        put(current);
        Ok(())
    };
    if tasks.len() <= 1 {
        work()?;
    } else {
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..THREADS).map(|_| scope.spawn(work)).collect();
            let mine = work();
            let join = |other: std::thread::ScopedJoinHandle<'_, io::Result<()>>| {
                other.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the query failed")))
            };
            others.into_iter().map(join).fold(mine, io::Result::and)
        })?;
    }
    let mut results: Vec<(B, Vec<F>)> = bound.into_iter().map(|(_, binding)| (binding, Vec::new())).collect();
    for (index, fold) in done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        results[index].1.push(fold);
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_split_by_group_and_joined() {
        let tasks = split([0..5, 5..8, 9..10, 18..31].into_iter(), [10, 10, 10, 10].into_iter());
        let show = |task: &Task| match task {
            Task::Group(group, ranges) => format!("{group}: {ranges:?}"),
            Task::Head(chunk) => format!("head {chunk}"),
        };
        let tasks: Vec<_> = tasks.iter().map(show).collect();
        assert_eq!(tasks, ["0: [0..8, 9..10]", "1: [8..10]", "2: [0..10]", "3: [0..1]"]);
    }
}

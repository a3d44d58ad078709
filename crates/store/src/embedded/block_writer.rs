//! Writes a block: into a directory with a temporary name, every file on disk, then
//! one rename. A crash leaves either no block or a whole one.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use everflame_profile::{ProfileId, Str};

use super::{
    block::Block,
    dictionary::{Names, Stacks},
    meta::{self, Meta},
    order::Order,
    row::Row,
    rows_reader::NAMES,
    table::{self, Column, FileInfo, GROUP_ROWS, Layout, TableWriter},
};

/// Temporary directories begin with this and go at start.
pub(crate) const TEMPORARY: &str = ".new-";

/// What a block is made of besides rows.
pub(crate) struct Contents<'a> {
    pub sequence: u64,
    pub id: String,
    pub generation: u64,
    pub replaces: Vec<String>,
    pub ids: &'a [ProfileId],
    pub names: &'a Names,
    pub stacks: &'a Stacks,
}

/// Rows, sorted and in the block's numbers, on their way to the file.
pub(crate) struct RowsWriter {
    table: TableWriter,
    series: Vec<SeriesRows>,
    rows: u64,
    samples: u64,
    from: i64,
    until: i64,
}

#[derive(Clone, Copy)]
struct SeriesRows {
    first: u64,
    rows: u64,
    samples: u64,
}

impl RowsWriter {
    fn create(path: &Path, series: usize) -> io::Result<Self> {
        use Layout::{Repeating, Rising};
        // In the order of NAMES.
        let layouts = [
            Repeating, Repeating, Rising, Rising, Repeating, Repeating, Repeating, Repeating, Repeating, Repeating,
            Repeating, Repeating,
        ];
        let columns: Vec<(&str, Layout)> = NAMES.into_iter().zip(layouts).collect();
        let table = TableWriter::create(path, &columns, &row_columns(&[]))?;
        let none = SeriesRows { first: 0, rows: 0, samples: 0 };
        Ok(Self { table, series: vec![none; series], rows: 0, samples: 0, from: i64::MAX, until: i64::MIN })
    }

    /// Adds rows that sort after all before.
    pub fn push(&mut self, rows: &[Row]) -> io::Result<()> {
        for chunk in rows.chunks(GROUP_ROWS) {
            for row in chunk {
                let series = self.series.get_mut(row.series as usize);
                let series = series.ok_or_else(|| io::Error::other("a row of an unknown series"))?;
                if series.rows == 0 {
                    series.first = self.rows;
                }
                series.rows += 1;
                series.samples = series.samples.saturating_add(row.samples);
                self.rows += 1;
                self.samples = self.samples.saturating_add(row.samples);
                self.from = self.from.min(row.time);
                self.until = self.until.max(row.time.saturating_add(1));
            }
            self.table.write(row_columns(chunk))?;
        }
        Ok(())
    }
}

/// Columns of rows, in the order of `NAMES`.
fn row_columns(rows: &[Row]) -> Vec<Column> {
    vec![
        Column::U32(rows.iter().map(|row| row.series).collect()),
        Column::U32(rows.iter().map(|row| row.thread).collect()),
        Column::I32(rows.iter().map(|row| row.node as i32).collect()),
        Column::Time(rows.iter().map(|row| row.time).collect()),
        Column::U32(rows.iter().map(|row| row.pid).collect()),
        Column::U32(rows.iter().map(|row| row.tid).collect()),
        Column::I32(rows.iter().map(|row| row.cpu as i32).collect()),
        Column::U32(rows.iter().map(|row| row.labels).collect()),
        Column::U8(rows.iter().map(|row| row.completeness as u8).collect()),
        Column::I64(rows.iter().map(|row| row.period).collect()),
        Column::U64(rows.iter().map(|row| row.samples).collect()),
        Column::I64(rows.iter().map(Row::value_rest).collect()),
    ]
}

/// Writes a block into `blocks`; `rows` pushes all rows, in the order given.
pub(crate) fn write(
    blocks: &Path,
    contents: Contents<'_>,
    rows: impl FnOnce(&Order, &mut RowsWriter) -> io::Result<()>,
) -> io::Result<Block> {
    let temporary = blocks.join(format!("{TEMPORARY}{}", contents.id));
    let write = || -> io::Result<PathBuf> {
        fs::create_dir(&temporary)?;
        write_files(&temporary, &contents, rows)?;
        File::open(&temporary)?.sync_all()?;
        let place = blocks.join(&contents.id);
        fs::rename(&temporary, &place)?;
        File::open(blocks)?.sync_all()?;
        Ok(place)
    };
    let place = write().inspect_err(|_| {
        let _ = fs::remove_dir_all(&temporary);
    })?;
    Block::open(&place)
}

fn write_files(
    dir: &Path,
    contents: &Contents<'_>,
    rows: impl FnOnce(&Order, &mut RowsWriter) -> io::Result<()>,
) -> io::Result<()> {
    let (names, stacks) = (contents.names, contents.stacks);
    let order = Order::new(names, stacks);
    let mut files = BTreeMap::new();
    let mut writer = RowsWriter::create(&dir.join("samples.parquet"), names.series.len())?;
    rows(&order, &mut writer)?;
    let RowsWriter { table, series, rows, samples, from, until } = writer;
    files.insert("samples.parquet".to_owned(), table.finish()?);
    write_series(dir, names, &order, &series, &mut files)?;
    write_stacks(dir, stacks, &order, &mut files)?;
    if !contents.ids.is_empty() {
        let info = table::write_bytes(&dir.join("ids.bin"), contents.ids.as_flattened())?;
        files.insert("ids.bin".to_owned(), info);
    }
    let types = names.series.iter().map(|s| (s.sample_type.name.to_string(), s.sample_type.unit.to_string()));
    let mut types: Vec<(String, String)> = types.collect();
    types.sort();
    types.dedup();
    let meta = Meta {
        version: meta::VERSION,
        id: contents.id.clone(),
        sequence: contents.sequence,
        generation: contents.generation,
        replaces: contents.replaces.clone(),
        from_ms: from,
        until_ms: until,
        rows,
        samples,
        series: names.series.len() as u64,
        nodes: stacks.nodes.len() as u64,
        frames: stacks.frames.len() as u64,
        types,
        files,
    };
    table::write_bytes(&dir.join(meta::FILE), &serde_json::to_vec_pretty(&meta)?)?;
    Ok(())
}

type Files = BTreeMap<String, FileInfo>;

fn write_table(dir: &Path, name: &str, columns: Vec<(&str, Layout, Column)>, files: &mut Files) -> io::Result<()> {
    let info = table::write(&dir.join(name), columns)?;
    files.insert(name.to_owned(), info);
    Ok(())
}

fn write_series(dir: &Path, names: &Names, order: &Order, rows: &[SeriesRows], files: &mut Files) -> io::Result<()> {
    use Layout::{Repeating, Rising};
    let series: Vec<_> = order.series.order.iter().filter_map(|id| names.series.get(*id)).collect();
    write_table(
        dir,
        "series.parquet",
        vec![
            ("type", Repeating, Column::Text(series.iter().map(|s| s.sample_type.name.clone()).collect())),
            ("unit", Repeating, Column::Text(series.iter().map(|s| s.sample_type.unit.clone()).collect())),
            ("first_row", Rising, Column::U64(rows.iter().map(|rows| rows.first).collect())),
            ("rows", Rising, Column::U64(rows.iter().map(|rows| rows.rows).collect())),
            ("samples", Rising, Column::U64(rows.iter().map(|rows| rows.samples).collect())),
        ],
        files,
    )?;
    let sets: Vec<_> = order.sets.order.iter().filter_map(|id| names.sets.get(*id)).collect();
    let series = series.iter().map(|series| &series.labels);
    for (file, id, sets) in [
        ("series_labels.parquet", "series", series.collect::<Vec<_>>()),
        ("sample_labels.parquet", "labels", sets.iter().map(|set| &***set).collect()),
    ] {
        let (mut ids, mut label_names, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (number, labels) in sets.into_iter().enumerate() {
            for (name, value) in labels.iter() {
                ids.push(number as u32);
                label_names.push(name.clone());
                values.push(value.clone());
            }
        }
        let columns = vec![
            (id, Rising, Column::U32(ids)),
            ("name", Repeating, Column::Text(label_names)),
            ("value", Repeating, Column::Text(values)),
        ];
        write_table(dir, file, columns, files)?;
    }
    let threads = order.threads.order.iter().filter_map(|id| names.threads.get(*id).cloned()).collect();
    write_table(dir, "threads.parquet", vec![("name", Repeating, Column::Text(threads))], files)
}

fn write_stacks(dir: &Path, stacks: &Stacks, order: &Order, files: &mut Files) -> io::Result<()> {
    use Layout::{Repeating, Rising};
    let nodes: Vec<_> = order.nodes.order.iter().filter_map(|id| stacks.nodes.get(*id)).collect();
    let parent = |parent: u32| order.nodes.new.get(parent as usize).map_or(-1, |new| *new as i32);
    let frame = |frame: u32| order.frames.new.get(frame as usize).copied().unwrap_or(u32::MAX);
    let columns = vec![
        ("parent", Rising, Column::I32(nodes.iter().map(|node| parent(node.parent)).collect())),
        ("frame", Rising, Column::U32(nodes.iter().map(|node| frame(node.frame)).collect())),
    ];
    write_table(dir, "nodes.parquet", columns, files)?;
    let table = &stacks.frames;
    let frames: Vec<_> = order.frames.order.iter().filter_map(|id| table.row(*id)).collect();
    let kind = |kind: u32| table.kinds.get(kind).cloned().unwrap_or_default();
    let columns = vec![
        ("kind", Repeating, Column::Text(frames.iter().map(|row| kind(row.kind)).collect())),
        // No mapping is -1: the same bits.
        ("mapping", Repeating, Column::I32(frames.iter().map(|row| row.mapping as i32).collect())),
        ("address", Rising, Column::U64(frames.iter().map(|row| row.address).collect())),
    ];
    write_table(dir, "frames.parquet", columns, files)?;
    let (mut of, mut functions, mut sources, mut lines) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (number, row) in frames.iter().enumerate() {
        for line in table.lines(row) {
            of.push(number as u32);
            functions.push(line.function.clone());
            sources.push(line.file.clone());
            lines.push(line.line);
        }
    }
    let columns = vec![
        ("frame", Rising, Column::U32(of)),
        ("function", Repeating, Column::Text(functions)),
        ("file", Repeating, Column::Text(sources)),
        ("line", Repeating, Column::U32(lines)),
    ];
    write_table(dir, "lines.parquet", columns, files)?;
    let content = |id: everflame_profile::ContentId| Str::from(id.to_string());
    let columns = vec![
        ("name", Repeating, Column::Text(table.mappings.iter().map(|mapping| mapping.name.clone()).collect())),
        ("build_id", Repeating, Column::Text(table.mappings.iter().map(|mapping| mapping.build_id.clone()).collect())),
        (
            "content_id",
            Repeating,
            Column::Text(table.mappings.iter().map(|m| m.content_id.map_or_else(Str::default, content)).collect()),
        ),
    ];
    write_table(dir, "mappings.parquet", columns, files)
}

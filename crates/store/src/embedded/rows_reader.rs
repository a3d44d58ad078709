//! Rows of a block, read back: the wanted columns of wanted ranges.

use std::{io, ops::Range};

use arrow_array::{
    Array, Int32Array, Int64Array, RecordBatch, TimestampMillisecondArray, UInt8Array, UInt32Array, UInt64Array,
};
use everflame_profile::Completeness;
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection},
};

use super::{block::Block, row::Row, table::into_io};

/// Rows decoded at once.
const BATCH: usize = 8 << 10;

/// Columns of `samples.parquet`, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Columns(u16);

impl Columns {
    pub const NONE: Self = Self(0);
    pub const SERIES: Self = Self(1);
    pub const THREAD: Self = Self(1 << 1);
    pub const NODE: Self = Self(1 << 2);
    pub const TIME: Self = Self(1 << 3);
    pub const PID: Self = Self(1 << 4);
    pub const TID: Self = Self(1 << 5);
    pub const CPU: Self = Self(1 << 6);
    pub const LABELS: Self = Self(1 << 7);
    pub const COMPLETENESS: Self = Self(1 << 8);
    pub const PERIOD: Self = Self(1 << 9);
    pub const SAMPLES: Self = Self(1 << 10);
    /// The value is samples times period plus what this column says.
    pub const VALUE: Self = Self(1 << 11 | Self::SAMPLES.0 | Self::PERIOD.0);
    const VALUE_REST: Self = Self(1 << 11);
    pub const ALL: Self = Self((1 << 12) - 1);

    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    fn has(self, one: Self) -> bool {
        self.0 & one.0 != 0
    }
}

/// Their names, in the order of the bits.
pub(crate) const NAMES: [&str; 12] = [
    "series",
    "thread",
    "node",
    "time",
    "pid",
    "tid",
    "cpu",
    "labels",
    "completeness",
    "period",
    "samples",
    "value_rest",
];

/// Streams rows; columns that were not asked for stand as in [`Row::EMPTY`].
pub(crate) struct RowReader {
    reader: ParquetRecordBatchReader,
    columns: Columns,
}

impl RowReader {
    /// Rows of the given ranges (ascending, apart) of one row group, or of the whole
    /// file with `None`.
    pub fn open(
        block: &Block,
        metadata: &ArrowReaderMetadata,
        group: Option<(usize, &[Range<usize>])>,
        columns: Columns,
    ) -> io::Result<Self> {
        let samples = block.samples()?;
        let names = NAMES.iter().enumerate().filter(|(bit, _)| columns.has(Columns(1 << bit))).map(|(_, name)| *name);
        let mask = ProjectionMask::columns(metadata.parquet_schema(), names);
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(samples, metadata.clone())
            .with_batch_size(BATCH)
            .with_projection(mask);
        if let Some((group, ranges)) = group {
            let rows = metadata.metadata().row_groups().get(group).map_or(0, |group| group.num_rows().max(0) as usize);
            builder = builder.with_row_groups(vec![group]);
            let whole = ranges.first().is_some_and(|range| range.len() == rows);
            if !whole {
                let selection = RowSelection::from_consecutive_ranges(ranges.iter().cloned(), rows);
                builder = builder.with_row_selection(selection);
            }
        }
        Ok(Self { reader: builder.build().map_err(into_io)?, columns })
    }

    /// The next rows, appended to `rows`; `false` at the end.
    pub fn next(&mut self, rows: &mut Vec<Row>) -> io::Result<bool> {
        let Some(batch) = self.reader.next() else { return Ok(false) };
        let batch = batch.map_err(io::Error::other)?;
        let start = rows.len();
        rows.resize(start + batch.num_rows(), Row::EMPTY);
        let rows = &mut rows[start..];
        let wanted = self.columns;
        fill::<UInt32Array, _>(&batch, wanted, Columns::SERIES, rows, |a| a.values(), |row, v| row.series = v)?;
        fill::<UInt32Array, _>(&batch, wanted, Columns::THREAD, rows, |a| a.values(), |row, v| row.thread = v)?;
        fill::<Int32Array, _>(&batch, wanted, Columns::NODE, rows, |a| a.values(), |row, v| row.node = from_i32(v))?;
        fill::<TimestampMillisecondArray, _>(&batch, wanted, Columns::TIME, rows, |a| a.values(), |r, v| r.time = v)?;
        fill::<UInt32Array, _>(&batch, wanted, Columns::PID, rows, |a| a.values(), |row, v| row.pid = v)?;
        fill::<UInt32Array, _>(&batch, wanted, Columns::TID, rows, |a| a.values(), |row, v| row.tid = v)?;
        fill::<Int32Array, _>(&batch, wanted, Columns::CPU, rows, |a| a.values(), |row, v| row.cpu = from_i32(v))?;
        fill::<UInt32Array, _>(&batch, wanted, Columns::LABELS, rows, |a| a.values(), |row, v| row.labels = v)?;
        let completeness =
            |row: &mut Row, v| row.completeness = Completeness::from_u8(v).unwrap_or(Completeness::NotSaid);
        fill::<UInt8Array, _>(&batch, wanted, Columns::COMPLETENESS, rows, |a| a.values(), completeness)?;
        fill::<Int64Array, _>(&batch, wanted, Columns::PERIOD, rows, |a| a.values(), |row, v| row.period = v)?;
        fill::<UInt64Array, _>(&batch, wanted, Columns::SAMPLES, rows, |a| a.values(), |row, v| row.samples = v)?;
        fill::<Int64Array, _>(
            &batch,
            wanted,
            Columns::VALUE_REST,
            rows,
            |a| a.values(),
            |row, v| row.value = row.value_of_rest(v),
        )?;
        Ok(true)
    }
}

/// -1 stands for "none" on disk, `u32::MAX` in memory: the same bits.
fn from_i32(value: i32) -> u32 {
    value as u32
}

fn fill<A: Array + 'static, T: Copy>(
    batch: &RecordBatch,
    wanted: Columns,
    column: Columns,
    rows: &mut [Row],
    values: impl Fn(&A) -> &[T],
    mut set: impl FnMut(&mut Row, T),
) -> io::Result<()> {
    if !wanted.has(column) {
        return Ok(());
    }
    let name = NAMES[column.0.trailing_zeros() as usize];
    let array = batch.column_by_name(name).and_then(|array| array.as_any().downcast_ref::<A>());
    let array =
        array.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("there is no column {name}")))?;
    for (row, value) in rows.iter_mut().zip(values(array)) {
        set(row, *value);
    }
    Ok(())
}

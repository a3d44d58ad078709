//! Plain Parquet tables: named columns of integers and text, checksummed as a file.
//! All files of a block are written and read through here.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use arrow_array::{
    Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt8Array,
    UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use bytes::Bytes;
use everflame_profile::Str;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, Encoding, ZstdLevel},
    file::properties::WriterProperties,
};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

/// Rows of a row group: what one task of a query reads.
pub(crate) const GROUP_ROWS: usize = 128 << 10;
/// Rows of a page: what a query can skip.
const PAGE_ROWS: usize = 8 << 10;

/// A column of a table. Time is Unix milliseconds.
#[derive(Debug)]
pub(crate) enum Column {
    U8(Vec<u8>),
    I32(Vec<i32>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    Time(Vec<i64>),
    Text(Vec<Str>),
}

/// How a column of integers is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Few distinct values: a dictionary.
    Repeating,
    /// Neighbours are near each other: differences.
    Rising,
}

/// What a finished file must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileInfo {
    pub bytes: u64,
    pub crc32: u32,
}

impl Column {
    fn data_type(&self) -> DataType {
        match self {
            Self::U8(_) => DataType::UInt8,
            Self::I32(_) => DataType::Int32,
            Self::U32(_) => DataType::UInt32,
            Self::U64(_) => DataType::UInt64,
            Self::I64(_) => DataType::Int64,
            Self::Time(_) => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Self::Text(_) => DataType::Utf8,
        }
    }

    fn into_array(self) -> ArrayRef {
        match self {
            Self::U8(values) => Arc::new(UInt8Array::from(values)),
            Self::I32(values) => Arc::new(Int32Array::from(values)),
            Self::U32(values) => Arc::new(UInt32Array::from(values)),
            Self::U64(values) => Arc::new(UInt64Array::from(values)),
            Self::I64(values) => Arc::new(Int64Array::from(values)),
            Self::Time(values) => Arc::new(TimestampMillisecondArray::from(values).with_timezone("UTC")),
            Self::Text(values) => Arc::new(StringArray::from_iter_values(values.iter().map(|v| v.as_ref()))),
        }
    }
}

/// Counts and checksums what goes into a file.
struct Checked {
    file: File,
    hasher: crc32fast::Hasher,
    bytes: u64,
}

impl Write for Checked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a table in pieces.
pub(crate) struct TableWriter {
    writer: ArrowWriter<Checked>,
    schema: Arc<Schema>,
}

impl TableWriter {
    /// `columns`: names, and for integers how they are laid out. `like` are columns
    /// of the types to come.
    pub fn create(path: &Path, columns: &[(&str, Layout)], like: &[Column]) -> io::Result<Self> {
        let field = |((name, _), like): (&(&str, Layout), &Column)| Field::new(*name, like.data_type(), false);
        let schema = Arc::new(Schema::new(columns.iter().zip(like).map(field).collect::<Vec<_>>()));
        let level = ZstdLevel::try_new(1).map_err(io::Error::other)?;
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_created_by("everflame".to_owned())
            .set_data_page_row_count_limit(PAGE_ROWS)
            .set_write_batch_size(PAGE_ROWS)
            .set_max_row_group_row_count(Some(GROUP_ROWS));
        for (name, layout) in columns {
            if *layout == Layout::Rising {
                properties = properties
                    .set_column_dictionary_enabled((*name).into(), false)
                    .set_column_encoding((*name).into(), Encoding::DELTA_BINARY_PACKED);
            }
        }
        let file = Checked { file: File::create(path)?, hasher: crc32fast::Hasher::new(), bytes: 0 };
        let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties.build())).map_err(into_io)?;
        Ok(Self { writer, schema })
    }

    /// Adds rows: columns of equal length, in the order and of the types given.
    pub fn write(&mut self, columns: Vec<Column>) -> io::Result<()> {
        let arrays = columns.into_iter().map(Column::into_array).collect();
        let batch = RecordBatch::try_new(self.schema.clone(), arrays).map_err(io::Error::other)?;
        self.writer.write(&batch).map_err(into_io)
    }

    /// Ends the file and waits until it is on disk.
    pub fn finish(mut self) -> io::Result<FileInfo> {
        self.writer.finish().map_err(into_io)?;
        // Not `into_inner`: it would say a full disk in words only.
        self.writer.sync()?;
        let checked = self.writer.inner();
        checked.file.sync_all()?;
        Ok(FileInfo { bytes: checked.bytes, crc32: checked.hasher.clone().finalize() })
    }
}

/// Writes a whole table.
pub(crate) fn write(path: &Path, columns: Vec<(&str, Layout, Column)>) -> io::Result<FileInfo> {
    let (names, columns): (Vec<_>, Vec<_>) =
        columns.into_iter().map(|(name, layout, column)| ((name, layout), column)).unzip();
    let mut writer = TableWriter::create(path, &names, &columns)?;
    writer.write(columns)?;
    writer.finish()
}

/// Writes plain bytes.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> io::Result<FileInfo> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(FileInfo { bytes: bytes.len() as u64, crc32: crc32fast::hash(bytes) })
}

/// Reads a whole file and checks that it is the one that was written.
pub(crate) fn read_bytes(path: &Path, info: FileInfo) -> io::Result<Vec<u8>> {
    let bytes = std::fs::read(path)?;
    if bytes.len() as u64 != info.bytes || crc32fast::hash(&bytes) != info.crc32 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file's checksum is wrong"));
    }
    Ok(bytes)
}

/// A table in memory.
pub(crate) struct Table {
    batches: Vec<RecordBatch>,
}

impl Table {
    pub fn read(path: &Path, info: FileInfo) -> io::Result<Self> {
        let bytes = Bytes::from(read_bytes(path, info)?);
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(into_io)?;
        let reader = reader.with_batch_size(64 << 10).build().map_err(into_io)?;
        Ok(Self { batches: reader.collect::<Result<_, _>>().map_err(io::Error::other)? })
    }

    fn column<'a, A: Array + 'static>(&'a self, name: &str) -> io::Result<Vec<&'a A>> {
        let find = |batch: &'a RecordBatch| {
            let column = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref::<A>());
            column.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("there is no column {name}")))
        };
        self.batches.iter().map(find).collect()
    }

    pub fn i32(&self, name: &str) -> io::Result<Vec<i32>> {
        Ok(self.column::<Int32Array>(name)?.into_iter().flat_map(|a| a.values().iter().copied()).collect())
    }

    pub fn u32(&self, name: &str) -> io::Result<Vec<u32>> {
        Ok(self.column::<UInt32Array>(name)?.into_iter().flat_map(|a| a.values().iter().copied()).collect())
    }

    pub fn u64(&self, name: &str) -> io::Result<Vec<u64>> {
        Ok(self.column::<UInt64Array>(name)?.into_iter().flat_map(|a| a.values().iter().copied()).collect())
    }

    /// Text, equal values shared.
    pub fn text(&self, name: &str) -> io::Result<Vec<Str>> {
        let mut shared: FxHashMap<&str, Str> = FxHashMap::default();
        let mut texts = Vec::new();
        for array in self.column::<StringArray>(name)? {
            for text in array.iter() {
                let text = text.unwrap_or("");
                texts.push(shared.entry(text).or_insert_with(|| Str::from(text)).clone());
            }
        }
        Ok(texts)
    }
}

/// Keeps the kind of an IO error (a full disk) that came through the Parquet writer.
pub(crate) fn into_io(error: parquet::errors::ParquetError) -> io::Error {
    match error {
        parquet::errors::ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}

//! Writing an artifact: records arrive in any order from any thread and are spooled; the file appears whole or not at all.

use std::collections::HashSet;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::SpooledTempFile;
use tract_onnx::pb;

use super::body::smallest;
use super::error::ArtifactError;
use super::inflate::Budget;
use super::record::{
    CHECKSUM_BYTES, CodebookRef, EncodedHeader, HALF_BYTES, Header, PlainHeader, Storage, binned_width, halvable,
};
use super::staged::{Staged, folder_of};
use super::{FORMAT_VERSION, METADATA_KEY, graph};
use crate::codec::CodecId;
use crate::model::ElementType;
use crate::tensor::{Codebook, FloatData, FloatType, Layout};

/// Records beyond this leave memory for an unnamed file beside the artifact.
const SPOOL_MEMORY_BYTES: usize = 1 << 20;

/// Where an artifact comes from.
#[derive(Debug, Clone, Copy)]
pub struct Provenance<'a> {
    /// SHA-256 of the file that was compressed, in lower-case hex.
    pub source_sha256: &'a str,
    /// The recipe as JSON.
    pub recipe: &'a str,
}

/// A weight that was encoded.
#[derive(Debug, Clone)]
pub struct EncodedWeight<'a> {
    /// The weight's name in the model.
    pub name: &'a str,
    /// Dimensions in the model.
    pub dims: &'a [usize],
    /// Type in the model.
    pub dtype: FloatType,
    /// How the dimensions become rows and columns.
    pub layout: Layout,
    /// The representation of `payload`.
    pub codec: CodecId,
    /// Rows in every block but the last; at least 1.
    pub rows_per_block: usize,
    /// Where the values are.
    pub codebook: CodebookRef,
    /// As [`crate::codec::encode`] returns it.
    pub payload: &'a [u8],
}

/// A tensor that is stored as it is.
#[derive(Debug, Clone, Copy)]
pub struct PlainTensor<'a> {
    /// The tensor's name in the model.
    pub name: &'a str,
    /// Dimensions in the model.
    pub dims: &'a [usize],
    /// ONNX's type name in lower case.
    pub dtype: &'a str,
    /// Little-endian elements, as ONNX `raw_data` would hold them.
    pub bytes: &'a [u8],
    /// Store 32- and 64-bit floats as binary16, where that loses no more than binary16 rounding.
    pub halve: bool,
}

/// What each part of a finished file takes, in bytes; the parts add up to the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    /// The whole file.
    pub artifact_bytes: u64,
    /// The graph's record; 0 where there is none.
    pub graph_bytes: u64,
    /// Records of the shared codebooks.
    pub codebook_bytes: Vec<u64>,
    /// Records of the weights.
    pub weight_bytes: Vec<u64>,
    /// Records of all plain tensors together.
    pub plain_bytes: u64,
    /// The safetensors header: length, entries and metadata.
    pub container_bytes: u64,
}

/// Place of a record in the file: the file does not depend on the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Graph,
    Codebook(usize),
    Weight(usize),
    Plain(usize),
}

/// Collects the records of an artifact.
pub struct ArtifactWriter {
    out: PathBuf,
    codebooks: usize,
    plain: usize,
    budget: Budget,
    spool: Mutex<Spool>,
}

struct Spool {
    file: SpooledTempFile,
    len: u64,
    records: Vec<(Slot, u64, u64)>,
    /// Of the stored tensors: a reader refuses a file that repeats one.
    names: HashSet<String>,
}

impl ArtifactWriter {
    /// Starts an artifact that will appear at `out`. Nothing is created there before [`ArtifactWriter::finish`].
    pub fn new(out: &Path) -> Self {
        let spool = Spool {
            file: tempfile::spooled_tempfile_in(SPOOL_MEMORY_BYTES, folder_of(out)),
            len: 0,
            records: Vec::new(),
            names: HashSet::new(),
        };
        Self { out: out.to_owned(), codebooks: 0, plain: 0, budget: Budget::default(), spool: Mutex::new(spool) }
    }

    /// Stores a codebook that several weights share, and returns the index they name it by.
    ///
    /// # Errors
    /// [`ArtifactError::Io`].
    pub fn add_codebook(&mut self, codebook: &Codebook) -> Result<usize, ArtifactError> {
        let index = self.codebooks;
        self.put(Slot::Codebook(index), &Header::Codebook(codebook.dtype()), &codebook.to_le_bytes())?;
        self.codebooks += 1;
        Ok(index)
    }

    /// Stores weight number `index` of the model; any thread may, in any order.
    ///
    /// # Errors
    /// [`ArtifactError::Duplicate`] where a tensor of this name is stored; [`ArtifactError::Io`].
    pub fn add_weight(&self, index: usize, weight: &EncodedWeight) -> Result<(), ArtifactError> {
        let header = EncodedHeader {
            name: weight.name.to_owned(),
            dims: weight.dims.to_vec(),
            dtype: weight.dtype,
            layout: weight.layout,
            codec: weight.codec,
            rows_per_block: weight.rows_per_block,
            codebook: weight.codebook.clone(),
        };
        self.put(Slot::Weight(index), &Header::Encoded(header), weight.payload)
    }

    /// Stores a tensor as it is, deflated or as binned numbers where that is smaller.
    ///
    /// # Errors
    /// [`ArtifactError::Unrepresentable`] for a type without a number; else as [`ArtifactWriter::add_weight`].
    pub fn add_plain(&mut self, tensor: &PlainTensor) -> Result<(), ArtifactError> {
        let element = ElementType::from_name(tensor.dtype).filter(|t| t.bits > 0);
        let unknown = || ArtifactError::Unrepresentable { tensor: tensor.name.into(), dtype: tensor.dtype.into() };
        let element = element.ok_or_else(unknown)?;
        let halved = match element.float() {
            Some(dtype) if tensor.halve && halvable(element) => {
                let values = FloatData::from_le_bytes(dtype, tensor.bytes);
                graph::halve((0..values.len()).map(|i| values.get(i)))
            }
            _ => None,
        };
        let bytes = halved.as_deref().unwrap_or(tensor.bytes);
        let width = if halved.is_some() { Some(HALF_BYTES) } else { binned_width(element) };
        let (form, body) = smallest(bytes, width, &mut self.budget);
        let storage = Storage { form, halved: halved.is_some() };
        let header = PlainHeader { name: tensor.name.to_owned(), dims: tensor.dims.to_vec(), element, storage };
        self.put(Slot::Plain(self.plain), &Header::Plain(header), &body)?;
        self.plain += 1;
        Ok(())
    }

    /// Stores the network without the data of its stored tensors; with `halve`, small float constants as binary16.
    ///
    /// # Errors
    /// [`ArtifactError::Io`].
    pub fn set_graph(&mut self, skeleton: &pb::ModelProto, halve: bool) -> Result<(), ArtifactError> {
        let bytes = graph::encode(skeleton, halve);
        let (form, body) = smallest(&bytes, None, &mut self.budget);
        self.put(Slot::Graph, &Header::Graph(Storage { form, halved: false }), &body)
    }

    /// Assembles the file beside its place, flushes it to the disk and moves it there, replacing the file that was there.
    ///
    /// # Errors
    /// [`ArtifactError::Io`]; then nothing is left behind.
    pub fn finish(self, provenance: &Provenance) -> Result<Sizes, ArtifactError> {
        let Spool { mut file, mut records, .. } = self.spool.into_inner().unwrap_or_else(PoisonError::into_inner);
        records.sort_unstable_by_key(|(slot, ..)| *slot);
        let header = container_header(&records, provenance);
        let sizes = sizes(&records, header.len() as u64 + size_of::<u64>() as u64);

        let mut staged = Staged::new(&self.out)?;
        let mut writer = BufWriter::with_capacity(1 << 16, &mut staged);
        writer.write_all(&(header.len() as u64).to_le_bytes())?;
        writer.write_all(&header)?;
        for (_, start, len) in records {
            file.seek(SeekFrom::Start(start))?;
            std::io::copy(&mut Read::by_ref(&mut file).take(len), &mut writer)?;
        }
        writer.flush()?;
        drop(writer);
        staged.publish()?;
        Ok(sizes)
    }

    fn put(&self, slot: Slot, header: &Header, body: &[u8]) -> Result<(), ArtifactError> {
        let mut front = Vec::new();
        header.write(&mut front);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&front), body);
        let mut spool = self.spool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = header.name().filter(|&name| !spool.names.insert(name.to_owned())) {
            return Err(ArtifactError::Duplicate { tensor: name.to_owned() });
        }
        for part in [&front[..], body, &checksum.to_le_bytes()] {
            spool.file.write_all(part)?;
        }
        let (start, len) = (spool.len, (front.len() + body.len() + CHECKSUM_BYTES) as u64);
        spool.records.push((slot, start, len));
        spool.len += len;
        Ok(())
    }
}

/// The safetensors header: the one metadata entry, then a U8 tensor for each record. Not padded: bytes need no
/// alignment.
fn container_header(records: &[(Slot, u64, u64)], provenance: &Provenance) -> Vec<u8> {
    let metadata = format!("{FORMAT_VERSION} {} {}", provenance.source_sha256, provenance.recipe);
    let metadata = serde_json::Value::String(metadata);
    let mut header = format!(r#"{{"__metadata__":{{"{METADATA_KEY}":{metadata}}}"#);
    let mut start = 0;
    for (id, (.., len)) in records.iter().enumerate() {
        let end = start + len;
        header.push_str(&format!(r#","{id}":{{"dtype":"U8","shape":[{len}],"data_offsets":[{start},{end}]}}"#));
        start = end;
    }
    header.push('}');
    header.into_bytes()
}

fn sizes(records: &[(Slot, u64, u64)], container_bytes: u64) -> Sizes {
    let mut sizes = Sizes {
        artifact_bytes: container_bytes,
        graph_bytes: 0,
        codebook_bytes: Vec::new(),
        weight_bytes: Vec::new(),
        plain_bytes: 0,
        container_bytes,
    };
    for &(slot, _, len) in records {
        sizes.artifact_bytes += len;
        match slot {
            Slot::Graph => sizes.graph_bytes += len,
            Slot::Codebook(_) => sizes.codebook_bytes.push(len),
            Slot::Weight(_) => sizes.weight_bytes.push(len),
            Slot::Plain(_) => sizes.plain_bytes += len,
        }
    }
    sizes
}

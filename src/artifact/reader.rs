//! Opening an artifact: everything is checked before it is believed, and the file's bytes are held once.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};
use tract_onnx::pb;

use super::body::Form;
use super::error::{ArtifactError, RecordError};
use super::inflate::Budget;
use super::record::{Allowance, CHECKSUM_BYTES, CodebookRef, EncodedHeader, Header, PlainHeader};
use super::wire::Cursor;
use super::{Body, FORMAT_VERSION, METADATA_KEY, StoredTensor, graph};
use crate::codec::{CompressedMatrix, Head, Words};
use crate::tensor::Codebook;

/// An artifact whose structure and checksums were verified; payloads are walked when a tensor is opened.
#[derive(Debug, Clone)]
pub struct Artifact {
    tensors: Vec<StoredTensor>,
    codebooks: Vec<Arc<Codebook>>,
    graph: Option<GraphRecord>,
    recipe: String,
    source_sha256: String,
    size_bytes: u64,
    /// Where each tensor's body starts in the file.
    offsets: Vec<u64>,
}

#[derive(Debug, Clone)]
struct GraphRecord {
    form: Form,
    /// Length of what `body` stands for.
    bytes: u64,
    body: Bytes,
    offset: u64,
}

/// One record, its checksum verified and cut off.
struct Record {
    id: usize,
    /// From the start of the file.
    offset: usize,
    bytes: Bytes,
}

impl Artifact {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// As [`Artifact::from_bytes`], and [`ArtifactError::Io`].
    pub fn open(path: &Path) -> Result<Self, ArtifactError> {
        Self::from_bytes(std::fs::read(path)?.into())
    }

    /// Checks a file held in memory. What it opens to shares `bytes`; binned tensors add up to 16 times their bytes, and all
    /// that is inflated or decoded beyond adds up to 64 MiB.
    ///
    /// # Errors
    /// An [`ArtifactError`] that names the damaged record and its place.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, ArtifactError> {
        let (data_start, metadata) = SafeTensors::read_metadata(&bytes)?;
        let data_start = data_start + size_of::<u64>();
        let entry = metadata.metadata().as_ref().and_then(|m| m.get(METADATA_KEY));
        let (source_sha256, recipe) = parse_metadata(entry.ok_or(ArtifactError::NotAnArtifact)?)?;
        let mut artifact = Self {
            tensors: Vec::new(),
            codebooks: Vec::new(),
            graph: None,
            recipe,
            source_sha256,
            size_bytes: bytes.len() as u64,
            offsets: Vec::new(),
        };
        artifact.read_records(records(&bytes, data_start, &metadata)?)?;
        Ok(artifact)
    }

    /// The stored weights and plain tensors, in the order of the model.
    pub fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    /// The codebooks that several tensors share.
    pub fn shared_codebooks(&self) -> &[Arc<Codebook>] {
        &self.codebooks
    }

    /// Opens an encoded tensor of this artifact, its payload walked from end to end; `None` for a plain one.
    ///
    /// # Errors
    /// [`ArtifactError::Record`] where the payload is damaged.
    pub fn matrix(&self, tensor: &StoredTensor) -> Result<Option<CompressedMatrix>, ArtifactError> {
        let Body::Encoded { dtype, layout, codec, rows_per_block, codebook, payload } = &tensor.body else {
            return Ok(None);
        };
        let fail = |source| {
            let index = self.tensors.iter().position(|t| t.name == tensor.name);
            let offset = index.map_or(0, |i| self.offsets[i]);
            ArtifactError::Record { tensor: tensor.name.clone(), offset, source }
        };
        let shape = layout.shape(&tensor.dims);
        let (rows, cols) = shape.ok_or_else(|| fail(RecordError::Shape { dims: tensor.dims.clone() }))?;
        let words = codebook.clone().map_or(Words::Values(*dtype), Words::Symbols);
        let head = Head { rows, cols, rows_per_block: *rows_per_block, words };
        CompressedMatrix::open(*codec, head, payload.clone()).map(Some).map_err(|e| fail(e.into()))
    }

    /// The same with every encoded tensor in a codec that products run on: what is in mix is decoded here, once, and encoded
    /// again in memory. Tensors in parallel on the current rayon pool.
    ///
    /// # Errors
    /// As [`Artifact::matrix`].
    pub fn to_serving(&self) -> Result<Self, ArtifactError> {
        let transcode = |tensor: &StoredTensor| {
            let mut served = tensor.clone();
            if let Body::Encoded { codec, rows_per_block, payload, .. } = &mut served.body
                && !codec.is_serving()
                && let Some(matrix) = self.matrix(tensor)?
            {
                let matrix = matrix.into_serving();
                (*codec, *rows_per_block, *payload) =
                    (matrix.codec(), matrix.head().rows_per_block, matrix.into_payload());
            }
            Ok(served)
        };
        let tensors = self.tensors.par_iter().map(transcode).collect::<Result<_, ArtifactError>>()?;
        Ok(Self { tensors, ..self.clone() })
    }

    /// The network without the data of [`Artifact::tensors`]: those are emptied, their names, dims and types stay. `None`
    /// for weights without a graph.
    ///
    /// # Errors
    /// [`ArtifactError::Record`] where the graph is damaged.
    pub fn graph(&self) -> Result<Option<pb::ModelProto>, ArtifactError> {
        let Some(record) = &self.graph else { return Ok(None) };
        let opened = record.form.open(&record.body, record.bytes, None);
        let decoded = opened.and_then(graph::decode);
        let fail = |source| ArtifactError::Record { tensor: "graph".into(), offset: record.offset, source };
        decoded.map(Some).map_err(fail)
    }

    /// The recipe that made this artifact, as JSON.
    pub fn recipe(&self) -> &str {
        &self.recipe
    }

    /// SHA-256 of the file that was compressed, in lower-case hex.
    pub fn source_sha256(&self) -> &str {
        &self.source_sha256
    }

    /// Bytes of the file.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Codebooks first, wherever they stand, since the other records refer to them.
    fn read_records(&mut self, records: Vec<Record>) -> Result<(), ArtifactError> {
        let mut rest = Vec::with_capacity(records.len());
        for record in records {
            let mut cursor = Cursor::new(&record.bytes);
            let header = Header::read(&mut cursor).map_err(|e| record.fail(None, cursor.position(), e))?;
            let body = cursor.position();
            match header {
                Header::Codebook(dtype) => {
                    let codebook = Codebook::from_le_bytes(dtype, &record.bytes[body..]);
                    self.codebooks.push(Arc::new(codebook.map_err(|e| record.fail(None, body, e.into()))?));
                }
                header => rest.push((record, header, body)),
            }
        }
        let (mut budget, mut allowance, mut names) = (Budget::default(), Allowance::default(), HashSet::new());
        for (record, header, body) in rest {
            let body_bytes = record.bytes.slice(body..);
            let (name, stored) = match header {
                Header::Graph(storage) => {
                    let form = storage.form;
                    let bytes = if let Form::Deflated { bytes } = form { bytes } else { body_bytes.len() as u64 };
                    let claimed = form.claim(bytes, body_bytes.len(), &mut budget);
                    claimed.map_err(|e| record.fail(Some("graph"), body, e))?;
                    let offset = (record.offset + body) as u64;
                    if self.graph.replace(GraphRecord { form, bytes, body: body_bytes, offset }).is_some() {
                        return Err(ArtifactError::Duplicate { tensor: "graph".into() });
                    }
                    continue;
                }
                Header::Encoded(header) => {
                    let claimed = allowance.claim(&header, record.bytes.len());
                    claimed.map_err(|e| record.fail(Some(&header.name), body, e))?;
                    (header.name.clone(), self.encoded(header, body_bytes))
                }
                Header::Plain(header) => (header.name.clone(), plain(header, body_bytes, &mut budget)),
                Header::Codebook(_) => unreachable!("codebooks were set aside"),
            };
            if !names.insert(name.clone()) {
                return Err(ArtifactError::Duplicate { tensor: name });
            }
            let (dims, body_value) = stored.map_err(|e| record.fail(Some(&name), body, e))?;
            let size_bytes = (record.bytes.len() + CHECKSUM_BYTES) as u64;
            self.tensors.push(StoredTensor { name, dims, body: body_value, size_bytes });
            self.offsets.push((record.offset + body) as u64);
        }
        Ok(())
    }

    fn encoded(&self, header: EncodedHeader, payload: Bytes) -> Result<(Vec<usize>, Body), RecordError> {
        let EncodedHeader { dims, dtype, layout, codec, rows_per_block, codebook, .. } = header;
        let codebook = match codebook {
            CodebookRef::Raw => None,
            CodebookRef::Own(codebook) => Some(codebook),
            CodebookRef::Shared(index) => {
                let codebooks = self.codebooks.len();
                let unknown = RecordError::UnknownCodebook { index: index as u64, codebooks };
                Some(self.codebooks.get(index).cloned().ok_or(unknown)?)
            }
        };
        if let Some(found) = codebook.as_ref().map(|c| c.dtype()).filter(|&found| found != dtype) {
            return Err(RecordError::CodebookType { tensor: dtype, codebook: found });
        }
        Ok((dims, Body::Encoded { dtype, layout, codec, rows_per_block, codebook, payload }))
    }
}

impl Record {
    fn fail(&self, name: Option<&str>, position: usize, source: RecordError) -> ArtifactError {
        let tensor = name.map_or_else(|| self.id.to_string(), str::to_owned);
        ArtifactError::Record { tensor, offset: (self.offset + position) as u64, source }
    }
}

fn plain(header: PlainHeader, body: Bytes, budget: &mut Budget) -> Result<(Vec<usize>, Body), RecordError> {
    let stored = header.stored_bytes().ok_or_else(|| RecordError::Shape { dims: header.dims.clone() })?;
    header.storage.form.claim(stored, body.len(), budget)?;
    let mut bytes = header.storage.form.open(&body, stored, header.binned_width())?;
    if let Some(dtype) = header.element.float().filter(|_| header.storage.halved) {
        bytes = graph::widen(&bytes, dtype).into();
    }
    Ok((header.dims, Body::Plain { dtype: header.element.name.to_owned(), bytes }))
}

/// `version sha256 recipe`, a blank between them.
fn parse_metadata(text: &str) -> Result<(String, String), ArtifactError> {
    let bad = |part| ArtifactError::Metadata { part };
    let mut parts = text.splitn(3, ' ');
    let version = parts.next().and_then(|v| v.parse::<u32>().ok()).ok_or(bad("version"))?;
    if version != FORMAT_VERSION {
        return Err(ArtifactError::Version { found: version, supported: FORMAT_VERSION });
    }
    let is_digest = |d: &&str| d.len() == 64 && d.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let sha256 = parts.next().filter(is_digest).ok_or(bad("sha256"))?;
    let is_json = |r: &&str| serde_json::from_str::<serde::de::IgnoredAny>(r).is_ok();
    let recipe = parts.next().filter(is_json).ok_or(bad("recipe"))?;
    Ok((sha256.to_owned(), recipe.to_owned()))
}

/// The records in the order of their ids, checksums verified.
fn records(
    bytes: &Bytes,
    data_start: usize,
    metadata: &safetensors::tensor::Metadata,
) -> Result<Vec<Record>, ArtifactError> {
    let infos = metadata.tensors();
    let entries = infos.len();
    let mut records = Vec::with_capacity(entries);
    for (name, info) in infos {
        let id = name.parse::<usize>().ok().filter(|&id| id < entries && id.to_string() == name);
        let (Some(id), Dtype::U8, 1) = (id, info.dtype, info.shape.len()) else {
            return Err(ArtifactError::Entry { id: name, entries });
        };
        let (start, end) = info.data_offsets;
        let (start, end) = (start.saturating_add(data_start), end.saturating_add(data_start));
        let fail = |source| ArtifactError::Record { tensor: name.clone(), offset: start as u64, source };
        if start > end || end > bytes.len() || end - start <= CHECKSUM_BYTES {
            let needed = (CHECKSUM_BYTES + 1) as u64;
            return Err(fail(RecordError::Truncated { needed, found: end.saturating_sub(start) }));
        }
        let (content, checksum) = bytes[start..end].split_at(end - start - CHECKSUM_BYTES);
        let stored = u32::from_le_bytes(checksum.try_into().expect("split at four bytes from the end"));
        let computed = crc32c::crc32c(content);
        if stored != computed {
            return Err(fail(RecordError::Checksum { stored, computed }));
        }
        records.push(Record { id, offset: start, bytes: bytes.slice(start..end - CHECKSUM_BYTES) });
    }
    records.sort_unstable_by_key(|record| record.id);
    Ok(records)
}

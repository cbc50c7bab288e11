//! Pruned and shared layers set aside on disk until it is known in which order their units will stand.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::SpooledTempFile;

use super::layer::Prepared;
use crate::artifact::folder_of;
use crate::tensor::{Codebook, FloatData, FloatType, Matrix, Values};

/// Layers beyond this leave memory for an unnamed file beside the artifact.
const MEMORY_BYTES: usize = 1 << 20;

/// Layers, written once each from any thread and read as often as needed.
pub(super) struct Spool {
    file: Mutex<SpooledTempFile>,
}

/// Where a layer lies in the spool, and what is not written there.
pub(super) struct Spooled {
    start: u64,
    rows: usize,
    cols: usize,
    words: Words,
    weight_snr_db: Option<f64>,
}

enum Words {
    Symbols(Arc<Codebook>),
    Values(FloatType),
}

impl Spool {
    /// For an artifact at `out`.
    pub(super) fn new(out: &Path) -> Self {
        Self { file: Mutex::new(tempfile::spooled_tempfile_in(MEMORY_BYTES, folder_of(out))) }
    }

    pub(super) fn put(&self, layer: Prepared) -> io::Result<Spooled> {
        let Prepared { matrix, weight_snr_db } = layer;
        let (bytes, words) = match matrix.values() {
            Values::Shared { codebook, indices } => {
                let bytes = indices.iter().flat_map(|symbol| symbol.to_le_bytes()).collect();
                (bytes, Words::Symbols(codebook.clone()))
            }
            Values::Raw { dtype, data } => {
                let mut bytes = Vec::new();
                data.write_le_bytes(*dtype, &mut bytes);
                (bytes, Words::Values(*dtype))
            }
        };
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let start = file.seek(SeekFrom::End(0))?;
        file.write_all(&bytes)?;
        Ok(Spooled { start, rows: matrix.rows(), cols: matrix.cols(), words, weight_snr_db })
    }

    pub(super) fn get(&self, spooled: &Spooled) -> io::Result<Prepared> {
        let Spooled { start, rows, cols, ref words, weight_snr_db } = *spooled;
        let width = match words {
            Words::Symbols(_) => size_of::<u16>(),
            Words::Values(dtype) => dtype.size_bytes(),
        };
        let mut bytes = vec![0; rows * cols * width];
        {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(&mut bytes)?;
        }
        let matrix = match words {
            Words::Symbols(codebook) => {
                let symbols = bytes.as_chunks().0.iter().map(|symbol| u16::from_le_bytes(*symbol)).collect();
                Matrix::shared(rows, cols, codebook.clone(), symbols)
            }
            Words::Values(dtype) => Matrix::raw(rows, cols, *dtype, FloatData::from_le_bytes(*dtype, &bytes)),
        };
        Ok(Prepared { matrix: matrix.map_err(io::Error::other)?, weight_snr_db })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_come_back_as_they_were() {
        let codebook = Codebook::new(FloatType::F32, vec![-1.0, 0.0, 2.5]).unwrap();
        let symbols = (0..600_000).map(|i| (i % 3) as u16).collect();
        let shared = Matrix::shared(1000, 600, Arc::new(codebook), symbols).unwrap();
        let raw = Matrix::raw(1, 3, FloatType::Bf16, FloatData::F32(vec![0.5, -0.0, 3.0])).unwrap();
        let spool = Spool::new(&std::env::temp_dir().join("artifact"));
        let layers = [(raw.clone(), None), (shared, Some(3.5)), (raw, Some(1.0))];
        let put = |(matrix, weight_snr_db)| spool.put(Prepared { matrix, weight_snr_db }).unwrap();
        let places = layers.clone().map(put);
        for (place, layer) in places.iter().zip(layers).rev() {
            let Prepared { matrix, weight_snr_db } = spool.get(place).unwrap();
            assert_eq!((matrix, weight_snr_db), layer);
        }
    }
}

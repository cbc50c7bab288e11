//! Matrices to encode, and what every test does with them.

use std::sync::Arc;

use proptest::prelude::*;
use weightpress::codec::{self, CodecId, CompressedMatrix, Head};
use weightpress::tensor::{Codebook, FloatData, FloatType, MAX_LEVELS, Matrix, Values};

pub const FLOAT_TYPES: [FloatType; 4] = [FloatType::F16, FloatType::Bf16, FloatType::F32, FloatType::F64];

/// The codecs that can represent `matrix`.
pub fn codecs_for(matrix: &Matrix) -> Vec<CodecId> {
    let fits = |id: &CodecId| match matrix.values() {
        Values::Raw { .. } => matches!(id, CodecId::Dense | CodecId::Csr | CodecId::Csc | CodecId::Pco),
        // The changes of delta have a word more than the codebook has values.
        Values::Shared { codebook, .. } => {
            *id != CodecId::Pco && (*id != CodecId::Delta || codebook.len() < MAX_LEVELS)
        }
    };
    CodecId::ALL.iter().copied().filter(fits).collect()
}

/// Those of them that products run on.
pub fn serving_codecs_for(matrix: &Matrix) -> Vec<CodecId> {
    codecs_for(matrix).into_iter().filter(|id| id.is_serving()).collect()
}

/// Encodes and opens.
pub fn opened(matrix: &Matrix, id: CodecId, rows_per_block: usize) -> CompressedMatrix {
    let payload = codec::encode(matrix, id, rows_per_block).unwrap();
    let head = Head::of(matrix, rows_per_block).unwrap();
    CompressedMatrix::open(id, head, payload.into()).unwrap_or_else(|error| panic!("{id:?}: {error}"))
}

/// The bits of every value; tells -0.0 from 0.0.
pub fn bits(matrix: &Matrix) -> Vec<u64> {
    (0..matrix.rows() * matrix.cols()).map(|i| matrix.value(i).to_bits()).collect()
}

/// A matrix of symbols, each drawn by `symbol`.
pub fn shared(rows: usize, cols: usize, codebook: &Arc<Codebook>, symbol: impl FnMut(usize) -> u16) -> Matrix {
    Matrix::shared(rows, cols, codebook.clone(), (0..rows * cols).map(symbol).collect()).unwrap()
}

/// `levels` values in [-1, 1]; with zero among them where they are more than one and `with_zero`.
pub fn codebook(levels: usize, with_zero: bool) -> Arc<Codebook> {
    let step = 2.0 / levels as f64;
    let shift = if with_zero { 0.0 } else { step / 2.0 };
    let values = (0..levels).map(|i| (i as f64 - (levels / 2) as f64) * step + shift);
    Arc::new(Codebook::from_unsorted(FloatType::F64, values).unwrap())
}

/// Numbers that look random and are the same everywhere.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// In [0, 1).
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In [-1, 1).
    pub fn vector(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.fraction() as f32 * 2.0 - 1.0).collect()
    }
}

/// A matrix of symbols with about `sparsity` zeros, the rest skewed towards the low symbols.
pub fn pruned(rows: usize, cols: usize, codebook: &Arc<Codebook>, sparsity: f64, seed: u64) -> Matrix {
    let mut noise = Noise(seed);
    let (levels, zero) = (codebook.len() as f64, codebook.zero().unwrap_or(0));
    shared(rows, cols, codebook, |_| {
        let skewed = noise.fraction() * noise.fraction() * levels;
        if noise.fraction() < sparsity { zero } else { skewed as u16 }
    })
}

/// Any shape, from one cell to some thousands, and every number of levels that has its own path somewhere.
pub fn any_shared() -> impl Strategy<Value = Matrix> {
    let shape =
        prop_oneof![8 => (1..40usize, 1..70usize), 1 => (1..4usize, 250..300usize), 1 => (250..300usize, 1..4usize)];
    let levels = prop::sample::select(vec![1usize, 2, 3, 4, 5, 17, 255, 256, 257, 1000, 65_536]);
    (shape, levels, any::<bool>(), 0.0..=1.0, any::<u64>()).prop_map(
        |((rows, cols), levels, with_zero, sparsity, seed)| {
            pruned(rows, cols, &codebook(levels, with_zero), sparsity, seed)
        },
    )
}

/// Raw values of every type, -0.0, subnormals and the largest among them.
pub fn any_raw() -> impl Strategy<Value = Matrix> {
    let shape = prop_oneof![8 => (1..40usize, 1..40usize), 1 => (1..4usize, 250..300usize)];
    (shape, prop::sample::select(&FLOAT_TYPES[..]), 0.0..=1.0, any::<u64>()).prop_map(
        |((rows, cols), dtype, sparsity, seed)| {
            let mut noise = Noise(seed);
            let mut value = || match noise.next() % 16 {
                _ if noise.fraction() < sparsity => 0.0,
                0 => -0.0,
                1 => dtype.from_bits(1),
                2 => dtype.round(65504.0),
                _ => dtype.round(noise.fraction() * 2.0 - 1.0),
            };
            raw(rows, cols, dtype, (0..rows * cols).map(|_| value()).collect())
        },
    )
}

/// A matrix of `values`, each representable in `dtype`.
pub fn raw(rows: usize, cols: usize, dtype: FloatType, values: Vec<f64>) -> Matrix {
    let data = match dtype {
        FloatType::F64 => FloatData::F64(values),
        _ => FloatData::F32(values.iter().map(|&v| v as f32).collect()),
    };
    Matrix::raw(rows, cols, dtype, data).unwrap()
}

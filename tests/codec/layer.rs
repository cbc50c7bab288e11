//! A layer as the authors of the base paper published it: `indices` (inputs, outputs) and `codebook` in an npz file.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use weightpress::tensor::{Codebook, FloatType, Matrix};

/// The layers bundled with the tests; their origin is told beside them.
pub const BUNDLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sham_layers");

/// Reads the layer and turns it into a matrix with one row per output.
pub fn read(path: &Path) -> Matrix {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut archive = zip::ZipArchive::new(file).unwrap();
    let values: Vec<f32> = npyz::NpyFile::new(archive.by_name("codebook.npy").unwrap()).unwrap().into_vec().unwrap();
    let indices = npyz::NpyFile::new(archive.by_name("indices.npy").unwrap()).unwrap();
    let [inputs, outputs] = indices.shape()[..] else { panic!("indices of rank {}", indices.shape().len()) };
    let (inputs, outputs) = (inputs as usize, outputs as usize);
    let indices: Vec<u8> = indices.into_vec().unwrap();
    let codebook = Codebook::new(FloatType::F32, values.into_iter().map(f64::from).collect()).unwrap();
    let cells = (0..outputs).flat_map(|output| (0..inputs).map(move |input| (input, output)));
    let symbols = cells.map(|(input, output)| u16::from(indices[input * outputs + output])).collect();
    Matrix::shared(outputs, inputs, Arc::new(codebook), symbols).unwrap()
}

/// What the HAM and sHAM streams of a layer take in the base paper's formats, in bytes, without codebook, dictionary
/// and offsets; and the order-0 entropy of the gaps between its non-zero cells and of their values.
pub struct Published {
    pub layer: &'static str,
    pub ham_bytes: usize,
    pub sham_bytes: usize,
    pub entropy_bytes: usize,
    /// The smallest of the order-0 entropy, NNCodec 2.1.3 and xz -9e of the symbols as bytes; and what mix may take of it.
    pub rival_bytes: usize,
    pub mix_percent: usize,
}

pub const PUBLISHED: [Published; 8] = [
    Published {
        layer: "dta_50-0-256-0-0.22045",
        ham_bytes: 100_257,
        sham_bytes: 175_009,
        entropy_bytes: 99_841,
        rival_bytes: 99_855,
        mix_percent: 100,
    },
    Published {
        layer: "dta_80-0-16-0-0.23378",
        ham_bytes: 37_502,
        sham_bytes: 53_272,
        entropy_bytes: 29_930,
        rival_bytes: 29_441,
        mix_percent: 100,
    },
    Published {
        layer: "vgg_70-0-32-0-0.9952",
        ham_bytes: 578_573,
        sham_bytes: 1_582_909,
        entropy_bytes: 516_178,
        rival_bytes: 172_080,
        mix_percent: 50,
    },
    Published {
        layer: "vgg_80-0-256-0-0.9955",
        ham_bytes: 502_842,
        sham_bytes: 1_087_752,
        entropy_bytes: 399_131,
        rival_bytes: 184_744,
        mix_percent: 50,
    },
    Published {
        layer: "vgg_90-0-32-0-0.9951",
        ham_bytes: 325_878,
        sham_bytes: 491_356,
        entropy_bytes: 163_333,
        rival_bytes: 47_584,
        mix_percent: 50,
    },
    Published {
        layer: "vgg_95-0-256-0-0.9956",
        ham_bytes: 294_570,
        sham_bytes: 250_334,
        entropy_bytes: 92_322,
        rival_bytes: 37_748,
        mix_percent: 50,
    },
    Published {
        layer: "vgg_97-0-32-0-0.9946",
        ham_bytes: 274_153,
        sham_bytes: 146_031,
        entropy_bytes: 49_817,
        rival_bytes: 18_180,
        mix_percent: 50,
    },
    Published {
        layer: "vgg_99-0-32-0-0.9955",
        ham_bytes: 264_766,
        sham_bytes: 52_758,
        entropy_bytes: 17_783,
        rival_bytes: 9_856,
        mix_percent: 50,
    },
];

impl Published {
    /// What rANS may take, all in all: 3 % more than the entropy.
    pub fn allowed_above_entropy(&self) -> usize {
        self.entropy_bytes + self.entropy_bytes * 3 / 100
    }

    /// What mix may take, all in all.
    pub fn allowed_beside_rival(&self) -> usize {
        self.rival_bytes * self.mix_percent / 100
    }

    /// What ours may take with dictionary and offsets: 1 % more and 5 bytes a level.
    pub fn allowed_bytes(stream_bytes: usize, levels: usize) -> usize {
        stream_bytes + stream_bytes / 100 + 5 * levels
    }
}

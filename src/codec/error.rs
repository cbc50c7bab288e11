//! Why a matrix cannot be encoded, and why bytes are not an encoded matrix.

use super::{CodecId, MAX_CELLS};
use crate::progress::Cancelled;

/// Why a matrix cannot be encoded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The codec stores symbols, and the matrix holds raw values.
    #[error("codec {codec:?} needs a codebook, and the matrix holds raw values")]
    NeedsCodebook { codec: CodecId },
    /// The codec stores values in full, and the matrix holds symbols.
    #[error("codec {codec:?} takes raw values, and the matrix holds symbols of a codebook")]
    NeedsRawValues { codec: CodecId },
    /// The matrix is larger than any payload may be.
    #[error("{rows} x {cols} cells are more than the {MAX_CELLS} of an encoded matrix")]
    TooManyCells { rows: usize, cols: usize },
    /// A block has more cells than the codec takes: a row is too long, or too many rows were asked for.
    #[error("blocks of {cells} cells, and codec {codec:?} takes at most {most}")]
    BlockTooLarge { codec: CodecId, cells: usize, most: usize },
    /// A block has more rows than the codec takes.
    #[error("blocks of {rows} rows, and codec {codec:?} takes at most {most}")]
    TooManyRows { codec: CodecId, rows: usize, most: usize },
    /// The codebook has more values than the codec takes.
    #[error("{levels} values, and codec {codec:?} takes at most {most}")]
    TooManyLevels { codec: CodecId, levels: usize, most: usize },
    /// A choice among codecs was asked for, and there were none.
    #[error("no codec to choose from")]
    NoCodec,
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl From<Cancelled> for EncodeError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

/// Why bytes are not an encoded matrix.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// No codec has this number.
    #[error("there is no codec number {number}")]
    UnknownCodec { number: u8 },
    /// The head promises more cells than an encoded matrix may have.
    #[error("{rows} x {cols} cells are more than the {MAX_CELLS} of an encoded matrix")]
    TooManyCells { rows: usize, cols: usize },
    /// The head says that blocks have no rows.
    #[error("blocks of 0 rows")]
    EmptyBlocks,
    /// The codec stores symbols, and the head names no codebook.
    #[error("codec {codec:?} needs a codebook")]
    NeedsCodebook { codec: CodecId },
    /// The codec stores values in full, and the head names a codebook.
    #[error("codec {codec:?} takes no codebook")]
    NeedsRawValues { codec: CodecId },
    /// The payload or a section of it ended early.
    #[error("need {needed} bytes, found {found}")]
    UnexpectedEof { needed: usize, found: usize },
    /// A bit string ended inside a code word.
    #[error("the bit string ends inside a code word")]
    UnexpectedEndOfBits,
    /// Bytes follow the last one that means something.
    #[error("{found} bytes follow the end")]
    TrailingBytes { found: usize },
    /// The bits that fill up the last byte of a bit string are not all zero.
    #[error("padding bits are not zero")]
    NonZeroPadding,
    /// A varint is longer than it need be, or than any number here.
    #[error("a varint is not in its shortest form, or too long")]
    InvalidVarint,
    /// A code points past the codebook.
    #[error("symbol {symbol} is outside a codebook of {levels} values")]
    SymbolOutOfRange { symbol: u64, levels: usize },
    /// A raw value is NaN or infinite.
    #[error("a value is not finite")]
    NonFinite,
    /// A row or column index, or a symbol, is too large or not above the one before it.
    #[error("index {index} is not in {lowest}..{below}")]
    IndexOutOfOrder { index: usize, lowest: usize, below: usize },
    /// A block has more cells than its codec takes.
    #[error("a block of {cells} cells, where {most} are the most")]
    BlockTooLarge { cells: usize, most: usize },
    /// A block has more rows than its codec takes.
    #[error("a block of {rows} rows, where {most} are the most")]
    TooManyRows { rows: usize, most: usize },
    /// The codebook has more values than the codec takes.
    #[error("a codebook of {levels} values, where {most} are the most")]
    TooManyLevels { levels: usize, most: usize },
    /// The parents of a block's rows run in a circle, or too far.
    #[error("the parents of {rows} rows are no trees, or trees that are too deep")]
    NotTrees { rows: usize },
    /// The columns do not fall into channels.
    #[error("channels of {period} columns in rows of {cols}")]
    Period { period: usize, cols: usize },
    /// A group of CSER has no cells.
    #[error("a group of columns is empty")]
    EmptyGroup,
    /// A cell is stored twice.
    #[error("column {col} of row {row} is stored twice")]
    DuplicateCell { row: usize, col: usize },
    /// A dictionary holds more symbols than its alphabet.
    #[error("{used} code words for an alphabet of {symbols} symbols")]
    TooManyCodeWords { used: u64, symbols: usize },
    /// A code length is not in 1..=32.
    #[error("a code word of {length} bits")]
    CodeLength { length: i64 },
    /// The code lengths leave bit strings without a meaning, or give one two meanings.
    #[error("the code lengths do not make a complete code")]
    IncompleteCode,
    /// A code word was read of a code that has none.
    #[error("a code word of an empty code")]
    EmptyCode,
    /// A model's precision is larger than any.
    #[error("a model of precision {precision}")]
    Precision { precision: u32 },
    /// The frequencies of a model do not add up, or it has a single class and a precision above 0.
    #[error("the frequencies of a model of precision {precision} do not add up")]
    Frequencies { precision: u32 },
    /// Flags are set that mean nothing yet.
    #[error("flags {flags:#04x}")]
    ReservedFlags { flags: u8 },
    /// A row copies a row that its block has not had.
    #[error("row {row} of a block copies row {number} of {rows}")]
    CopyOfNoRow { row: usize, number: u32, rows: u32 },
    /// There are more entries than cells, or they go beyond the last cell.
    #[error("entries go beyond {cells} cells")]
    TooManyEntries { cells: usize },
    /// A state of a rANS coder is too small to be one.
    #[error("a state of {state:#x} is too small")]
    LowState { state: u32 },
    /// A rANS decoder did not end in the state in which encoders begin.
    #[error("the decoder ends in state {state:#x}")]
    FinalState { state: u32 },
    /// Binned numbers of a version of pco's format that is not defined here.
    #[error("numbers of version {major}.{minor} of pco's format, not 4.1")]
    BinnedVersion { major: u8, minor: u8 },
    /// Binned numbers in a mode of pco other than classic and integer multiples.
    #[error("numbers of mode {mode} of pco, not 0 or 1")]
    BinnedMode { mode: u8 },
    /// Binned numbers in a delta encoding of pco other than none and consecutive.
    #[error("numbers of delta encoding {delta} of pco, not 0 or 1")]
    BinnedDelta { delta: u8 },
    /// The binned numbers are damaged.
    #[error(transparent)]
    Binned(#[from] ::pco::errors::PcoError),
    /// Something is wrong inside a block.
    #[error("block {block} at byte {offset}: {source}")]
    Block { block: usize, offset: usize, source: Box<DecodeError> },
}

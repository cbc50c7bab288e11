"""Decodes Weightpress artifacts, written from docs/format.md alone: the second opinion on the format.

Slow and plain on purpose: it follows the document section by section (numbers in the comments), and uses NumPy for arrays
only; the chunks of binned numbers are left to the package `pcodec`, of the authors of their format.
`python reference_decoder.py FILE` lists what an artifact holds.
"""

import json
import sys
import zlib
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import reference_mix
from pcodec import wrapped as pco

# Section 1: float types. NumPy has no bfloat16: its bits are handled as uint16 everywhere.
FLOAT_BITS = [np.dtype("<u2"), np.dtype("<u2"), np.dtype("<u4"), np.dtype("<u8")]
FLOAT_NAMES = ["F16", "BF16", "F32", "F64"]
# Section 3.4: bits of an element, by `TensorProto.DataType`.
ELEMENT_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128,
                16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2}  # fmt: skip
INFLATE_LIMIT = 64 << 20
DECODED_PER_BYTE = 16
# Section 7.
PCO_VERSION = bytes([4, 1])
CHUNK_NUMBERS = 1 << 18
NUMBERS_PER_BYTE = 256


class FormatError(ValueError):
    """The file is not what docs/format.md says."""


def require(condition, message):
    if not condition:
        raise FormatError(message)


@dataclass
class Artifact:
    source_sha256: str
    recipe: dict
    graph: bytes | None = None
    # Name -> tensor as an array of bits, in the order and shape of the model.
    weights: dict = field(default_factory=dict)
    plain: dict = field(default_factory=dict)
    codecs: dict = field(default_factory=dict)
    # Names of plain tensors that are binned.
    binned: set = field(default_factory=set)


class Bytes:
    """A byte string that is read from its front."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        require(self.at + count <= len(self.data), f"need {count} bytes, found {len(self.data) - self.at}")
        self.at += count
        return self.data[self.at - count : self.at]

    def rest(self):
        return self.take(len(self.data) - self.at)

    def byte(self):
        return self.take(1)[0]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                require((byte or not shift) and value < 1 << 64, "not a varint in its shortest form")
                return value
            shift += 7

    def array(self, count, dtype):
        return np.frombuffer(self.take(count * dtype.itemsize), dtype).astype(np.int64)


class Bits:
    """A bit string; `position` counts bits from the start of `data`."""

    def __init__(self, data):
        self.bits = np.unpackbits(np.frombuffer(data, np.uint8))
        self.at = 0

    def take(self, count):
        require(self.at + count <= len(self.bits), "the bit string ends early")
        value = 0
        for bit in self.bits[self.at : self.at + count]:
            value = value << 1 | int(bit)
        self.at += count
        return value

    def rice(self, parameter):
        quotient = 0
        while self.take(1) == 0:
            quotient += 1
        return quotient << parameter | self.take(parameter)

    def whole_bytes(self):
        """Bytes used so far; the padding is checked."""
        used = -(-self.at // 8)
        require(not self.bits[self.at : used * 8].any(), "padding bits are not zero")
        return used

    def finish(self):
        require(self.whole_bytes() * 8 == len(self.bits), "bytes follow the bit string")


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def crc_row(value):
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


CRC_TABLE = [crc_row(byte) for byte in range(256)]


def decode(data):
    """Sections 2 and 3: the container and its records."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    version, sha256, recipe = header.pop("__metadata__")["weightpress"].split(" ", 2)
    require(version == "1", f"version {version}")
    artifact = Artifact(sha256, json.loads(recipe))
    records = []
    for number in range(len(header)):
        entry = header[str(number)]
        require(entry["dtype"] == "U8" and len(entry["shape"]) == 1, f"entry {number}")
        start, end = entry["data_offsets"]
        record = data[8 + length + start : 8 + length + end]
        require(crc32c(record[:-4]) == int.from_bytes(record[-4:], "little"), f"checksum of record {number}")
        records.append(record[:-4])
    codebooks = [codebook(record) for record in records if record[0] & 15 == 2]
    left = INFLATE_LIMIT
    for record in records:
        kind, flags, source = record[0] & 15, record[0] >> 4, Bytes(record[1:])
        require(1 <= kind <= 4, f"kind {kind}")
        if kind == 1:
            artifact.graph, left = body(source, flags & 1, left)
        elif kind == 3:
            encoded_weight(artifact, flags, source, codebooks)
        elif kind == 4:
            left = plain_tensor(artifact, flags, source, left)
    return artifact


def body(source, deflated, left):
    """Sections 3.1 and 3.4: a body that may be deflated, and what is left of the limit of section 4."""
    if not deflated:
        return source.rest(), left
    claimed = source.varint()
    require(claimed <= left, "inflates to more than a file may")
    inflater = zlib.decompressobj(-15)
    inflated = inflater.decompress(source.rest(), claimed + 1)
    require(len(inflated) == claimed and inflater.eof and not inflater.unused_data, "inflates to another length")
    return inflated, left - claimed


def codebook(record):
    """Section 3.2: float type and the bits of the values."""
    float_type = record[0] >> 4
    require(float_type < 4, "codebook flags")
    return float_type, np.frombuffer(record[1:], FLOAT_BITS[float_type])


def name_and_dims(source):
    name = source.take(source.varint()).decode("utf-8")
    return name, [source.varint() for _ in range(source.varint())]


def encoded_weight(artifact, flags, source, codebooks):
    """Section 3.3."""
    float_type, values_from = flags & 3, flags >> 2
    name, dims = name_and_dims(source)
    layout = source.byte()
    groups = source.varint() if layout == 2 else 1
    codec, rows_per_block = source.byte(), source.varint()
    require(codec in CODECS, f"codec {codec}")
    values = None
    if values_from == 1:
        count = source.varint()
        values = np.frombuffer(source.take(count * FLOAT_BITS[float_type].itemsize), FLOAT_BITS[float_type])
    elif values_from == 2:
        shared_type, values = codebooks[source.varint()]
        require(shared_type == float_type, "a codebook of another type")
    rows, cols = matrix_shape(layout, dims, groups)
    matrix = Matrix(rows, cols, rows_per_block, float_type, values)
    words = decode_payload(matrix, codec, source.rest())
    bits = words.astype(FLOAT_BITS[float_type]) if values is None else values[words]
    artifact.weights[name] = (FLOAT_NAMES[float_type], to_tensor(bits.reshape(rows, cols), layout, dims, groups))
    artifact.codecs[name] = codec


def matrix_shape(layout, dims, groups):
    if layout == 0:
        return (1, int(np.prod(dims))) if len(dims) < 2 else (dims[0], int(np.prod(dims[1:])))
    if layout == 1:
        return dims[1], dims[0]
    require(layout == 2, f"layout {layout}")
    return groups * dims[1], dims[0] // groups * int(np.prod(dims[2:]))


def to_tensor(matrix, layout, dims, groups):
    if layout == 0:
        return matrix.reshape(dims)
    if layout == 1:
        return matrix.T
    inputs, outputs, kernel = dims[0] // groups, dims[1], dims[2:]
    return matrix.reshape(groups, outputs, inputs, *kernel).swapaxes(1, 2).reshape(dims)


def plain_tensor(artifact, flags, source, left):
    """Section 3.4."""
    name, dims = name_and_dims(source)
    element = source.byte()
    bits = 16 if flags & 2 else ELEMENT_BITS[element]
    length = -(-int(np.prod(dims)) * bits // 8)
    require(flags & 5 != 5, "deflated and binned")
    if flags & 4:
        binned = source.rest()
        artifact.binned.add(name)
        left -= max(0, length - DECODED_PER_BYTE * len(binned))
        require(left >= 0, "decodes to more than a file may")
        data = binned_numbers(pco_header(Bytes(binned)), int(np.prod(dims)), np.dtype(f"<u{bits // 8}")).tobytes()
    else:
        data, left = body(source, flags & 1, left)
    require(len(data) == length, "data of another length")
    if flags & 2:
        data = np.frombuffer(data, "<f2").astype({1: "<f4", 11: "<f8"}[element]).tobytes()
    artifact.plain[name] = (element, dims, data)
    return left


@dataclass
class Matrix:
    rows: int
    cols: int
    rows_per_block: int
    float_type: int
    values: np.ndarray | None

    def word(self):
        if self.values is None:
            return FLOAT_BITS[self.float_type]
        return np.dtype("u1") if len(self.values) <= 256 else np.dtype("<u2")

    def zero_word(self):
        """The symbol of +0.0, whose bits are all zero; 0 without a codebook; None where there is none."""
        if self.values is None:
            return 0
        found = np.flatnonzero(self.values == 0)  # Compares bits, so not -0.0.
        return int(found[0]) if len(found) else None


def decode_payload(matrix, codec, payload):
    """Section 5: the words of all cells, row-major."""
    if matrix.rows * matrix.cols == 0:
        return np.zeros(0, np.int64)
    source = Bytes(payload)
    read_shared, read_block = CODECS[codec]
    shared = read_shared(matrix, source)
    blocks = -(-matrix.rows // matrix.rows_per_block)
    lengths = [source.varint() for _ in range(blocks - 1)]
    cells = []
    for index in range(blocks):
        data = source.take(lengths[index]) if index < blocks - 1 else source.rest()
        rows = min(matrix.rows_per_block, matrix.rows - index * matrix.rows_per_block)
        # Cells that are not stored hold zero; -1 stands for "not stored" until then.
        out = np.full((rows, matrix.cols), -1 if matrix.zero_word() is None else matrix.zero_word(), np.int64)
        read_block(matrix, shared, data, out)
        require((out >= 0).all() or matrix.values is None, "a cell without a value")
        cells.append(out.reshape(-1))
    return np.concatenate(cells)


def index_dtype(largest):
    return np.dtype("u1") if largest < 1 << 8 else np.dtype("<u2") if largest < 1 << 16 else np.dtype("<u4")


def finish(source):
    require(source.at == len(source.data), "bytes follow the block")


def no_shared_part(_matrix, _source):
    return None


def dense_block(matrix, _shared, data, out):
    """Section 5.0."""
    source = Bytes(data)
    out[:] = source.array(out.size, matrix.word()).reshape(out.shape)
    finish(source)


def csr_block(matrix, _shared, data, out):
    """Section 5.1."""
    source = Bytes(data)
    row_of, columns = row_pattern(source, matrix, len(out))
    out[row_of, columns] = source.array(len(columns), matrix.word())
    finish(source)


def row_pattern(source, matrix, rows):
    """Counts and columns of CSR and sHAM."""
    width = index_dtype(matrix.cols)
    counts = source.array(rows, width)
    return np.repeat(np.arange(rows), counts), source.array(int(counts.sum()), width)


def csc_block(matrix, _shared, data, out):
    """Section 5.2."""
    source, width = Bytes(data), index_dtype(len(out))
    counts = source.array(matrix.cols, width)
    rows = source.array(int(counts.sum()), width)
    out[rows, np.repeat(np.arange(matrix.cols), counts)] = source.array(len(rows), matrix.word())
    finish(source)


def index_map_block(matrix, _shared, data, out):
    """Section 5.3."""
    width, bits = (len(matrix.values) - 1).bit_length(), Bits(data)
    count = out.size * width
    require(len(bits.bits) == -(-count // 8) * 8, "bytes of the block")
    places = 1 << np.arange(width - 1, -1, -1, dtype=np.int64)
    out[:] = (bits.bits[:count].reshape(out.size, width) @ places).reshape(out.shape)
    bits.at = count
    bits.finish()


def ham_shared(matrix, source):
    """Section 5.4: over all symbols."""
    return dictionary(source, list(range(len(matrix.values))))


def ham_block(_matrix, code, data, out):
    """Section 5.4."""
    bits = Bits(data)
    out[:] = code_words(code, bits, out.size).reshape(out.shape)
    bits.finish()


def sham_shared(matrix, source):
    """Section 5.5: over all symbols but zero."""
    return dictionary(source, [s for s in range(len(matrix.values)) if s != matrix.zero_word()])


def sham_block(matrix, code, data, out):
    """Section 5.5."""
    source = Bytes(data)
    row_of, columns = row_pattern(source, matrix, len(out))
    bits = Bits(source.rest())
    out[row_of, columns] = code_words(code, bits, len(columns))
    bits.finish()


def cser_block(matrix, _shared, data, out):
    """Section 5.6."""
    source, width = Bytes(data), index_dtype(matrix.cols)
    groups = source.array(len(out), width)
    total = int(groups.sum())
    symbols, counts = source.array(total, matrix.word()), source.array(total, width)
    columns = source.array(int(counts.sum()), width)
    row_of = np.repeat(np.repeat(np.arange(len(out)), groups), counts)
    out[row_of, columns] = np.repeat(symbols, counts)
    finish(source)


class Rans(NamedTuple):
    """Section 5.7: what all blocks share."""

    lanes: int
    live: list
    has_copies: bool
    gaps: list | None
    symbols: list
    low_bits: int


def rans_shared(matrix, source):
    """Section 5.7."""
    flags = source.byte()
    require(flags & 7 <= 5 and flags < 64, "flags of rANS")
    live = list(range(matrix.cols))
    if flags & 16:
        bits = Bits(source.take(-(-matrix.cols // 8)))
        live = [col for col in live if bits.take(1)]
        bits.finish()
    low_bits = max(0, (len(matrix.values) - 1).bit_length() - 8)
    bits = Bits(source.data[source.at :])
    gaps = None if flags & 8 else rans_model(bits, 224)
    symbols = rans_model(bits, (len(matrix.values) - 1 >> low_bits) + 1)
    source.take(bits.whole_bytes())
    return Rans(1 << (flags & 7), live, bool(flags & 32), gaps, symbols, low_bits)


def rans_model(bits, classes):
    """Section 5.7, models: for each slot (class, frequency, number of the slot among those of its class)."""
    precision, parameter = bits.take(4), bits.take(2)
    require(precision <= 12, "precision")
    slots, length = [], 0
    for value in range(classes):
        zigzag = bits.rice(parameter)
        length += zigzag >> 1 ^ -(zigzag & 1)
        require(0 <= length <= max(precision, 1), "a frequency of too many bits")
        frequency = 1 << length - 1 | bits.take(length - 1) if length else 0
        slots += [(value, frequency, offset) for offset in range(frequency)]
        if len(slots) >= 1 << precision:
            break
    require(len(slots) == 1 << precision, "frequencies that do not add up")
    return slots


def rans_block(matrix, shared, data, out):
    """Section 5.7."""
    numbers, source = list(range(len(out))), Bytes(data)
    if shared.has_copies:
        bits, known = Bits(data), 0
        for row in range(len(out) if bits.take(1) else 0):
            if bits.take(1):
                numbers[row] = bits.take((known - 1).bit_length())
                require(numbers[row] < known, "a copy of no row")
            else:
                numbers[row] = known
                known += 1
        source.take(bits.whole_bytes())
    grid = np.full((max(numbers) + 1, len(shared.live)), out[0, 0], np.int64)
    cells = grid.reshape(-1)
    count = source.varint() if shared.gaps else cells.size
    require(count <= cells.size, "more entries than cells")
    states = source.array(min(shared.lanes, count), np.dtype("<u4")).tolist()
    tail = Bits(data[source.at :][::-1])

    def next_class(lane, slots):
        state = states[lane]
        value, frequency, offset = slots[state % len(slots)]
        state = frequency * (state // len(slots)) + offset
        if state < 1 << 16:
            state = state << 16 | int.from_bytes(source.take(2), "little")
        states[lane] = state
        return value

    at = 0
    for first in range(0, count, shared.lanes):
        lanes = range(min(shared.lanes, count - first))
        gaps = [next_class(lane, shared.gaps) if shared.gaps else 0 for lane in lanes]
        symbols = [next_class(lane, shared.symbols) for lane in lanes]
        for gap, symbol in zip(gaps, symbols):
            if gap >= 128:
                extra = (gap - 128) // 4 + 5
                gap = (4 | gap & 3) << extra | tail.take(extra)
            require(at + gap < cells.size, "an entry outside the grid")
            cells[at + gap] = symbol << shared.low_bits | tail.take(shared.low_bits)
            at += gap + 1
    require(all(state == 1 << 16 for state in states), "the states that the encoder began with")
    require(source.at + tail.whole_bytes() == len(data), "bytes of the block")
    require(cells.max(initial=0) < len(matrix.values), "a symbol outside the codebook")
    out[:, shared.live] = grid[numbers]


def mix_shared(matrix, source):
    """Section 5.8."""
    period = source.varint()
    require(period == 0 or matrix.cols % period == 0, "a period that does not divide the columns")
    return period


def mix_block(matrix, period, data, out):
    """Section 5.8; docs/mix.md."""
    source = Bytes(data)
    start = source.varint()
    require(start >> 1 == len(data) - source.at, "a block of another length")
    code = source.rest()
    if start & 1:
        return index_map_block(matrix, None, code, out)
    least = -(-out.size // 2048)
    require(len(code) >= least and (len(code) == least or code[-1]), "a code of another length")
    zero = matrix.zero_word()
    sign = FLOAT_BITS[matrix.float_type].itemsize * 8 - 1
    below = int((matrix.values >> sign).sum()) if zero is None else zero
    above = len(matrix.values) - below - (zero is not None)
    lines = out if period else out.T
    levels = reference_mix.Block(code, *lines.shape, period or 1, zero is not None, below, above).decode()
    lines[:] = below + levels - ((levels > 0) & (zero is None))


def delta_shared(matrix, source):
    """Section 5.9: of the changes, whose zero word is 0 and whose words are one more."""
    require(len(matrix.values) < 1 << 16, "more values than changes can name")
    changes = replace(matrix, values=np.arange(len(matrix.values) + 1))
    shared = rans_shared(changes, source)
    require(not shared.has_copies, "copies among changes")
    return changes, shared


def delta_block(matrix, shared, data, out):
    """Section 5.9."""
    source, rows = Bytes(data), len(out)
    require(rows < 1 << 16 and out.size <= 1 << 23, "a block that is too large")
    code = dictionary(source, list(range(rows + 1)))
    parents = [0] * rows
    if code:
        require(len(code) > 1, "parents of one word")
        bits = Bits(source.data[source.at :])
        parents = code_words(code, bits, rows).tolist()
        source.take(bits.whole_bytes())
    children = [[] for _ in range(rows + 1)]
    for row in reversed(range(rows)):
        children[parents[row]].append(row)
    order, pending = [], [(row, 0) for row in children[0]]
    while pending:
        row, above = pending.pop()
        require(above <= 64, "too many rows above a row")
        order.append(row)
        pending += [(child, above + 1) for child in children[row + 1]]
    require(len(order) == rows, "parents in a circle")
    changes = np.zeros((rows, matrix.cols), np.int64)
    rans_block(*shared, source.rest(), changes)
    base = np.full(matrix.cols, matrix.zero_word() or 0)
    for row, changed in zip(order, changes):
        before = out[parents[row] - 1] if parents[row] else base
        out[row] = np.where(changed > 0, changed - 1, before)


def pco_shared(_matrix, source):
    """Section 5.10."""
    pco_header(source)


def pco_block(matrix, _shared, data, out):
    """Section 5.10."""
    out[:] = binned_numbers(data, out.size, matrix.word()).astype(out.dtype).reshape(out.shape)


def pco_header(source):
    """Section 7: the header; returns what follows it."""
    require(source.take(2) == PCO_VERSION, "another version of pco")
    return source.data[source.at :]


def binned_numbers(data, count, dtype):
    """Section 7."""
    file, _ = pco.FileDecompressor.new(PCO_VERSION)
    numbers, at = np.zeros(count, dtype), 0
    for start in range(0, count, CHUNK_NUMBERS):
        page = numbers[start : start + CHUNK_NUMBERS]
        mode = data[at] & 15
        delta = data[at + (dtype.itemsize if mode else 0)] >> 4
        require(mode < 2 and delta < 2, f"mode {mode}, delta encoding {delta}")
        chunk, read = file.chunk_decompressor(data[at:], f"u{8 * dtype.itemsize}")
        at += read
        _, read = chunk.read_page_into(data[at:], len(page), page)
        at += read
    require(len(data) == max(at, -(-count // NUMBERS_PER_BYTE)) and not any(data[at:]), "bytes follow the last chunk")
    return numbers


def dictionary(source, symbols):
    """Section 6: (length, word) -> symbol, for an alphabet that stands for `symbols`."""
    used = source.varint()
    require(used <= len(symbols), "more code words than symbols")
    bits = Bits(source.data[source.at :])
    named = list(range(used))
    if 0 < used < len(symbols):
        parameter, next_symbol = bits.take(4), 0
        for i in range(used):
            named[i] = next_symbol + bits.rice(parameter)
            next_symbol = named[i] + 1
    lengths = [0] * used
    if used >= 2:
        parameter = bits.take(2)
        lengths[0] = bits.take(5) + 1
        for i in range(1, used):
            zigzag = bits.rice(parameter)
            lengths[i] = lengths[i - 1] + (zigzag >> 1 ^ -(zigzag & 1))
        require(sum(2**-length for length in lengths) == 1, "an incomplete code")
    source.take(bits.whole_bytes())

    words, word, before = {}, 0, 0
    for length, symbol in sorted(zip(lengths, named)):
        word = word + 1 << length - before if words else 0
        before = length
        words[length, word] = symbols[symbol]
    return words


def code_words(code, bits, count):
    out = np.zeros(count, np.int64)
    stream, at = bits.bits.tolist(), bits.at
    for i in range(count):
        length = word = 0
        while (length, word) not in code:
            require(at < len(stream) and length < 32, "the bit string ends inside a code word")
            length, word, at = length + 1, word << 1 | stream[at], at + 1
        out[i] = code[length, word]
    bits.at = at
    return out


CODECS = {
    0: (no_shared_part, dense_block),
    1: (no_shared_part, csr_block),
    2: (no_shared_part, csc_block),
    3: (no_shared_part, index_map_block),
    4: (ham_shared, ham_block),
    5: (sham_shared, sham_block),
    6: (no_shared_part, cser_block),
    7: (rans_shared, rans_block),
    8: (mix_shared, mix_block),
    9: (delta_shared, delta_block),
    10: (pco_shared, pco_block),
}


if __name__ == "__main__":
    listed = decode(open(sys.argv[1], "rb").read())
    print(json.dumps(listed.recipe), "graph of", len(listed.graph or b""), "bytes")
    for weight, (type_name, tensor) in listed.weights.items():
        print(weight, type_name, tensor.shape, "codec", listed.codecs[weight])

"""Small ONNX models of every kind that predictions serve, with random but seeded weights, and inputs for each.

    python make_models.py DIRECTORY

writes NAME.onnx and NAME.npz (one batch of inputs). They are made, not downloaded, so that the tests need nothing but
NumPy and onnx, and so that odd attributes (dilations, auto_pad, transposed sides) are all met.
"""

import pathlib
import sys

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save, shape_inference

FLOAT, HALF, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64


class Graph:
    """Collects nodes and constants; every tensor of a model comes from one seeded generator."""

    def __init__(self, seed, dtype=np.float32):
        self.random = np.random.default_rng(seed)
        self.dtype = dtype
        self.nodes, self.initializers = [], []

    def weight(self, *dims):
        """A weight scaled by its fan-in, as a trained one would be; returns its name."""
        fan_in = max(int(np.prod(dims[1:])), 1)
        return self.constant(self.random.standard_normal(dims) / np.sqrt(fan_in))

    def bias(self, *dims):
        return self.constant(self.random.standard_normal(dims) / 4)

    def constant(self, values, dtype=None):
        name = f"t{len(self.initializers)}"
        array = np.asarray(values).astype(dtype or self.dtype)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op, *inputs, outputs=1, **attributes):
        """Appends a node; returns its output's name, or the names of all."""
        names = [f"{op.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def model(self, inputs, output, opset=17, ir_version=8, listed=False):
        """`inputs`: name -> (type, dims). `listed`: initializers are graph inputs too, as in ONNX before 2019."""
        kind = HALF if self.dtype == np.float16 else FLOAT
        self.nodes.append(helper.make_node("Identity", [output], ["y"]))
        ports = [helper.make_tensor_value_info(name, *port) for name, port in inputs.items()]
        if listed:
            ports += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in self.initializers]
        result = helper.make_tensor_value_info("y", kind, None)
        graph = helper.make_graph(self.nodes, "g", ports, [result], self.initializers)
        opsets = [helper.make_opsetid("", opset)]
        # Inference fills in the shape of the output.
        return shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version))


def mlp(dtype=np.float32, **options):
    """Gemm with and without transB, with alpha, beta and biases of several shapes; a MatMul."""
    g = Graph(1, dtype)
    h = g.node("Relu", g.node("Gemm", "x", g.weight(48, 24), g.bias(48), transB=1))
    h = g.node("Tanh", g.node("Gemm", h, g.weight(48, 32), g.bias(1, 32), alpha=0.5, beta=2.0))
    h = g.node("Relu", g.node("Gemm", h, g.weight(32, 32), g.bias(1)))
    h = g.node("Add", g.node("MatMul", h, g.weight(32, 10)), g.bias(10))
    kind = HALF if dtype == np.float16 else FLOAT
    return g.model({"x": (kind, ["N", 24])}, h, **options), {"x": g.random.standard_normal((5, 24)).astype(dtype)}


def mlp_opset9():
    return mlp(opset=9, ir_version=3, listed=True)


def mlp_opset21():
    return mlp(opset=21, ir_version=10)


def half_mlp():
    return mlp(np.float16)


def cnn():
    """Explicit and automatic padding, strides, pooling, symbolic batch."""
    g = Graph(2)
    h = g.node("Relu", g.node("Conv", "x", g.weight(8, 3, 3, 3), g.bias(8), pads=[1, 1, 1, 1]))
    h = g.node("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2])
    h = g.node("Relu", g.node("Conv", h, g.weight(16, 8, 3, 3), g.bias(16), auto_pad="SAME_UPPER", strides=[2, 2]))
    h = g.node("Relu", g.node("Conv", h, g.weight(16, 16, 2, 3), pads=[0, 1, 1, 0], dilations=[1, 2]))
    h = g.node("Gemm", g.node("Flatten", g.node("GlobalAveragePool", h)), g.weight(10, 16), g.bias(10), transB=1)
    return g.model({"x": (FLOAT, ["N", 3, 20, 20])}, h), {"x": g.random.random((3, 3, 20, 20), np.float32)}


def grouped_cnn():
    """A grouped, a depthwise dilated and a pointwise convolution."""
    g = Graph(3)
    h = g.node("Relu", g.node("Conv", "x", g.weight(16, 2, 4, 4), g.bias(16), group=4, auto_pad="SAME_LOWER"))
    h = g.node("Conv", h, g.weight(16, 1, 3, 3), g.bias(16), group=16, dilations=[2, 2], pads=[2, 2, 2, 2])
    h = g.node("Conv", g.node("Relu", h), g.weight(12, 16, 1, 1), g.bias(12))
    h = g.node("Gemm", g.node("Flatten", h), g.weight(12 * 12 * 14, 6), g.bias(6))
    return g.model({"x": (FLOAT, ["N", 8, 12, 14])}, h), {"x": g.random.random((2, 8, 12, 14), np.float32)}


def conv1d():
    """Over sequences of any length."""
    g = Graph(4)
    h = g.node("Relu", g.node("Conv", "x", g.weight(12, 4, 7), g.bias(12), strides=[2], dilations=[2]))
    h = g.node("Relu", g.node("Conv", h, g.weight(12, 6, 4), g.bias(12), pads=[3, 0], group=2))
    h = g.node("Gemm", g.node("ReduceMax", h, axes=[2], keepdims=0), g.weight(5, 12), g.bias(5), transB=1)
    return g.model({"x": (FLOAT, ["N", 4, "L"])}, h), {"x": g.random.standard_normal((3, 4, 61)).astype(np.float32)}


def conv3d():
    g = Graph(5)
    h = g.node("Relu", g.node("Conv", "x", g.weight(6, 2, 3, 3, 2), g.bias(6), strides=[1, 2, 1], pads=[1] * 6))
    h = g.node("Conv", h, g.weight(4, 3, 2, 2, 2), g.bias(4), group=2)
    return g.model({"x": (FLOAT, ["N", 2, 7, 8, 6])}, h), {"x": g.random.random((2, 2, 7, 8, 6), np.float32)}


def conv_transpose():
    """With groups, output_padding, dilations and automatic padding."""
    g = Graph(6)
    h = g.node("ConvTranspose", "x", g.weight(8, 3, 3, 3), g.bias(6), group=2, strides=[2, 2], output_padding=[1, 1])
    h = g.node("ConvTranspose", g.node("Relu", h), g.weight(6, 4, 4, 4), strides=[2, 2], auto_pad="SAME_UPPER")
    h = g.node("ConvTranspose", h, g.weight(4, 2, 3, 2), g.bias(2), dilations=[2, 1], pads=[1, 0, 0, 1])
    return g.model({"x": (FLOAT, ["N", 8, 5, 6])}, h), {"x": g.random.random((2, 8, 5, 6), np.float32)}


def conv_transpose_output_shape():
    """The extents of the output decide the padding; batch fixed, since not every runtime takes a symbol here."""
    g = Graph(7)
    h = g.node("ConvTranspose", "x", g.weight(4, 3, 3, 3), g.bias(3), strides=[2, 2], output_shape=[8, 11])
    return g.model({"x": (FLOAT, [2, 4, 5, 6])}, h), {"x": g.random.random((2, 4, 5, 6), np.float32)}


def embedding_lstm():
    """Weights that Gather looks up and LSTM reads, then a Gemm."""
    g = Graph(8)
    h = g.node("Transpose", g.node("Gather", g.weight(50, 12), "tokens"), perm=[1, 0, 2])
    weights = g.weight(1, 4 * 16, 12), g.weight(1, 4 * 16, 16), g.bias(1, 8 * 16)
    _, last, _ = g.node("LSTM", h, *weights, outputs=3, hidden_size=16)
    h = g.node("Squeeze", last, g.constant([0], np.int64))
    h = g.node("Gemm", h, g.weight(16, 3), g.bias(3))
    return g.model({"tokens": (INT64, ["N", "S"])}, h), {"tokens": g.random.integers(0, 50, (4, 9))}


def transformer():
    """One block of self-attention and feed-forward; symbolic batch and sequence."""
    g = Graph(9)
    width, heads = 32, 4

    def dense(x, inputs, outputs):
        return g.node("Add", g.node("MatMul", x, g.weight(inputs, outputs)), g.bias(outputs))

    def norm(x):
        return g.node("LayerNormalization", x, g.constant(1 + g.random.random(width)), g.bias(width), axis=-1)

    split = g.constant([0, 0, heads, width // heads], np.int64)

    def head(x, perm):
        return g.node("Transpose", g.node("Reshape", dense(x, width, width), split), perm=perm)

    x = g.node("Gather", g.weight(40, width), "tokens")
    n = norm(x)
    query, key, value = head(n, [0, 2, 1, 3]), head(n, [0, 2, 3, 1]), head(n, [0, 2, 1, 3])
    scores = g.node("Div", g.node("MatMul", query, key), g.constant(np.sqrt(width / heads)))
    mixed = g.node("MatMul", g.node("Softmax", scores, axis=-1), value)
    joined = g.node("Reshape", g.node("Transpose", mixed, perm=[0, 2, 1, 3]), g.constant([0, 0, width], np.int64))
    x = g.node("Add", x, dense(joined, width, width))
    h = dense(norm(x), width, 64)
    gelu = g.node("Add", g.node("Erf", g.node("Div", h, g.constant(np.sqrt(2)))), g.constant(1))
    h = g.node("Mul", g.node("Mul", h, gelu), g.constant(0.5))
    x = g.node("Add", x, dense(h, 64, width))
    return g.model({"tokens": (INT64, ["N", "S"])}, x), {"tokens": g.random.integers(0, 40, (2, 11))}


def lookups():
    """Gather of matrices and of a rank-3 weight, by 32- and 64-bit indices, some from the end; on another axis; and a
    weight that is looked up and multiplied by both ways."""
    g = Graph(11)
    tied = g.weight(30, 8)
    h = g.node("Gather", tied, "tokens")
    pairs = g.node("Gather", g.weight(12, 2, 4), "places")
    h = g.node("Add", h, g.node("Reshape", pairs, g.constant([0, 0, 8], np.int64)))
    columns = g.node("Transpose", g.node("Gather", g.weight(8, 16), "places", axis=1), perm=[1, 2, 0])
    h = g.node("Add", h, columns)
    scores = g.node("MatMul", h, g.node("Transpose", tied, perm=[1, 0]))
    h = g.node("Add", h, g.node("MatMul", g.node("Softmax", scores, axis=-1), tied))
    h = g.node("MatMul", h, g.node("Transpose", tied, perm=[1, 0]))
    inputs = {"tokens": (INT64, ["N", "S"]), "places": (TensorProto.INT32, ["N", "S"])}
    tokens, places = g.random.integers(-30, 30, (3, 7)), g.random.integers(-12, 12, (3, 7)).astype(np.int32)
    return g.model(inputs, h), {"tokens": tokens, "places": places}


def half_lookup():
    """An embedding of halves."""
    g = Graph(12, np.float16)
    h = g.node("Gemm", g.node("Gather", g.weight(30, 16), "tokens"), g.weight(16, 4), g.bias(4))
    return g.model({"tokens": (INT64, ["N"])}, h), {"tokens": g.random.integers(-30, 30, 9)}


def odd_weights():
    """In a Constant node, behind Transpose and Cast, on the left of a MatMul, and shared by two nodes both ways."""
    g = Graph(10)
    shared = g.weight(20, 12)
    h = g.node("Relu", g.node("Gemm", "x", shared, transB=1))
    h = g.node("Relu", g.node("MatMul", h, shared))
    values = numpy_helper.from_array((g.random.standard_normal((16, 12)) / 4).astype(np.float16))
    wide = g.node("Cast", g.node("Constant", value=values), to=FLOAT)
    h = g.node("MatMul", h, g.node("Transpose", wide, perm=[1, 0]))
    h = g.node("MatMul", g.weight(7, 16), g.node("Transpose", h, perm=[1, 0]))
    return g.model({"x": (FLOAT, ["batch-size", 12])}, h), {"x": g.random.standard_normal((6, 12)).astype(np.float32)}


MODELS = {
    build.__name__: build
    for build in (
        mlp, mlp_opset9, mlp_opset21, half_mlp, cnn, grouped_cnn, conv1d, conv3d, conv_transpose,
        conv_transpose_output_shape, embedding_lstm, transformer, lookups, half_lookup, odd_weights,
    )
}  # fmt: skip


def make(name, directory):
    """Writes one model and its inputs; returns both paths."""
    model, inputs = MODELS[name]()
    checker.check_model(model)
    paths = pathlib.Path(directory) / f"{name}.onnx", pathlib.Path(directory) / f"{name}.npz"
    save(model, paths[0])
    np.savez(paths[1], **inputs)
    return paths


if __name__ == "__main__":
    for model_name in MODELS:
        print(*make(model_name, sys.argv[1]))

//! How each ONNX operator reads a constant: as a weight to multiply by or to look up rows of, as a weight of another kind,
//! or as a parameter that stays as it is.
//!
//! # Source
//! The operator schemas of ONNX, opsets 9 to 21.

use tract_onnx::pb::NodeProto;

use super::Family;
use crate::tensor::Layout;

/// How one operator input reads a float tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reading {
    /// As a factor of a product that runs on compressed weights.
    Product { layout: Layout, family: Family },
    /// As a table of which it takes entries along the first axis.
    Lookup,
    /// As a weight in any other way; the reason says which.
    Weight { reason: String, family: Family },
    /// As a bias, a normalisation or an element-wise constant.
    Parameter { reason: String },
}

/// What an input slot sees: the dims behind any Transpose, and whether they were swapped on the way.
pub(super) struct Operand<'a> {
    pub slot: usize,
    /// Dims of the stored tensor.
    pub dims: &'a [usize],
    /// A Transpose stands between the stored tensor, of rank 2, and this input.
    pub swapped: bool,
    /// The operator's other factor, or the indices of a Gather, are constant too, so there is nothing left to run.
    pub both_constant: bool,
}

/// How input `operand` of `node` reads the tensor behind it.
pub(super) fn reading(node: &NodeProto, operand: &Operand) -> Reading {
    if let Some(reason) = parameter(node, operand.slot) {
        return Reading::Parameter { reason };
    }
    let family = match node.op_type.as_str() {
        "Conv" | "ConvTranspose" | "FusedConv" => Family::Convolution,
        _ => Family::Dense,
    };
    let compressed = match node.op_type.as_str() {
        op if !is_standard(node) => Err(op.to_owned()),
        "Gather" => lookup(node, operand).map(|()| Reading::Lookup),
        _ => product(node, operand).map(|layout| Reading::Product { layout, family }),
    };
    match compressed {
        Ok(reading) => reading,
        // A vector is a parameter to every operator but a product.
        Err(_) if operand.dims.len() < 2 && node.op_type != "MatMul" => {
            Reading::Parameter { reason: format!("rank {}, read by {}", operand.dims.len(), node.op_type) }
        }
        Err(reason) => Reading::Weight { reason, family },
    }
}

/// True for an operator of ONNX itself.
pub(crate) fn is_standard(node: &NodeProto) -> bool {
    matches!(node.domain.as_str(), "" | "ai.onnx")
}

/// The layout under which `operand` is one factor of a product, or why it is none.
fn product(node: &NodeProto, operand: &Operand) -> Result<Layout, String> {
    let op = node.op_type.as_str();
    let rank = operand.dims.len();
    let factor = match op {
        "Conv" | "ConvTranspose" => operand.slot == 1,
        "Gemm" | "MatMul" => operand.slot < 2,
        _ => return Err(op.to_owned()),
    };
    if !factor || operand.both_constant {
        return Err(format!("{op} of constants"));
    }
    let fitting_rank = match op {
        "Conv" | "ConvTranspose" => (3..=5).contains(&rank) && !operand.swapped,
        _ => rank == 2,
    };
    let layout = match (op, operand.slot) {
        _ if !fitting_rank => None,
        ("Conv", _) => group(node).filter(|&groups| operand.dims[0].is_multiple_of(groups)).map(|_| Layout::RowsFirst),
        ("ConvTranspose", _) => group(node).map(|groups| Layout::ConvTranspose { groups }),
        // The output units of a left factor are its rows, those of a right one its columns.
        (_, slot) => {
            let attribute = if slot == 0 { "transA" } else { "transB" };
            let flipped = op == "Gemm" && int(node, attribute).unwrap_or(0) != 0;
            let rows_first = (slot == 0) ^ flipped ^ operand.swapped;
            Some(if rows_first { Layout::RowsFirst } else { Layout::Transposed })
        }
    };
    let layout = layout.filter(|layout| layout.shape(operand.dims).is_some());
    layout.ok_or_else(|| format!("{op} of rank {rank}"))
}

/// Whether a Gather takes rows of the stored matrix, one for each entry of the first axis; fails with why it does not.
fn lookup(node: &NodeProto, operand: &Operand) -> Result<(), String> {
    let axis = int(node, "axis").unwrap_or(0);
    if operand.dims.len() < 2 {
        return Err(format!("Gather of rank {}", operand.dims.len()));
    }
    if operand.both_constant {
        return Err("Gather by constant indices".into());
    }
    if operand.swapped {
        return Err("Gather of a transposed matrix".into());
    }
    let is_first = axis == 0 || axis.checked_add_unsigned(operand.dims.len() as u64) == Some(0);
    if !is_first || operand.slot != 0 {
        return Err(format!("Gather on axis {axis}"));
    }
    Ok(())
}

/// Number of groups of a convolution; `None` if it is no positive number.
pub(super) fn group(node: &NodeProto) -> Option<usize> {
    usize::try_from(int(node, "group").unwrap_or(1)).ok().filter(|&groups| groups > 0)
}

/// An integer attribute.
pub(super) fn int(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|a| a.name == name).map(|a| a.i)
}

/// Why input `slot` of `node` is a parameter, if it is one.
fn parameter(node: &NodeProto, slot: usize) -> Option<String> {
    let op = node.op_type.as_str();
    let kind = match (op, slot) {
        ("Conv" | "ConvTranspose" | "Gemm" | "FusedConv" | "FusedGemm", 2) | ("LSTM" | "GRU" | "RNN", 3) => "the bias",
        ("LSTM" | "GRU" | "RNN", 5 | 6) => "the initial state",
        ("LSTM", 7) => "the peephole weights",
        (
            "BatchNormalization"
            | "InstanceNormalization"
            | "LayerNormalization"
            | "GroupNormalization"
            | "RMSNormalization"
            | "SimplifiedLayerNormalization"
            | "SkipLayerNormalization"
            | "SkipSimplifiedLayerNormalization",
            1..,
        ) => "a parameter of the normalisation",
        ("QuantizeLinear" | "DequantizeLinear" | "QLinearConv" | "QLinearMatMul", 1..) => "a scale or a zero point",
        (
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "Min" | "Max" | "Mean" | "Sum" | "PRelu" | "Where" | "Clip"
            | "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "Neg" | "Abs" | "Exp" | "Log" | "Sqrt"
            | "Reciprocal" | "Sigmoid" | "Tanh" | "Softplus" | "Relu" | "BiasGelu" | "FastGelu",
            _,
        ) => "a bias or an element-wise constant",
        ("Resize" | "Upsample" | "Pad" | "OneHot" | "Range" | "RoiAlign", 1..) => "an argument",
        _ => return None,
    };
    Some(format!("read by {op} as {kind}"))
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::AttributeProto;

    use super::*;

    fn node(op: &str, attributes: &[(&str, i64)]) -> NodeProto {
        let attribute = |&(name, i): &(&str, i64)| AttributeProto { name: name.into(), i, ..Default::default() };
        let attribute = attributes.iter().map(attribute).collect();
        NodeProto { op_type: op.into(), attribute, ..NodeProto::default() }
    }

    fn read(node: &NodeProto, slot: usize, dims: &[usize], swapped: bool) -> Reading {
        reading(node, &Operand { slot, dims, swapped, both_constant: false })
    }

    #[test]
    fn products_know_which_axis_is_the_output() {
        use Layout::{RowsFirst, Transposed};
        let cases = [
            (node("MatMul", &[]), 1, false, Transposed),
            (node("MatMul", &[]), 1, true, RowsFirst),
            (node("MatMul", &[]), 0, false, RowsFirst),
            (node("Gemm", &[]), 1, false, Transposed),
            (node("Gemm", &[("transB", 1)]), 1, false, RowsFirst),
            (node("Gemm", &[("transB", 1)]), 1, true, Transposed),
            (node("Gemm", &[("transA", 1)]), 0, false, Transposed),
            (node("Gemm", &[("transB", 1)]), 0, false, RowsFirst),
        ];
        for (node, slot, swapped, layout) in cases {
            let expected = Reading::Product { layout, family: Family::Dense };
            assert_eq!(read(&node, slot, &[4, 6], swapped), expected, "{node:?} {slot} {swapped}");
        }
    }

    #[test]
    fn convolutions_of_one_to_three_dimensions_are_products() {
        let family = Family::Convolution;
        for dims in [&[4, 2, 3][..], &[4, 2, 3, 3], &[4, 2, 3, 3, 3]] {
            let conv = read(&node("Conv", &[("group", 2)]), 1, dims, false);
            assert_eq!(conv, Reading::Product { layout: Layout::RowsFirst, family });
            let transposed = read(&node("ConvTranspose", &[("group", 2)]), 1, dims, false);
            assert_eq!(transposed, Reading::Product { layout: Layout::ConvTranspose { groups: 2 }, family });
        }
        for (op, groups) in [("Conv", 3), ("Conv", 0), ("Conv", -1), ("ConvTranspose", 3)] {
            let reading = read(&node(op, &[("group", groups)]), 1, &[4, 2, 3], false);
            assert!(matches!(reading, Reading::Weight { .. }), "{op} {groups}");
        }
    }

    #[test]
    fn a_gather_along_the_first_axis_looks_up_rows_and_any_other_is_named() {
        for (axis, dims) in [(0, &[4, 6][..]), (-2, &[4, 6]), (0, &[4, 6, 3]), (-3, &[4, 6, 3])] {
            assert_eq!(read(&node("Gather", &[("axis", axis)]), 0, dims, false), Reading::Lookup, "{axis}");
        }
        let gather = node("Gather", &[]);
        assert_eq!(read(&gather, 0, &[4, 6], false), Reading::Lookup);
        let by_constant = Operand { slot: 0, dims: &[4, 6], swapped: false, both_constant: true };
        for (reading, reason) in [
            (read(&node("Gather", &[("axis", 1)]), 0, &[4, 6], false), "Gather on axis 1"),
            (read(&node("Gather", &[("axis", -1)]), 0, &[4, 6], false), "Gather on axis -1"),
            (read(&gather, 0, &[4, 6], true), "Gather of a transposed matrix"),
            (reading(&gather, &by_constant), "Gather by constant indices"),
        ] {
            assert_eq!(reading, Reading::Weight { reason: reason.into(), family: Family::Dense });
        }
        assert!(matches!(read(&gather, 0, &[4], false), Reading::Parameter { .. }));
    }

    #[test]
    fn other_readers_of_matrices_are_weights_and_of_vectors_parameters() {
        for (op, slot) in [("GatherElements", 0), ("LSTM", 1), ("GRU", 2), ("Einsum", 1), ("Attention", 1)] {
            let expected = Reading::Weight { reason: op.into(), family: Family::Dense };
            assert_eq!(read(&node(op, &[]), slot, &[4, 6], false), expected);
            assert!(matches!(read(&node(op, &[]), slot, &[4], false), Reading::Parameter { .. }));
        }
        let batched = read(&node("MatMul", &[]), 1, &[2, 4, 6], false);
        assert_eq!(batched, Reading::Weight { reason: "MatMul of rank 3".into(), family: Family::Dense });
        assert!(matches!(read(&node("Conv", &[]), 2, &[4], false), Reading::Parameter { .. }));
        assert!(matches!(read(&node("Add", &[]), 1, &[1, 5, 8], false), Reading::Parameter { .. }));
    }
}

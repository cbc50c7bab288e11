//! Conv and ConvTranspose.

use prost::Message;

use super::graph::{int, ints, node, text};
use super::*;
use crate::infer::{Predictor, unsupported_operators};
use crate::model::Model;

/// Attributes of a convolution; extents are repeated for every axis.
#[derive(Debug, Clone, Copy)]
struct Case {
    axes: usize,
    groups: usize,
    /// Channels of one group: in and out.
    channels: (usize, usize),
    kernel: usize,
    stride: usize,
    dilation: usize,
    /// Before and after.
    pads: (usize, usize),
    auto_pad: Option<&'static str>,
    bias: bool,
}

const PLAIN: Case = Case {
    axes: 2,
    groups: 1,
    channels: (3, 4),
    kernel: 3,
    stride: 1,
    dilation: 1,
    pads: (0, 0),
    auto_pad: None,
    bias: true,
};

impl Case {
    /// The input's extents: one differs from the others.
    fn input(&self, samples: usize) -> Vec<usize> {
        let mut shape = vec![samples, self.groups * self.channels.0];
        shape.extend((0..self.axes).map(|axis| 8 + axis));
        shape
    }

    fn model(&self, op: &str, more: Vec<pb::AttributeProto>) -> pb::ModelProto {
        let mut dims: Vec<_> = self.input(1).into_iter().map(|d| Some(d as i64)).collect();
        dims[0] = None;
        let (input, output) = self.channels;
        let repeat = |value: usize| vec![value; self.axes];
        one_node(&dims, |graph| {
            let ends = if op == "Conv" { [self.groups * output, input] } else { [self.groups * input, output] };
            let weight = graph.weight(&[&ends[..], &repeat(self.kernel)].concat());
            let bias = self.bias.then(|| graph.bias(&[self.groups * output]));
            let mut inputs = vec!["x", weight.as_str()];
            inputs.extend(bias.as_deref());
            let list = |name: &str, value: usize| ints(name, &vec![value as i64; self.axes]);
            let mut attributes = vec![
                int("group", self.groups as i64),
                list("kernel_shape", self.kernel),
                list("strides", self.stride),
                list("dilations", self.dilation),
            ];
            match self.auto_pad {
                Some(auto_pad) => attributes.push(text("auto_pad", auto_pad)),
                None => {
                    let pads = [repeat(self.pads.0), repeat(self.pads.1)].concat();
                    attributes.push(ints("pads", &pads.iter().map(|&p| p as i64).collect::<Vec<_>>()));
                }
            }
            attributes.extend(more);
            node(op, &inputs, attributes)
        })
    }

    fn check(&self, op: &str, case: usize) {
        let model = self.model(op, vec![]);
        assert_agree(&format!("{op} {self:?}"), &model, codec_for(case), &[&self.input(1 + case % 3)]);
    }
}

/// Groups with their channels in and out: one, several, depthwise, depthwise with a multiplier.
const GROUPS: [(usize, (usize, usize)); 4] = [(1, (3, 5)), (2, (2, 3)), (4, (1, 1)), (3, (1, 2))];

#[test]
fn convolutions_agree_on_every_number_of_axes_groups_strides_and_dilations() {
    let mut case = 0;
    for axes in 1..=3 {
        for (groups, channels) in GROUPS {
            for (stride, dilation) in [(1, 1), (2, 1), (1, 2), (3, 2)] {
                let bias = case % 2 == 0;
                Case { axes, groups, channels, stride, dilation, bias, pads: (1, 2), ..PLAIN }.check("Conv", case);
                case += 1;
            }
        }
    }
}

#[test]
fn convolutions_agree_on_every_padding() {
    let mut case = 0;
    for (stride, kernel) in [(1, 3), (2, 3), (2, 4), (3, 2), (1, 1), (2, 1)] {
        for pads in [(0, 0), (1, 1), (0, 2), (3, 0)] {
            Case { stride, kernel, pads, ..PLAIN }.check("Conv", case);
            case += 1;
        }
        for auto_pad in ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"] {
            Case { stride, kernel, auto_pad: Some(auto_pad), ..PLAIN }.check("Conv", case);
            case += 1;
        }
    }
}

#[test]
fn a_pointwise_convolution_of_any_extents_agrees() {
    let model = Case { kernel: 1, groups: 2, ..PLAIN }.model("Conv", vec![]);
    let mut large = model.clone();
    let input = large.graph.as_mut().unwrap();
    input.input.clear();
    let mut graph = GraphBuilder::new();
    graph.input("x", &[None, Some(6), None, None]);
    input.input = graph.build().graph.unwrap().input;
    assert_agree("pointwise", &large, CodecId::Sham, &[&[2, 6, 20, 17]]);
}

#[test]
fn transposed_convolutions_agree_on_axes_groups_strides_and_dilations() {
    let mut case = 0;
    for axes in 1..=3 {
        for (groups, channels) in GROUPS {
            for (stride, dilation, pads) in [(1, 1, (0, 0)), (2, 1, (1, 0)), (1, 2, (1, 2)), (3, 2, (0, 1))] {
                let bias = case % 2 == 0;
                Case { axes, groups, channels, stride, dilation, pads, bias, ..PLAIN }.check("ConvTranspose", case);
                case += 1;
            }
        }
    }
}

#[test]
fn transposed_convolutions_agree_on_padding_modes_and_output_padding() {
    for (case, auto_pad) in ["SAME_UPPER", "SAME_LOWER", "VALID"].into_iter().enumerate() {
        for (stride, kernel) in [(1, 3), (2, 3), (2, 4)] {
            Case { stride, kernel, auto_pad: Some(auto_pad), ..PLAIN }.check("ConvTranspose", case);
        }
    }
    let case = Case { stride: 2, pads: (1, 1), ..PLAIN };
    let model = case.model("ConvTranspose", vec![ints("output_padding", &[1, 1])]);
    assert_agree("output_padding", &model, CodecId::Ham, &[&case.input(2)]);
}

#[test]
fn output_shape_decides_the_padding_of_a_transposed_convolution() {
    // 8 x 9 inputs, stride 2, kernel 3: 17 x 19 outputs before cropping. To leave 14 x 16, 3 are cropped of each axis,
    // and ONNX crops the odd one at the beginning.
    let case = Case { stride: 2, ..PLAIN };
    let given = case.model("ConvTranspose", vec![ints("output_shape", &[14, 16])]);
    let explicit = Case { pads: (2, 1), ..case }.model("ConvTranspose", vec![]);
    let inputs = random_inputs(&[&case.input(2)]);
    let found = coded(&given, CodecId::Sham).run(inputs.clone()).unwrap();
    assert_close("output_shape", &found, &dense(&explicit).run(inputs).unwrap());
}

#[test]
fn an_output_shape_without_a_product_is_refused() {
    let case = Case { stride: 2, ..PLAIN };
    let mut model = case.model("ConvTranspose", vec![ints("output_shape", &[14, 16])]);
    let opened = |model: &pb::ModelProto| Model::from_bytes(model.encode_to_vec().into()).unwrap();
    assert_eq!(unsupported_operators(&opened(&model)), Vec::<String>::new());
    assert!(Predictor::from_model(&opened(&model)).is_ok());

    // The weight as an input, known only when the graph runs.
    let graph = model.graph.as_mut().unwrap();
    let weight = graph.initializer.iter().position(|tensor| tensor.name.starts_with('w')).unwrap();
    let weight = graph.initializer.remove(weight);
    let mut inputs = GraphBuilder::new();
    inputs.input(&weight.name, &weight.dims.iter().map(|&d| Some(d)).collect::<Vec<_>>());
    graph.input.extend(inputs.build().graph.unwrap().input);
    let model = opened(&model);
    assert_eq!(unsupported_operators(&model), ["ConvTranspose with output_shape"]);
    assert!(matches!(Predictor::from_model(&model), Err(InferError::UnsupportedOperators { .. })));
}

#[test]
fn blocks_of_columns_may_straddle_samples() {
    // 3 x 60 x 60 columns are 42 blocks of 256 and a last one of 48; samples end inside blocks.
    let case = Case { channels: (16, 8), pads: (1, 1), ..PLAIN };
    let mut model = case.model("Conv", vec![]);
    let mut graph = GraphBuilder::new();
    graph.input("x", &[None, Some(16), None, None]);
    model.graph.as_mut().unwrap().input = graph.build().graph.unwrap().input;
    assert_agree("blocks", &model, CodecId::IndexMap, &[&[3, 16, 60, 60]]);
}

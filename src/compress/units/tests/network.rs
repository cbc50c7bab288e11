//! Random networks of convolutions with branches, some of whose units are unread, constant or copies once they are compressed.

use tract_onnx::pb::{AttributeProto, ModelProto, NodeProto, TensorProto};

use crate::model::fixture::{self, node, port, with_int};

/// Numbers from -1 to 1.
pub(super) struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn take(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }

    pub fn order(&mut self, units: usize) -> Vec<u32> {
        let mut order: Vec<(f32, u32)> = (0..units as u32).map(|unit| (self.next(), unit)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        order.into_iter().map(|(_, unit)| unit).collect()
    }
}

/// An image in the middle of a network.
#[derive(Clone)]
struct Image {
    name: String,
    channels: usize,
    side: usize,
}

/// A network that grows a node at a time.
struct Network {
    nodes: Vec<NodeProto>,
    tensors: Vec<TensorProto>,
    numbers: Numbers,
    images: Vec<Image>,
}

impl Network {
    fn name(&self) -> String {
        format!("v{}", self.nodes.len())
    }

    fn tensor(&mut self, dims: &[usize]) -> String {
        let name = format!("t{}", self.tensors.len());
        let values = self.numbers.take(dims.iter().product());
        let dims: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
        self.tensors.push(fixture::floats(&name, &dims, &values));
        name
    }

    /// Makes some rows of the last weight and the bias behind it zero, and some copies of others.
    fn repeat_rows(&mut self) {
        let at = self.tensors.len() - 2;
        let rows = self.tensors[at].dims[0] as usize;
        for row in 1..rows {
            let from = match self.numbers.next() {
                ..-0.5 => Some(row - 1),
                -0.5..0.0 => None,
                _ => continue,
            };
            for (tensor, keeps_zeros) in self.tensors[at..].iter_mut().zip([true, false]) {
                let run = tensor.raw_data.len() / rows;
                match from {
                    Some(from) => tensor.raw_data.copy_within(from * run..(from + 1) * run, row * run),
                    None if keeps_zeros => tensor.raw_data[row * run..(row + 1) * run].fill(0),
                    None => {}
                }
            }
        }
    }

    fn node(&mut self, node: NodeProto, channels: usize, side: usize) -> Image {
        let image = Image { name: self.name(), channels, side };
        self.nodes.push(NodeProto { output: vec![image.name.clone()], ..node });
        image
    }

    fn convolution(&mut self, x: &Image, outputs: usize, kernel: usize, groups: usize) -> Image {
        let weight = self.tensor(&[outputs, x.channels / groups, kernel, kernel]);
        let bias = self.tensor(&[outputs]);
        self.repeat_rows();
        let conv = with_int(node("Conv", &format!("{} {weight} {bias}", x.name), ""), "group", groups as i64);
        self.node(with_ints(conv, "pads", &[kernel as i64 / 2; 4]), outputs, x.side)
    }

    fn same(&mut self, op: &str, x: &Image) -> Image {
        self.node(node(op, &x.name, ""), x.channels, x.side)
    }

    /// One more image, made from earlier ones as `step` says.
    fn grow(&mut self, step: (u8, u8)) {
        let x = self.images[usize::from(step.1) % self.images.len()].clone();
        let channels = 2 + usize::from(step.1 / 7) % 6;
        let image = match step.0 % 11 {
            0 => self.convolution(&x, channels, 1, 1),
            1 => self.convolution(&x, channels, 3, 1),
            2 => self.convolution(&x, x.channels * (1 + channels % 2), 3, x.channels),
            3 => {
                let groups = if x.channels.is_multiple_of(2) { 2 } else { 1 };
                self.convolution(&x, 2 * channels, 1, groups)
            }
            4 => {
                let branch = self.convolution(&x, x.channels, 3, 1);
                let branch = self.same("Relu", &branch);
                self.node(node("Add", &format!("{} {}", x.name, branch.name), ""), x.channels, x.side)
            }
            5 => {
                let sides = [self.convolution(&x, channels, 1, 1), self.convolution(&x, 3, 3, 1), x.clone()];
                let names = sides.each_ref().map(|image| image.name.as_str()).join(" ");
                let total = sides.iter().map(|image| image.channels).sum();
                self.node(with_int(node("Concat", &names, ""), "axis", 1), total, x.side)
            }
            6 => {
                let parameters = [0; 3].map(|_| self.tensor(&[x.channels]));
                let variance = format!("t{}", self.tensors.len());
                let values = self.numbers.take(x.channels).iter().map(|v| 1.5 + v).collect::<Vec<_>>();
                self.tensors.push(fixture::floats(&variance, &[x.channels as i64], &values));
                let names = format!("{} {} {variance}", x.name, parameters.join(" "));
                self.node(node("BatchNormalization", &names, ""), x.channels, x.side)
            }
            7 if x.side > 1 => {
                let pool =
                    with_ints(with_ints(node("MaxPool", &x.name, ""), "kernel_shape", &[2, 2]), "strides", &[2, 2]);
                self.node(pool, x.channels, x.side / 2)
            }
            // Squeeze and excitation: channels weighed by what all of them say.
            8 => {
                let pooled = self.same("GlobalAveragePool", &x);
                let scale = self.convolution(&pooled, x.channels, 1, 1);
                let scale = self.same("Sigmoid", &scale);
                self.node(node("Mul", &format!("{} {}", x.name, scale.name), ""), x.channels, x.side)
            }
            9 => {
                let slope = self.tensor(&[x.channels, 1, 1]);
                self.node(node("PRelu", &format!("{} {slope}", x.name), ""), x.channels, x.side)
            }
            _ => self.same("Relu", &x),
        };
        self.images.push(image);
    }

    /// Flattens the last image and ends with two dense layers.
    fn finish(mut self) -> ModelProto {
        let x = self.images.last().unwrap().clone();
        let flat = self.same("Flatten", &x);
        let inputs = x.channels * x.side * x.side;
        let (hidden, bias) = (self.tensor(&[9, inputs]), self.tensor(&[9]));
        self.repeat_rows();
        let gemm = node("Gemm", &format!("{} {hidden} {bias}", flat.name), "");
        let dense = self.node(with_int(gemm, "transB", 1), 9, 1);
        let active = self.same("Tanh", &dense);
        let last = self.tensor(&[9, 3]);
        let y = self.node(node("MatMul", &format!("{} {last}", active.name), ""), 3, 1);
        let mut graph = fixture::graph(self.nodes, self.tensors);
        graph.input = vec![port("x", &[-1, 2, 6, 6])];
        graph.output = vec![port(&y.name, &[-1, 3])];
        fixture::model(graph)
    }
}

pub(super) fn with_ints(mut node: NodeProto, name: &str, values: &[i64]) -> NodeProto {
    let ints = values.to_vec();
    node.attribute.push(AttributeProto { name: name.into(), ints, r#type: 7, ..Default::default() });
    node
}

pub(super) fn network(seed: u64, steps: &[(u8, u8)]) -> ModelProto {
    let start = Image { name: "x".into(), channels: 2, side: 6 };
    let mut network =
        Network { nodes: Vec::new(), tensors: Vec::new(), numbers: Numbers(seed), images: vec![start.clone()] };
    let first = network.convolution(&start, 6, 3, 1);
    network.images = vec![first];
    steps.iter().for_each(|&step| network.grow(step));
    network.finish()
}

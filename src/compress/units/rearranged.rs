//! What becomes of units, carried out on every tensor that knows them: on layers, on constants in the graph and on those outside.

use std::collections::HashMap;

use tract_onnx::pb::tensor_shape_proto::dimension;
use tract_onnx::pb::{ModelProto, ValueInfoProto, type_proto};

use super::UnitGroupReport;
use super::stored::element_bytes;
use crate::model::{Weight, constants_mut};
use crate::tensor::{FloatData, Matrix, Values};
use crate::units::{Folds, Picks};

/// What was found, to be carried out on every tensor that it touches.
#[derive(Default)]
pub(in crate::compress) struct Rearranged {
    /// First, biases take what constant units add to their products.
    pub(super) folds: Folds,
    /// Then, units go.
    pub(super) removed: Picks,
    /// Then those that stay change places.
    pub(super) reordered: Picks,
    pub reports: Vec<UnitGroupReport>,
}

impl Rearranged {
    fn contain(&self, name: &str) -> bool {
        self.folds.contain(name) || self.removed.contain(name) || self.reordered.contain(name)
    }

    /// The dimensions of a tensor.
    pub(in crate::compress) fn dims(&self, name: &str, dims: &[usize]) -> Vec<usize> {
        self.removed.dims(name, dims)
    }

    /// A layer with its units in their places.
    pub(in crate::compress) fn matrix(&self, weight: &Weight, matrix: Matrix) -> Matrix {
        if !self.contain(&weight.name) {
            return matrix;
        }
        let shape = weight.layout.shape(&self.dims(&weight.name, &weight.dims));
        let (rows, cols) = shape.expect("a layout fits fewer units too");
        let moved = match matrix.into_values() {
            Values::Shared { codebook, indices } => Matrix::shared(rows, cols, codebook, self.cells(weight, indices)),
            Values::Raw { dtype, data: FloatData::F32(values) } => {
                Matrix::raw(rows, cols, dtype, FloatData::F32(self.cells(weight, values)))
            }
            Values::Raw { dtype, data: FloatData::F64(values) } => {
                Matrix::raw(rows, cols, dtype, FloatData::F64(self.cells(weight, values)))
            }
        };
        moved.expect("cells that changed places are as valid as before")
    }

    /// The cells of a matrix, row-major.
    fn cells<T: Copy>(&self, weight: &Weight, cells: Vec<T>) -> Vec<T> {
        let Weight { name, dims, layout, .. } = weight;
        let elements = self.elements(name, dims, 1, layout.to_tensor(dims, cells));
        layout.to_matrix(&self.dims(name, dims), elements)
    }

    fn elements<T: Copy>(&self, name: &str, dims: &[usize], width: usize, elements: Vec<T>) -> Vec<T> {
        let left = self.removed.apply(name, dims, width, elements);
        self.reordered.apply(name, &self.dims(name, dims), width, left)
    }

    /// The elements of a tensor that is not compressed.
    pub(in crate::compress) fn bytes(&self, name: &str, dims: &[usize], mut bytes: Vec<u8>) -> Vec<u8> {
        let elements = dims.iter().product::<usize>();
        self.folds.add(name, &mut bytes);
        match self.contain(name) && elements > 0 {
            true => self.elements(name, dims, bytes.len() / elements, bytes),
            false => bytes,
        }
    }

    /// The graph with its constants rearranged. What it says of the extents in between is left out where they changed.
    pub(in crate::compress) fn graph(&self, skeleton: &ModelProto) -> ModelProto {
        let mut model = skeleton.clone();
        model.graph.iter_mut().for_each(|graph| self.folds.edit(graph));
        let mut shapes = HashMap::new();
        for (name, tensor) in constants_mut(&mut model).filter(|(name, _)| self.contain(name)) {
            let dims: Vec<usize> = tensor.dims.iter().filter_map(|&d| usize::try_from(d).ok()).collect();
            let moved = self.bytes(&name, &dims, element_bytes(tensor));
            (tensor.float_data, tensor.double_data, tensor.int32_data) = Default::default();
            tensor.raw_data = moved;
            tensor.dims = self.dims(&name, &dims).into_iter().map(|d| d as i64).collect();
            shapes.insert(name, tensor.dims.clone());
        }
        if let Some(graph) = model.graph.as_mut().filter(|_| self.reports.iter().any(UnitGroupReport::has_fewer)) {
            graph.value_info.clear();
            for input in &mut graph.input {
                if let Some(dims) = shapes.get(&input.name) {
                    set_extents(input, dims);
                }
            }
        }
        model
    }
}

/// Declares the extents of an initializer that is listed among the inputs.
fn set_extents(input: &mut ValueInfoProto, dims: &[i64]) {
    let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_mut().and_then(|t| t.value.as_mut()) else {
        return;
    };
    for (dim, &extent) in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim).zip(dims) {
        dim.value = Some(dimension::Value::DimValue(extent));
    }
}

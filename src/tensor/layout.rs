//! How a weight tensor of any rank is seen as a matrix with one row per output unit.

use serde::{Deserialize, Serialize};

/// The rule that turns a tensor's dimensions into rows and columns, and back. Export restores the original order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// The first dimension is the row, the rest the columns: Gemm with `transB=1`, a convolution's (O, I/g, k...), an
    /// embedding's (entries, width). A tensor of rank 1 is one row, a scalar a 1 x 1 matrix.
    RowsFirst,
    /// A matrix stored (inputs, outputs): Gemm with `transB=0` and a right-hand MatMul. Rank 2 only.
    Transposed,
    /// A transposed convolution's (I, O/g, k...): per group, rows are its O/g outputs and columns its I/g inputs times
    /// the kernel. Rank 3 and more.
    ConvTranspose {
        /// Number of groups; divides the first dimension.
        groups: usize,
    },
}

impl Layout {
    /// Rows and columns of a tensor with `dims`, or `None` where the layout does not fit them or the product of all
    /// dimensions but the zeros overflows.
    pub fn shape(self, dims: &[usize]) -> Option<(usize, usize)> {
        // A dimension of 0 must not hide that the others overflow: rows or columns are products of some of them.
        dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))?;
        match self {
            Self::RowsFirst => match dims {
                [] => Some((1, 1)),
                [n] => Some((1, *n)),
                [rows, rest @ ..] => Some((*rows, rest.iter().product())),
            },
            Self::Transposed => match dims {
                [inputs, outputs] => Some((*outputs, *inputs)),
                _ => None,
            },
            Self::ConvTranspose { groups } => match dims {
                [inputs, outputs, kernel @ ..] if groups > 0 && inputs.is_multiple_of(groups) && !kernel.is_empty() => {
                    Some((outputs.checked_mul(groups)?, inputs / groups * kernel.iter().product::<usize>()))
                }
                _ => None,
            },
        }
    }

    /// Reorders `tensor` (in the order of `dims`) into the matrix, row-major.
    ///
    /// # Panics
    /// If `tensor` does not hold as many elements as `dims` says, or the layout does not fit `dims`.
    pub fn to_matrix<T: Copy>(self, dims: &[usize], tensor: Vec<T>) -> Vec<T> {
        if self == Self::RowsFirst {
            return tensor;
        }
        let (rows, cols) = self.shape(dims).expect("the layout fits the dimensions");
        assert_eq!(tensor.len(), rows * cols);
        let mut matrix = Vec::with_capacity(tensor.len());
        for row in 0..rows {
            matrix.extend((0..cols).map(|col| tensor[self.offset(dims, row, col)]));
        }
        matrix
    }

    /// The inverse of [`Layout::to_matrix`].
    ///
    /// # Panics
    /// As [`Layout::to_matrix`].
    pub fn to_tensor<T: Copy>(self, dims: &[usize], matrix: Vec<T>) -> Vec<T> {
        if self == Self::RowsFirst {
            return matrix;
        }
        let (rows, cols) = self.shape(dims).expect("the layout fits the dimensions");
        assert_eq!(matrix.len(), rows * cols);
        let mut tensor = matrix.clone();
        for row in 0..rows {
            for col in 0..cols {
                tensor[self.offset(dims, row, col)] = matrix[row * cols + col];
            }
        }
        tensor
    }

    /// Where matrix cell (row, col) stands in the tensor.
    fn offset(self, dims: &[usize], row: usize, col: usize) -> usize {
        match self {
            Self::RowsFirst => row * dims.iter().skip(1).product::<usize>() + col,
            Self::Transposed => col * dims[1] + row,
            Self::ConvTranspose { groups } => {
                let outputs = dims[1];
                let kernel: usize = dims[2..].iter().product();
                let (group, output) = (row / outputs, row % outputs);
                let (input, tap) = (col / kernel, col % kernel);
                ((group * (dims[0] / groups) + input) * outputs + output) * kernel + tap
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_hand_matmul_becomes_one_row_per_output() {
        let dims = [2, 3];
        assert_eq!(Layout::Transposed.shape(&dims), Some((3, 2)));
        assert_eq!(Layout::Transposed.to_matrix(&dims, vec![1, 2, 3, 4, 5, 6]), vec![1, 4, 2, 5, 3, 6]);
    }

    #[test]
    fn a_grouped_transposed_convolution_keeps_its_groups_apart() {
        // I = 2, groups = 2, O/g = 2, k = 2: rows are (group 0: o0, o1), (group 1: o0, o1).
        let dims = [2, 2, 2];
        let layout = Layout::ConvTranspose { groups: 2 };
        assert_eq!(layout.shape(&dims), Some((4, 2)));
        assert_eq!(layout.to_matrix(&dims, (0..8).collect()), (0..8).collect::<Vec<_>>());
        let layout = Layout::ConvTranspose { groups: 1 };
        assert_eq!(layout.shape(&dims), Some((2, 4)));
        assert_eq!(layout.to_matrix(&dims, (0..8).collect()), vec![0, 1, 4, 5, 2, 3, 6, 7]);
    }

    #[test]
    fn export_restores_the_original_order() {
        let cases: [(Layout, &[usize]); 4] = [
            (Layout::RowsFirst, &[4, 3, 2]),
            (Layout::Transposed, &[6, 4]),
            (Layout::ConvTranspose { groups: 2 }, &[4, 3, 2]),
            (Layout::ConvTranspose { groups: 1 }, &[4, 3, 2, 1]),
        ];
        for (layout, dims) in cases {
            let tensor: Vec<u32> = (0..24).collect();
            assert_eq!(layout.to_tensor(dims, layout.to_matrix(dims, tensor.clone())), tensor, "{layout:?}");
        }
    }

    #[test]
    fn dimensions_that_do_not_fit_are_refused() {
        assert_eq!(Layout::Transposed.shape(&[2, 3, 4]), None);
        assert_eq!(Layout::ConvTranspose { groups: 3 }.shape(&[4, 2, 2]), None);
        assert_eq!(Layout::RowsFirst.shape(&[usize::MAX, 2]), None);
        assert_eq!(Layout::RowsFirst.shape(&[0, usize::MAX, 2]), None);
        assert_eq!(Layout::RowsFirst.shape(&[0, 3]), Some((0, 3)));
    }
}

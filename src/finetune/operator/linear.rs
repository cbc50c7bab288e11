//! Gemm and MatMul.

use burn_flex::{Flex, FlexTensor};

use super::{Inputs, Operator, OperatorError};
use crate::finetune::error::TuneError;
use crate::finetune::kernel::matrix::Matrix;
use crate::finetune::node::Node;
use crate::finetune::operator::binary::{broadcast, scale, spread};
use crate::finetune::scalar::{Scalar, by_type};
use crate::finetune::tape::record;
use crate::finetune::value::{Tape, Tensor, Value, count, on_tape};

/// Reads a Gemm or a MatMul.
pub(super) fn parse(node: &Node<'_>) -> Result<Box<dyn Operator>, TuneError> {
    if node.operator() == "MatMul" {
        return Ok(Box::new(MatMul));
    }
    let (trans_a, trans_b) = (node.int("transA", 0) != 0, node.int("transB", 0) != 0);
    let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
    Ok(Box::new(Gemm { product: Product { trans_a, trans_b, alpha }, beta }))
}

#[derive(Debug)]
struct Gemm {
    product: Product,
    beta: f64,
}

#[derive(Debug)]
struct MatMul;

/// alpha A' B', each transposed or not.
#[derive(Debug, Clone, Copy)]
struct Product {
    trans_a: bool,
    trans_b: bool,
    alpha: f64,
}

impl Operator for Gemm {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let (a, b) = (inputs.float(0)?, inputs.float(1)?);
        let c = inputs.optional(2).map(Value::float).transpose()?.filter(|_| self.beta != 0.0);
        let Some(c) = c else { return Ok(vec![Value::Float(self.product.apply(a, b, None)?)]) };
        let of_c = c.dims();
        let cols = b.dims().get(usize::from(!self.product.trans_b)).copied().unwrap_or(0);
        let is_row = of_c.last() == Some(&cols) && of_c.iter().product::<usize>() == cols;
        if is_row && self.beta == 1.0 {
            let row = c.clone().reshape(&[cols]);
            return Ok(vec![Value::Float(self.product.apply(a, b, Some(&row))?)]);
        }
        let y = self.product.apply(a, b, None)?;
        if broadcast(&y.dims(), &of_c)? != y.dims() {
            return Err(OperatorError::Mismatch { left: y.dims(), right: of_c });
        }
        let c = scale(spread(c, 2), self.beta);
        Ok(vec![Value::Float(on_tape!(float_add(y, c)))])
    }
}

impl Operator for MatMul {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let (a, b) = (inputs.float(0)?, inputs.float(1)?);
        let (of_a, of_b) = (a.dims(), b.dims());
        let mismatch = || OperatorError::Mismatch { left: of_a.clone(), right: of_b.clone() };
        let (Some(&k), false) = (of_a.last(), of_b.is_empty()) else { return Err(mismatch()) };
        let product = Product { trans_a: false, trans_b: false, alpha: 1.0 };
        if of_b.len() <= 2 {
            // All rows of A at once.
            let rows = count(&of_a[..of_a.len() - 1])?;
            let matrix = if of_b.len() == 1 { b.clone().reshape(&[of_b[0], 1]) } else { b.clone() };
            let y = product.apply(&a.clone().reshape(&[rows, k]), &matrix, None)?;
            let dims = [&of_a[..of_a.len() - 1], &of_b[1..]].concat();
            return Ok(vec![Value::Float(y.reshape(&dims))]);
        }
        let rank = of_a.len().max(of_b.len());
        let row = of_a.len() == 1;
        let wide = if row { a.clone().reshape(&[1, k]) } else { a.clone() };
        let (wide, of_wide) = (spread(&wide, rank), spread(&wide, rank).dims());
        let tall = spread(b, rank);
        let of_tall = tall.dims();
        if k != of_tall[rank - 2] {
            return Err(mismatch());
        }
        let mut dims = broadcast(&of_wide[..rank - 2], &of_tall[..rank - 2]).map_err(|_| mismatch())?;
        dims.extend([of_wide[rank - 2], of_tall[rank - 1]]);
        count(&dims)?;
        let y = on_tape!(float_matmul(wide, tall));
        if row {
            dims.remove(rank - 2);
        }
        Ok(vec![Value::Float(y.reshape(&dims))])
    }
}

impl Product {
    /// The product of two matrices, `row` added to each of its rows.
    fn apply(self, a: &Tensor, b: &Tensor, row: Option<&Tensor>) -> Result<Tensor, OperatorError> {
        let (of_a, of_b) = (a.dims(), b.dims());
        let mismatch = || OperatorError::Mismatch { left: of_a.clone(), right: of_b.clone() };
        let (&[ra, ca], &[rb, cb]) = (&of_a[..], &of_b[..]) else { return Err(mismatch()) };
        let (m, k) = if self.trans_a { (ca, ra) } else { (ra, ca) };
        let (inner, n) = if self.trans_b { (cb, rb) } else { (rb, cb) };
        if inner != k {
            return Err(mismatch());
        }
        count(&[m, n])?;
        let (left, right, offsets) = (a.contiguous(), b.contiguous(), row.map(Tensor::contiguous));
        let Self { trans_a, trans_b, alpha } = self;
        let output = by_type!(left, T => {
            let mut out = vec![T::ZERO; m * n];
            if let Some(row) = offsets.as_ref().map(T::view) {
                out.chunks_exact_mut(n.max(1)).for_each(|out| out.copy_from_slice(row));
            }
            let (left, right) = (Matrix::new(T::view(&left), ra, ca), Matrix::new(T::view(&right), rb, cb));
            left.t_if(trans_a).times(right.t_if(trans_b), alpha, offsets.is_some(), &mut out);
            T::tensor(&[m, n], out)
        });
        let gradients = move |dy: &FlexTensor, wanted: [bool; 3]| {
            by_type!(dy, T => {
                let (left, right) = (Matrix::new(T::view(&left), ra, ca), Matrix::new(T::view(&right), rb, cb));
                let (left, right) = (left.t_if(trans_a), right.t_if(trans_b));
                let dy = T::view(dy);
                let by = Matrix::new(dy, m, n);
                let product = |rows: usize, cols: usize, a: Matrix<'_, T>, b: Matrix<'_, T>| {
                    let mut out = vec![T::ZERO; rows * cols];
                    a.times(b, alpha, false, &mut out);
                    T::tensor(&[rows, cols], out)
                };
                let by_row = || {
                    let mut out = vec![T::ZERO; n];
                    dy.chunks_exact(n.max(1)).for_each(|dy| out.iter_mut().zip(dy).for_each(|(o, &dy)| *o += dy));
                    T::tensor(&[n], out)
                };
                [
                    wanted[0].then(|| match trans_a {
                        false => product(ra, ca, by, right.t()),
                        true => product(ra, ca, right, by.t()),
                    }),
                    wanted[1].then(|| match trans_b {
                        false => product(rb, cb, left.t(), by),
                        true => product(rb, cb, by.t(), left),
                    }),
                    wanted[2].then(by_row),
                ]
            })
        };
        let nothing = Tensor::Plain(output.clone());
        Ok(record([a, b, row.unwrap_or(&nothing)], output, gradients))
    }
}

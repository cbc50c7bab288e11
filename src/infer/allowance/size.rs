//! Bytes of what a node makes, and of what it needs beside that, as far as its facts tell.

use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops::cnn::{
    Conv, Deconv, MaxPool, OptMaxPool, OptSumPool, PaddingSpec, PoolSpec, SumPool,
};

/// Bytes of a tensor, with the symbols that `values` know; `None` where some extent depends on others. More than can be
/// counted is [`u64::MAX`].
///
/// An extent of 0 counts as 1: an operator may build its output up an axis at a time.
pub(super) fn fact_bytes(fact: &TypedFact, values: &SymbolValues) -> Option<u64> {
    let elements = elements(fact.shape.iter().map(|dim| extent(dim, values)))?;
    Some(elements.saturating_mul(fact.datum_type.size_of() as u64))
}

/// Bytes of a tensor at least: extents that depend on symbols count as 1.
pub(super) fn least_bytes(fact: &TypedFact) -> u64 {
    let none = SymbolValues::default();
    let extents = fact.shape.iter().map(|dim| extent(dim, &none).unwrap_or(1));
    elements(extents.map(Some)).unwrap_or(u64::MAX).saturating_mul(fact.datum_type.size_of() as u64)
}

/// Bytes of the packed operand of a product that each element of the output of `op` stands for, all together; as
/// [`fact_bytes`].
fn packed_bytes(op: &dyn TypedOp, fact: &TypedFact, values: &SymbolValues) -> Option<u64> {
    let Some(packed) = fact.exotic_fact.as_ref().filter(|_| op.name() != NEVER_MADE) else { return Some(0) };
    let add = |total: u64, size: &TDim| Some(total.saturating_add(extent(size, values)?));
    let each = packed.buffer_sizes().iter().try_fold(0, add)?;
    Some(elements(fact.shape.iter().map(|dim| extent(dim, values)))?.saturating_mul(each))
}

/// The operator whose packed output is read where it lies, window by window, so that what its fact tells is never made.
const NEVER_MADE: &str = "LazyIm2col";

/// The product of extents, each counted as 1 at least.
pub(super) fn elements(extents: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    let mut product = 1u64;
    for extent in extents {
        product = product.saturating_mul(extent?.max(1));
    }
    Some(product)
}

/// An extent with the symbols that `values` know; `None` where it has others. One below 0 is 0. Unlike tract's own
/// evaluation it does not wrap.
pub(super) fn extent(dim: &TDim, values: &SymbolValues) -> Option<u64> {
    let extent = wide(dim, values)?.max(0);
    Some(u64::try_from(extent).unwrap_or(u64::MAX))
}

fn wide(dim: &TDim, values: &SymbolValues) -> Option<i128> {
    match dim {
        TDim::Val(value) => Some((*value).into()),
        TDim::Sym(symbol) => values.get(symbol).map(Into::into),
        TDim::Add(terms) => terms.iter().try_fold(0i128, |sum, term| Some(sum.saturating_add(wide(term, values)?))),
        TDim::Mul(factors) => {
            factors.iter().try_fold(1i128, |product, factor| Some(product.saturating_mul(wide(factor, values)?)))
        }
        TDim::MulInt(factor, dim) => Some(i128::from(*factor).saturating_mul(wide(dim, values)?)),
        TDim::Div(dim, by) => wide(dim, values)?.checked_div_euclid((*by).into()),
        other => other.eval_to_i64(values).ok().map(Into::into),
    }
}

/// Bytes of the buffers that `op` takes beside the tensors that go in and come out; `None` where some extent is not known.
/// `is_lowered` says that the graph will run as it is, so that a convolution lays out its patches itself.
pub(super) fn buffer_bytes(
    op: &dyn TypedOp,
    inputs: &[&TypedFact],
    outputs: &[Outlet<TypedFact>],
    values: &SymbolValues,
    is_lowered: bool,
) -> Option<u64> {
    let mut bytes = 0u64;
    for output in outputs.iter().filter(|output| output.fact.konst.is_none()) {
        bytes = bytes.saturating_add(packed_bytes(op, &output.fact, values)?);
    }
    let Some(pool) = pool(op) else { return Some(bytes) };
    let patches = match (inputs, op.downcast_ref::<Conv>(), op.downcast_ref::<Deconv>()) {
        ([x, ..], Some(conv), _) if is_lowered => patches_bytes(&conv.pool_spec, conv.group, x, values)?,
        // What each input adds to each output that it reaches.
        ([x, ..], _, Some(deconv)) => {
            let channels = (deconv.pool_spec.input_channels as u64).max(1);
            let reached = window(&deconv.pool_spec).saturating_mul(deconv.pool_spec.output_channels as u64);
            (fact_bytes(x, values)? / channels).saturating_mul(reached)
        }
        _ => 0,
    };
    Some(bytes.saturating_add(patches).saturating_add(tables_bytes(pool)))
}

/// Bytes of a convolution's input with one column for each output position, as tract lays it out before it multiplies.
fn patches_bytes(pool: &PoolSpec, groups: usize, input: &TypedFact, values: &SymbolValues) -> Option<u64> {
    let shape = pool.output_shape(&input.shape).ok()?;
    let channels = (pool.output_channels as u64).max(1);
    let positions = elements(shape.shape.iter().map(|dim| extent(dim, values)))? / channels;
    let depth = window(pool).saturating_mul((pool.input_channels / groups.max(1)) as u64).max(1);
    let bytes = positions.saturating_mul(depth).saturating_mul(groups as u64);
    Some(bytes.saturating_mul(input.datum_type.size_of() as u64))
}

fn pool(op: &dyn TypedOp) -> Option<&PoolSpec> {
    let conv = op.downcast_ref::<Conv>().map(|op| &op.pool_spec);
    let deconv = || op.downcast_ref::<Deconv>().map(|op| &op.pool_spec);
    let max = || op.downcast_ref::<MaxPool>().map(|op| &op.pool_spec);
    let sum = || op.downcast_ref::<SumPool>().map(|op| &op.pool_spec);
    let opt_max = || op.downcast_ref::<OptMaxPool>().map(|op| &op.pool_spec);
    let opt_sum = || op.downcast_ref::<OptSumPool>().map(|op| &op.pool_spec);
    conv.or_else(deconv).or_else(max).or_else(sum).or_else(opt_max).or_else(opt_sum)
}

/// Taps of a window.
fn window(pool: &PoolSpec) -> u64 {
    pool.kernel_shape.iter().fold(1u64, |product, &taps| product.saturating_mul(taps as u64))
}

/// Bytes of tract's tables of a window: for each way that its taps can lie inside and outside of a padded input, the taps that are
/// inside, as an index and an offset.
fn tables_bytes(pool: &PoolSpec) -> u64 {
    let pads = |axis: usize| match &pool.padding {
        PaddingSpec::Valid => false,
        PaddingSpec::Explicit(before, after) | PaddingSpec::ExplicitOnnxPool(before, after, _) => {
            before.get(axis).is_some_and(|&pad| pad > 0) || after.get(axis).is_some_and(|&pad| pad > 0)
        }
        _ => true,
    };
    let ways = |(axis, &taps): (usize, &usize)| if pads(axis) { taps as u64 + 2 } else { 1 };
    let ways = pool.kernel_shape.iter().enumerate().map(ways).fold(1, u64::saturating_mul);
    let entry = 2 * size_of::<usize>() as u64;
    window(pool).saturating_mul(ways).saturating_mul(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_do_not_wrap() {
        let scope = SymbolScope::default();
        let (a, b) = (scope.sym("a"), scope.sym("b"));
        let values = SymbolValues::default().with(&a, 1 << 24).with(&b, 3);
        let of = |dim: TDim| extent(&dim, &values);
        assert_eq!(of(TDim::Sym(b.clone())), Some(3));
        assert_eq!(of(TDim::MulInt(1 << 40, Box::new(a.clone().into()))), Some(u64::MAX));
        assert_eq!(of(TDim::Mul(vec![a.clone().into(), a.clone().into(), a.clone().into()])), Some(u64::MAX));
        assert_eq!(of((a.to_dim() + 1) / 2), Some(1 << 23));
        assert_eq!(of(b.to_dim() - 5), Some(0));
        assert_eq!(of(scope.sym("c").to_dim() + 1), None);
    }

    #[test]
    fn an_extent_of_zero_hides_nothing() {
        let fact = f32::fact([1usize << 40, 0]);
        assert_eq!(fact_bytes(&fact, &SymbolValues::default()), Some(4 << 40));
        assert_eq!(fact_bytes(&f32::fact([1usize << 40, 1 << 40]), &SymbolValues::default()), Some(u64::MAX));
    }
}

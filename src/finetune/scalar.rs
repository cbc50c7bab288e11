//! The two element types that the engine computes in: f32 to train, f64 to check gradients.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use burn_backend::TensorData;
use burn_flex::FlexTensor;

/// A real number that tensors are made of.
pub(super) trait Scalar:
    Copy
    + Default
    + PartialOrd
    + Debug
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;

    /// The nearest number to `value`.
    fn of(value: f64) -> Self;
    /// Widened.
    fn f64(self) -> f64;
    /// The elements of a contiguous tensor of this type.
    fn view(tensor: &FlexTensor) -> &[Self];
    /// A tensor of `dims`, whose product is the length of `data`.
    fn tensor(dims: &[usize], data: Vec<Self>) -> FlexTensor;

    /// e to the power of the number.
    fn exp(self) -> Self;
    /// e to the power of the number, less 1.
    fn exp_m1(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Natural logarithm of 1 more.
    fn ln_1p(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Error function.
    fn erf(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// The number to a power.
    fn powf(self, exponent: Self) -> Self;
}

macro_rules! scalar {
    ($type:ident, $exp:ident $exp_m1:ident $ln:ident $ln_1p:ident $tanh:ident $erf:ident $pow:ident) => {
        impl Scalar for $type {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;

            fn of(value: f64) -> Self {
                value as $type
            }

            fn f64(self) -> f64 {
                f64::from(self)
            }

            fn view(tensor: &FlexTensor) -> &[Self] {
                tensor.as_slice().expect("a contiguous tensor of this type")
            }

            fn tensor(dims: &[usize], data: Vec<Self>) -> FlexTensor {
                FlexTensor::from_data(TensorData::new(data, dims.to_vec()))
            }

            fn exp(self) -> Self {
                libm::$exp(self)
            }

            fn exp_m1(self) -> Self {
                libm::$exp_m1(self)
            }

            fn ln(self) -> Self {
                libm::$ln(self)
            }

            fn ln_1p(self) -> Self {
                libm::$ln_1p(self)
            }

            fn tanh(self) -> Self {
                libm::$tanh(self)
            }

            fn erf(self) -> Self {
                libm::$erf(self)
            }

            fn sqrt(self) -> Self {
                $type::sqrt(self)
            }

            fn abs(self) -> Self {
                $type::abs(self)
            }

            fn powf(self, exponent: Self) -> Self {
                libm::$pow(self, exponent)
            }
        }
    };
}
scalar!(f32, expf expm1f logf log1pf tanhf erff powf);
scalar!(f64, exp expm1 log log1p tanh erf pow);

/// Evaluates `$body` with `$type` standing for the element type of `$tensor`.
macro_rules! by_type {
    ($tensor:expr, $type:ident => $body:expr) => {
        match $tensor.dtype() {
            burn_backend::DType::F64 => {
                type $type = f64;
                $body
            }
            _ => {
                type $type = f32;
                $body
            }
        }
    };
}
pub(super) use by_type;

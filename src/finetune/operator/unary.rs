//! Functions of one value, element by element: activations and the plain ones.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use burn_flex::FlexTensor;

use super::{Inputs, Operator, OperatorError};
use crate::finetune::error::TuneError;
use crate::finetune::node::Node;
use crate::finetune::scalar::{Scalar, by_type};
use crate::finetune::tape::record;
use crate::finetune::value::{IntTensor, Tensor, Value, to_f64};

/// Reads a function of one value.
pub(super) fn parse(node: &Node<'_>) -> Result<Box<dyn Operator>, TuneError> {
    let alpha = |default: f64| node.float("alpha", default);
    Ok(match node.operator() {
        "Relu" => Box::new(Relu),
        "LeakyRelu" => Box::new(LeakyRelu(alpha(0.01))),
        "Elu" => Box::new(Elu { alpha: alpha(1.0), gamma: 1.0 }),
        "Selu" => {
            // The defaults of the operator's definition.
            let gamma = node.float("gamma", 1.050_700_987_355_480_5);
            Box::new(Elu { alpha: alpha(1.673_263_242_354_377_2), gamma })
        }
        "Celu" => Box::new(Celu(alpha(1.0))),
        "ThresholdedRelu" => Box::new(ThresholdedRelu(alpha(1.0))),
        "Clip" => Box::new(Clip { low: node.float("min", f64::NEG_INFINITY), high: node.float("max", f64::INFINITY) }),
        "HardSigmoid" => Box::new(HardSigmoid { alpha: alpha(0.2), beta: node.float("beta", 0.5) }),
        "HardSwish" => Box::new(HardSwish),
        "Softplus" => Box::new(Softplus),
        "Softsign" => Box::new(Softsign),
        "Gelu" if node.word("approximate").as_deref() == Some("tanh") => Box::new(GeluTanh),
        "Gelu" => Box::new(Gelu),
        "Erf" => Box::new(Erf),
        "Sigmoid" => Box::new(Sigmoid),
        "Tanh" => Box::new(Tanh),
        "Exp" => Box::new(Exp),
        "Log" => Box::new(Log),
        "Sqrt" => Box::new(Sqrt),
        "Abs" => Box::new(Abs),
        "Neg" => Box::new(Neg),
        "Reciprocal" => Box::new(Reciprocal),
        operator => {
            return Err(TuneError::UnsupportedOperator { operator: operator.to_owned(), node: node.name() });
        }
    })
}

/// A differentiable function of one real.
pub(super) trait Function: Clone + Send + Sync + std::fmt::Debug + 'static {
    fn value<T: Scalar>(&self, x: T) -> T;
    /// Its derivative at `x`, where its value is `y`.
    fn slope<T: Scalar>(&self, x: T, y: T) -> T;
    /// Its value of an integer, if that is one.
    fn integer(&self, _: i64) -> Option<i64> {
        None
    }
    /// The function that further inputs make of it.
    fn with(&self, _: &Inputs<'_>) -> Result<Self, OperatorError> {
        Ok(self.clone())
    }
}

impl<F: Function> Operator for F {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let function = self.with(inputs)?;
        match inputs.value(0)? {
            Value::Float(x) => Ok(vec![Value::Float(apply(function, x))]),
            Value::Int(x) => {
                let data: Option<Vec<i64>> = x.data.iter().map(|&x| function.integer(x)).collect();
                let data = data.ok_or(OperatorError::WrongType { expected: "reals", found: "integers" })?;
                Ok(vec![Value::Int(IntTensor { dims: x.dims.clone(), data: data.into() })])
            }
        }
    }

    fn differentiable(&self) -> usize {
        1
    }
}

/// `function` of every element.
pub(super) fn apply(function: impl Function, x: &Tensor) -> Tensor {
    let (dims, values) = (x.dims(), x.contiguous());
    let output = by_type!(values, T => {
        T::tensor(&dims, T::view(&values).iter().map(|&x| function.value(x)).collect())
    });
    let result = output.clone();
    record([x], output, move |dy: &FlexTensor, _| {
        [Some(by_type!(dy, T => {
            let pairs = T::view(&values).iter().zip(T::view(&result)).zip(T::view(dy));
            T::tensor(&dims, pairs.map(|((&x, &y), &dy)| function.slope(x, y) * dy).collect())
        }))]
    })
}

/// Defines functions without parameters, each as a name, its value and its slope.
macro_rules! functions {
    ($($name:ident: |$x:ident| $value:expr, |$at:ident, $y:ident| $slope:expr;)*) => {$(
        #[derive(Debug, Clone)]
        pub(super) struct $name;

        impl Function for $name {
            fn value<T: Scalar>(&self, $x: T) -> T {
                $value
            }

            fn slope<T: Scalar>(&self, $at: T, $y: T) -> T {
                $slope
            }
        }
    )*};
}

functions! {
    Relu: |x| if x < T::ZERO { T::ZERO } else { x }, |_x, y| if y > T::ZERO { T::ONE } else { T::ZERO };
    HardSwish: |x| x * HardSigmoid::SWISH.value(x),
        |x, _y| HardSigmoid::SWISH.value(x) + x * HardSigmoid::SWISH.slope(x, HardSigmoid::SWISH.value(x));
    Softplus: |x| if x > T::ZERO { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }, |x, _y| sigmoid(x);
    Softsign: |x| x / (T::ONE + x.abs()), |x, _y| T::ONE / ((T::ONE + x.abs()) * (T::ONE + x.abs()));
    Gelu: |x| x * normal(x), |x, _y| normal(x) + x * T::of((2.0 * PI).sqrt().recip()) * (-(x * x) / T::of(2.0)).exp();
    GeluTanh: |x| T::of(0.5) * x * (T::ONE + gelu_inner(x).tanh()),
        |x, _y| {
            let (tanh, cubic) = (gelu_inner(x).tanh(), T::of(3.0 * 0.044715) * x * x);
            let inner = T::of((2.0 / PI).sqrt()) * (T::ONE + cubic);
            T::of(0.5) * (T::ONE + tanh) + T::of(0.5) * x * (T::ONE - tanh * tanh) * inner
        };
    Erf: |x| x.erf(), |x, _y| T::of(2.0 / PI.sqrt()) * (-(x * x)).exp();
    Sigmoid: |x| sigmoid(x), |_x, y| y * (T::ONE - y);
    Tanh: |x| x.tanh(), |_x, y| T::ONE - y * y;
    Exp: |x| x.exp(), |_x, y| y;
    Log: |x| x.ln(), |x, _y| T::ONE / x;
    Sqrt: |x| x.sqrt(), |_x, y| T::of(0.5) / y;
    Square: |x| x * x, |x, _y| x + x;
    Reciprocal: |x| T::ONE / x, |_x, y| -(y * y);
}

fn sigmoid<T: Scalar>(x: T) -> T {
    // The exponent is never positive, so nothing overflows.
    let e = (-x.abs()).exp();
    if x < T::ZERO { e / (T::ONE + e) } else { T::ONE / (T::ONE + e) }
}

/// The cumulative distribution of the standard normal.
fn normal<T: Scalar>(x: T) -> T {
    T::of(0.5) * (T::ONE + (x * T::of(FRAC_1_SQRT_2)).erf())
}

fn gelu_inner<T: Scalar>(x: T) -> T {
    T::of((2.0 / PI).sqrt()) * (x + T::of(0.044715) * x * x * x)
}

#[derive(Debug, Clone)]
pub(super) struct Abs;

impl Function for Abs {
    fn value<T: Scalar>(&self, x: T) -> T {
        x.abs()
    }

    fn slope<T: Scalar>(&self, x: T, _: T) -> T {
        match x.partial_cmp(&T::ZERO) {
            Some(std::cmp::Ordering::Less) => -T::ONE,
            Some(std::cmp::Ordering::Equal) => T::ZERO,
            _ => T::ONE,
        }
    }

    fn integer(&self, x: i64) -> Option<i64> {
        Some(x.wrapping_abs())
    }
}

#[derive(Debug, Clone)]
struct Neg;

impl Function for Neg {
    fn value<T: Scalar>(&self, x: T) -> T {
        -x
    }

    fn slope<T: Scalar>(&self, _: T, _: T) -> T {
        -T::ONE
    }

    fn integer(&self, x: i64) -> Option<i64> {
        Some(x.wrapping_neg())
    }
}

#[derive(Debug, Clone)]
struct LeakyRelu(f64);

impl Function for LeakyRelu {
    fn value<T: Scalar>(&self, x: T) -> T {
        if x < T::ZERO { T::of(self.0) * x } else { x }
    }

    fn slope<T: Scalar>(&self, x: T, _: T) -> T {
        if x < T::ZERO { T::of(self.0) } else { T::ONE }
    }
}

/// gamma x, or gamma alpha (e^x - 1) below zero.
#[derive(Debug, Clone)]
struct Elu {
    alpha: f64,
    gamma: f64,
}

impl Function for Elu {
    fn value<T: Scalar>(&self, x: T) -> T {
        T::of(self.gamma) * if x < T::ZERO { T::of(self.alpha) * x.exp_m1() } else { x }
    }

    fn slope<T: Scalar>(&self, x: T, _: T) -> T {
        T::of(self.gamma) * if x < T::ZERO { T::of(self.alpha) * x.exp() } else { T::ONE }
    }
}

/// x, or alpha (e^(x / alpha) - 1) below zero.
#[derive(Debug, Clone)]
struct Celu(f64);

impl Function for Celu {
    fn value<T: Scalar>(&self, x: T) -> T {
        if x < T::ZERO { T::of(self.0) * (x / T::of(self.0)).exp_m1() } else { x }
    }

    fn slope<T: Scalar>(&self, x: T, _: T) -> T {
        if x < T::ZERO { (x / T::of(self.0)).exp() } else { T::ONE }
    }
}

/// x above a threshold, else zero.
#[derive(Debug, Clone)]
struct ThresholdedRelu(f64);

impl Function for ThresholdedRelu {
    fn value<T: Scalar>(&self, x: T) -> T {
        if x > T::of(self.0) { x } else { T::ZERO }
    }

    fn slope<T: Scalar>(&self, x: T, _: T) -> T {
        if x > T::of(self.0) { T::ONE } else { T::ZERO }
    }
}

#[derive(Debug, Clone)]
struct HardSigmoid {
    alpha: f64,
    beta: f64,
}

impl HardSigmoid {
    /// The one inside HardSwish.
    const SWISH: Self = Self { alpha: 1.0 / 6.0, beta: 0.5 };
}

impl Function for HardSigmoid {
    fn value<T: Scalar>(&self, x: T) -> T {
        let y = T::of(self.alpha) * x + T::of(self.beta);
        if y < T::ZERO {
            T::ZERO
        } else if y > T::ONE {
            T::ONE
        } else {
            y
        }
    }

    fn slope<T: Scalar>(&self, _: T, y: T) -> T {
        if y > T::ZERO && y < T::ONE { T::of(self.alpha) } else { T::ZERO }
    }
}

#[derive(Debug, Clone)]
struct Clip {
    low: f64,
    high: f64,
}

impl Function for Clip {
    fn value<T: Scalar>(&self, x: T) -> T {
        let x = if x < T::of(self.low) { T::of(self.low) } else { x };
        if x > T::of(self.high) { T::of(self.high) } else { x }
    }

    fn slope<T: Scalar>(&self, x: T, _: T) -> T {
        if x >= T::of(self.low) && x <= T::of(self.high) { T::ONE } else { T::ZERO }
    }

    fn integer(&self, x: i64) -> Option<i64> {
        let low = if self.low.is_finite() { self.low as i64 } else { i64::MIN };
        Some(x.max(low).min(if self.high.is_finite() { self.high as i64 } else { i64::MAX }))
    }

    fn with(&self, inputs: &Inputs<'_>) -> Result<Self, OperatorError> {
        let bound = |index: usize, default: f64| match inputs.optional(index) {
            None => Ok(default),
            Some(Value::Int(bound)) => Ok(bound.scalar()? as f64),
            Some(Value::Float(bound)) => match to_f64(bound.inner())[..] {
                [bound] => Ok(bound),
                ref list => Err(OperatorError::WrongLength { expected: 1, found: list.len() }),
            },
        };
        Ok(Self { low: bound(1, self.low)?, high: bound(2, self.high)? })
    }
}

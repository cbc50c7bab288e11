//! Operators of our own on the tape of the autodiff library: a kernel's output, and a rule for its gradients.

use std::fmt;
use std::sync::Arc;

use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_flex::{Flex, FlexTensor};

use super::value::Tensor;

/// Puts `output`, computed from `inputs`, on the tape, if an input is traced.
///
/// `gradients` gets the gradient of the loss by the output, contiguous, and which inputs' gradients are wanted; it returns
/// those, each of the shape of its input.
pub(super) fn record<const N: usize>(
    inputs: [&Tensor; N],
    output: FlexTensor,
    gradients: impl Fn(&FlexTensor, [bool; N]) -> [Option<FlexTensor>; N] + Send + Sync + 'static,
) -> Tensor {
    if inputs.iter().all(|input| matches!(input, Tensor::Plain(_))) {
        return Tensor::Plain(output);
    }
    let nodes = inputs.map(|input| input.clone().traced().node());
    let prepared = Backward::<Flex, N>::prepare::<NoCheckpointing>(Recorded, nodes).compute_bound();
    Tensor::Traced(match prepared.stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(Rule(Arc::new(gradients)), output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    })
}

#[derive(Debug)]
struct Recorded;

type Gradient<const N: usize> = dyn Fn(&FlexTensor, [bool; N]) -> [Option<FlexTensor>; N] + Send + Sync;

/// How the gradients of the inputs follow from that of the output.
#[derive(Clone)]
struct Rule<const N: usize>(Arc<Gradient<N>>);

impl<const N: usize> fmt::Debug for Rule<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule of {N} inputs")
    }
}

impl<const N: usize> Backward<Flex, N> for Recorded {
    type State = Rule<N>;

    fn backward(self, ops: Ops<Rule<N>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        let wanted = ops.parents.each_ref().map(Option::is_some);
        for (parent, gradient) in ops.parents.into_iter().zip((ops.state.0)(&gradient, wanted)) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

//! The metrics of an evaluation. Every sum runs in f64 over the samples in their order, so that a result depends on
//! neither threads nor batch size.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::TargetKind;

/// What can be measured of a version on a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Fraction of samples whose largest output is the labelled class.
    Accuracy,
    /// Fraction of samples whose labelled class is among the five largest outputs.
    Top5,
    /// Mean squared error.
    Mse,
    /// Mean absolute error.
    Mae,
    /// Coefficient of determination: 1 - squared error / variance of the target.
    R2,
    /// Fraction of pairs with different targets that are predicted in the right order; a tie counts half.
    ConcordanceIndex,
    /// Signal to noise ratio of the outputs against version 0's, in dB.
    OutputSnrDb,
    /// Fraction of samples whose largest output is the same as version 0's.
    Agreement,
}

/// What a metric compares the outputs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Against {
    /// Class labels.
    Class,
    /// Real-valued targets.
    Value,
    /// The outputs of version 0; no labels needed.
    Reference,
}

impl Metric {
    /// Every metric, in the order in which they are listed to people.
    pub const ALL: [Self; 8] = [
        Self::Accuracy,
        Self::Top5,
        Self::Mse,
        Self::Mae,
        Self::R2,
        Self::ConcordanceIndex,
        Self::OutputSnrDb,
        Self::Agreement,
    ];

    /// The word for it in JSON, in the database and in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Top5 => "top5",
            Self::Mse => "mse",
            Self::Mae => "mae",
            Self::R2 => "r2",
            Self::ConcordanceIndex => "concordance_index",
            Self::OutputSnrDb => "output_snr_db",
            Self::Agreement => "agreement",
        }
    }

    /// The best value that it can have.
    pub const fn best(self) -> f64 {
        match self {
            Self::Accuracy | Self::Top5 | Self::R2 | Self::ConcordanceIndex | Self::Agreement => 1.0,
            Self::Mse | Self::Mae => 0.0,
            Self::OutputSnrDb => f64::INFINITY,
        }
    }

    /// Whether it lies between 0 and 1.
    pub const fn is_fraction(self) -> bool {
        matches!(self, Self::Accuracy | Self::Top5 | Self::ConcordanceIndex | Self::Agreement)
    }

    /// What it lacks where targets are of this kind, and version 0 is there to compare with or not.
    pub fn needs(self, targets: Option<TargetKind>, has_reference: bool) -> Option<&'static str> {
        match self.against() {
            Against::Class if targets != Some(TargetKind::Class) => Some("a target of kind class"),
            Against::Value if targets != Some(TargetKind::Value) => Some("a target of kind value"),
            Against::Reference if !has_reference => Some("version 0 to compare with"),
            _ => None,
        }
    }

    /// What it compares the outputs with.
    pub const fn against(self) -> Against {
        match self {
            Self::Accuracy | Self::Top5 => Against::Class,
            Self::Mse | Self::Mae | Self::R2 | Self::ConcordanceIndex => Against::Value,
            Self::OutputSnrDb | Self::Agreement => Against::Reference,
        }
    }
}

/// Outputs compared with class labels.
#[derive(Debug, Clone, Default)]
pub struct ClassScore {
    samples: u64,
    correct: u64,
    in_top5: u64,
}

impl ClassScore {
    /// Adds a sample: its outputs, one per class, and its label, which is below their number.
    ///
    /// A sample counts as right only if no other class is as high, so constant outputs earn nothing.
    pub fn add(&mut self, outputs: &[f32], label: usize) {
        let rivals = rivals(outputs, label);
        self.samples += 1;
        self.correct += u64::from(rivals == Some(0));
        self.in_top5 += u64::from(rivals.is_some_and(|rivals| rivals < 5));
    }

    /// The value of `metric`, or `None` where it is not about classes or nothing was added.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        let fraction = |count: u64| (self.samples > 0).then(|| count as f64 / self.samples as f64);
        match metric {
            Metric::Accuracy => fraction(self.correct),
            Metric::Top5 => fraction(self.in_top5),
            _ => None,
        }
    }
}

/// How many other classes are as high as `label`; `None` where that one's output is NaN.
pub(super) fn rivals(outputs: &[f32], label: usize) -> Option<usize> {
    let own = outputs[label];
    // NaN is not below anything, so it is a rival of every class.
    let is_below = |v: f32| v.partial_cmp(&own) == Some(Ordering::Less);
    let rivals = outputs.iter().enumerate().filter(|&(class, &v)| class != label && !is_below(v)).count();
    (!own.is_nan()).then_some(rivals)
}

/// Outputs compared with real-valued targets. Keeps both, 8 bytes a value, for the concordance index.
#[derive(Debug, Clone, Default)]
pub struct ValueScore {
    outputs: Vec<f32>,
    targets: Vec<f32>,
}

impl ValueScore {
    /// Adds one output and its target.
    pub fn add(&mut self, output: f32, target: f32) {
        self.outputs.push(output);
        self.targets.push(target);
    }

    /// The value of `metric`, or `None` where it is not about values or is undefined for these (no samples; for `r2` a
    /// constant target; for the concordance index no two different targets).
    pub fn value(&self, metric: Metric) -> Option<f64> {
        let n = self.targets.len() as f64;
        if self.targets.is_empty() {
            return None;
        }
        match metric {
            Metric::Mse => Some(self.sum(|y, t| (y - t) * (y - t)) / n),
            Metric::Mae => Some(self.sum(|y, t| (y - t).abs()) / n),
            Metric::R2 => {
                let mean = self.sum(|_, t| t) / n;
                let variance = self.sum(|_, t| (t - mean) * (t - mean));
                (variance > 0.0).then(|| 1.0 - self.sum(|y, t| (y - t) * (y - t)) / variance)
            }
            Metric::ConcordanceIndex => concordance_index(&self.outputs, &self.targets),
            _ => None,
        }
    }

    fn sum(&self, term: impl Fn(f64, f64) -> f64) -> f64 {
        self.outputs.iter().zip(&self.targets).map(|(&y, &t)| term(f64::from(y), f64::from(t))).sum()
    }
}

/// Outputs compared with version 0's.
#[derive(Debug, Clone, Default)]
pub struct ReferenceScore {
    samples: u64,
    agreeing: u64,
    signal: f64,
    noise: f64,
}

impl ReferenceScore {
    /// Adds a sample: its outputs, and version 0's for the same input.
    ///
    /// A sample with a NaN on either side does not agree. NaN or an infinity where version 0 has another value is noise of
    /// the largest finite `f32`, some -700 dB, so that a broken version never looks like an equal one.
    pub fn add(&mut self, outputs: &[f32], reference: &[f32]) {
        self.samples += 1;
        self.agreeing += u64::from(largest(reference).is_some_and(|class| largest(outputs) == Some(class)));
        for (&y, &r) in outputs.iter().zip(reference) {
            if r.is_finite() {
                self.signal += f64::from(r) * f64::from(r);
            }
            let error = match (y.is_finite() && r.is_finite(), y == r || y.is_nan() && r.is_nan()) {
                (true, _) => f64::from(y) - f64::from(r),
                (false, true) => 0.0,
                (false, false) => f64::from(f32::MAX),
            };
            self.noise += error * error;
        }
    }

    /// The value of `metric`, or `None` where it does not compare with version 0, nothing was added, or the outputs are
    /// equal (the ratio is then infinite).
    pub fn value(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Agreement => (self.samples > 0).then(|| self.agreeing as f64 / self.samples as f64),
            Metric::OutputSnrDb => {
                (self.noise > 0.0 && self.signal > 0.0).then(|| 10.0 * libm::log10(self.signal / self.noise))
            }
            _ => None,
        }
    }
}

/// Index of the largest value, the first of equals; `None` where one of them is NaN.
fn largest(values: &[f32]) -> Option<usize> {
    if values.iter().any(|v| v.is_nan()) {
        return None;
    }
    (0..values.len()).reduce(|best, i| if values[i] > values[best] { i } else { best })
}

/// Fraction of pairs with different targets whose outputs are in the same order, ties counting half, in O(n log n).
///
/// # Source
/// Gönen, Heller, "Concordance probability and discriminatory power in proportional hazards regression", Biometrika
/// 2005; as used for DeepDTA by Öztürk, Özgür, Ozkirimli, Bioinformatics 2018.
fn concordance_index(outputs: &[f32], targets: &[f32]) -> Option<f64> {
    // Adding zero makes -0.0 the equal of +0.0 in the total order too.
    let mut ranked: Vec<f32> = outputs.iter().map(|y| y + 0.0).collect();
    ranked.sort_unstable_by(f32::total_cmp);
    ranked.dedup_by(|a, b| a.total_cmp(b).is_eq());
    let rank = |y: f32| ranked.partition_point(|v| v.total_cmp(&(y + 0.0)).is_lt());

    let mut order: Vec<usize> = (0..targets.len()).collect();
    order.sort_by(|&a, &b| targets[a].total_cmp(&targets[b]));

    let mut lower = CountByRank::new(ranked.len());
    let (mut pairs, mut concordant, mut tied) = (0u64, 0u64, 0u64);
    // Samples with equal targets form no pair: a whole group is looked up before any of it is counted.
    for group in order.chunk_by(|&a, &b| targets[a] == targets[b]) {
        for &i in group {
            let (below, equal) = lower.below_and_at(rank(outputs[i]));
            concordant += below;
            tied += equal;
            pairs += lower.total;
        }
        for &i in group {
            lower.count(rank(outputs[i]));
        }
    }
    (pairs > 0).then(|| (concordant as f64 + 0.5 * tied as f64) / pairs as f64)
}

/// How many outputs of each rank were seen: a Fenwick tree.
struct CountByRank {
    tree: Vec<u64>,
    total: u64,
}

impl CountByRank {
    fn new(ranks: usize) -> Self {
        Self { tree: vec![0; ranks + 1], total: 0 }
    }

    fn count(&mut self, rank: usize) {
        self.total += 1;
        let mut i = rank + 1;
        while i < self.tree.len() {
            self.tree[i] += 1;
            i += i & i.wrapping_neg();
        }
    }

    /// How many have a lower rank, and how many this one.
    fn below_and_at(&self, rank: usize) -> (u64, u64) {
        let below = self.up_to(rank);
        (below, self.up_to(rank + 1) - below)
    }

    /// How many have one of the first `ranks` ranks.
    fn up_to(&self, ranks: usize) -> u64 {
        let (mut sum, mut i) = (0, ranks);
        while i > 0 {
            sum += self.tree[i];
            i &= i - 1;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tie_for_the_first_place_is_not_right() {
        let mut score = ClassScore::default();
        score.add(&[0.1, 0.9, 0.0], 1);
        score.add(&[0.5, 0.5, 0.5], 1);
        score.add(&[f32::NAN, 0.5, 0.5], 0);
        assert_eq!(score.value(Metric::Accuracy), Some(1.0 / 3.0));
        assert_eq!(score.value(Metric::Top5), Some(2.0 / 3.0));
        assert_eq!(score.value(Metric::Mse), None);
    }

    #[test]
    fn the_sixth_place_is_not_in_the_top_five() {
        let mut score = ClassScore::default();
        score.add(&[6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 5);
        score.add(&[6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 4);
        assert_eq!(score.value(Metric::Top5), Some(0.5));
    }

    #[test]
    fn errors_match_hand_computed_values() {
        let mut score = ValueScore::default();
        for (output, target) in [(1.0, 2.0), (2.0, 2.0), (5.0, 3.0), (4.0, 5.0)] {
            score.add(output, target);
        }
        assert_eq!(score.value(Metric::Mse), Some(1.5));
        assert_eq!(score.value(Metric::Mae), Some(1.0));
        // Mean 3, squared deviations 1 + 1 + 0 + 4 = 6, squared errors 6.
        assert_eq!(score.value(Metric::R2), Some(0.0));
        // Pairs with different targets: 5. (1,5) (2,5) (1,4') ... only (3 -> 5.0, 5 -> 4.0) is out of order.
        assert_eq!(score.value(Metric::ConcordanceIndex), Some(0.8));
    }

    #[test]
    fn undefined_metrics_are_absent() {
        let mut score = ValueScore::default();
        assert_eq!(score.value(Metric::Mse), None);
        score.add(1.0, 2.0);
        score.add(3.0, 2.0);
        assert_eq!(score.value(Metric::R2), None);
        assert_eq!(score.value(Metric::ConcordanceIndex), None);
    }

    #[test]
    fn signal_to_noise_is_in_decibels() {
        let mut score = ReferenceScore::default();
        score.add(&[11.0, 0.0], &[10.0, 0.0]);
        assert_eq!(score.value(Metric::OutputSnrDb), Some(20.0));
        assert_eq!(score.value(Metric::Agreement), Some(1.0));
        score.add(&[0.0, 1.0], &[1.0, 0.0]);
        assert_eq!(score.value(Metric::Agreement), Some(0.5));
        let mut equal = ReferenceScore::default();
        equal.add(&[1.0], &[1.0]);
        assert_eq!(equal.value(Metric::OutputSnrDb), None);
    }

    #[test]
    fn outputs_that_are_no_numbers_never_look_equal() {
        let compared = |outputs: &[f32], reference: &[f32]| {
            let mut score = ReferenceScore::default();
            score.add(outputs, reference);
            (score.value(Metric::Agreement), score.value(Metric::OutputSnrDb))
        };
        let nan = f32::NAN;
        for broken in [[nan, nan], [nan, 1.0], [2.0, nan]] {
            let (agreement, snr) = compared(&broken, &[2.0, 1.0]);
            assert_eq!(agreement, Some(0.0));
            assert!(snr.is_some_and(|db| (-800.0..-700.0).contains(&db)), "{broken:?}: {snr:?}");
        }
        assert_eq!(compared(&[nan, nan], &[nan, nan]), (Some(0.0), None));
        // Masked scores: version 0 has the same infinity.
        assert_eq!(compared(&[1.0, f32::NEG_INFINITY], &[1.0, f32::NEG_INFINITY]), (Some(1.0), None));
    }

    proptest! {
        #[test]
        fn the_concordance_index_equals_its_definition(pairs in prop::collection::vec((0u8..6, 0u8..6), 0..40)) {
            let outputs: Vec<f32> = pairs.iter().map(|p| f32::from(p.0)).collect();
            let targets: Vec<f32> = pairs.iter().map(|p| f32::from(p.1)).collect();
            let (mut n, mut good) = (0, 0.0);
            for i in 0..pairs.len() {
                for j in 0..pairs.len() {
                    if targets[i] > targets[j] {
                        n += 1;
                        good += match outputs[i].total_cmp(&outputs[j]) {
                            std::cmp::Ordering::Greater => 1.0,
                            std::cmp::Ordering::Equal => 0.5,
                            std::cmp::Ordering::Less => 0.0,
                        };
                    }
                }
            }
            prop_assert_eq!(concordance_index(&outputs, &targets), (n > 0).then(|| good / f64::from(n)));
        }
    }
}

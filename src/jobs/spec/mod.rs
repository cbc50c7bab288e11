//! What a job is asked to do, as it stands in `POST /api/v1/jobs`, and what it answers.

mod search;

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Discriminator, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};

use crate::benchmark::{BenchmarkReport, Settings};
use crate::compress::{Recipe, Report};
use crate::evaluate::{DataMap, DataSplits, Metric};
use crate::infer::Residency;
use crate::search::SearchReport;
use crate::storage::{Metadata, NewMetric};

pub use search::{SearchJob, SearchSpec, TrialResult, TrialSpec};

/// A job to queue.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobSpec {
    /// Compresses the upload into a new version.
    Compress(CompressSpec),
    /// Measures a version.
    Evaluate(EvaluateSpec),
    /// Times a version beside another.
    Benchmark(BenchmarkSpec),
    /// Searches for the smallest version within an allowed loss.
    Search(SearchSpec),
    /// One trial of a search; searches queue them, nobody else.
    Trial(TrialSpec),
}

/// Kinds of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    Compress,
    Evaluate,
    Benchmark,
    Search,
    Trial,
}

impl JobKind {
    /// Those that clients may ask for.
    const ASKED_FOR: [Self; 4] = [Self::Compress, Self::Evaluate, Self::Benchmark, Self::Search];
    /// All of them.
    const ALL: [Self; 5] = [Self::Compress, Self::Evaluate, Self::Benchmark, Self::Search, Self::Trial];

    /// The name of its specification in the description of the API.
    fn spec_name(self) -> &'static str {
        match self {
            Self::Compress => "CompressSpec",
            Self::Evaluate => "EvaluateSpec",
            Self::Benchmark => "BenchmarkSpec",
            Self::Search => "SearchSpec",
            Self::Trial => "TrialSpec",
        }
    }

    /// The word for it, in JSON, in the database and in labels of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compress => "compress",
            Self::Evaluate => "evaluate",
            Self::Benchmark => "benchmark",
            Self::Search => "search",
            Self::Trial => "trial",
        }
    }
}

/// Compresses version 0 of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompressSpec {
    /// The model's name.
    pub model: String,
    /// How to compress.
    pub recipe: Recipe,
    /// What a recipe that calibrates or fine-tunes learns from: the training split, and the validation split to stop by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataSplits>,
    /// Measures version 0 and the new version, on the same samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationSpec>,
    /// Makes the new version the model's default.
    #[serde(default)]
    pub make_default: bool,
    /// A higher one is claimed first.
    #[serde(default)]
    pub priority: i32,
    /// What users note about the job.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// Measures one version of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluateSpec {
    /// The model's name.
    pub model: String,
    /// The default version when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// What to measure, on what.
    pub evaluation: EvaluationSpec,
    /// A higher one is claimed first.
    #[serde(default)]
    pub priority: i32,
    /// What users note about the job.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// Times a version of a model beside another: latency, throughput, time per layer, memory. What else the service does
/// meanwhile shares the processor with both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BenchmarkSpec {
    /// The model's name.
    pub model: String,
    /// The default version when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// The version that it is compared with: the upload when absent.
    #[serde(default)]
    pub baseline: i64,
    /// Samples at a time: 1 and 32 when absent, or what the graph takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batch: Vec<usize>,
    /// Threads of a prediction: 1 and all of the service when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub threads: Vec<usize>,
    /// How the weights of the version are held: each of these in turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub residency: Vec<Residency>,
    /// Seconds of each timing, from 0.01 to 60: 2 when absent. All timings together take an hour at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Extents of one sample, for inputs that leave some open; those that nobody gives are 1. Without an evaluation,
    /// samples are made up.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Runs on the samples of a dataset, and measures the quality of both versions on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationSpec>,
    /// A higher one is claimed first.
    #[serde(default)]
    pub priority: i32,
    /// What users note about the job.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

impl BenchmarkSpec {
    /// What is measured, and for how long.
    pub(super) fn settings(&self) -> Settings {
        Settings { batches: self.batch.clone(), threads: self.threads.clone(), seconds: self.seconds }
    }

    /// How the weights of the version are held, each once; version 0 is dense.
    pub(super) fn residencies(&self, version: i64) -> Vec<Residency> {
        let mut residencies = Vec::new();
        match (version, self.residency.as_slice()) {
            (0, _) => residencies.push(Residency::Dense),
            (_, []) => residencies.push(Residency::default()),
            (_, given) => given.iter().for_each(|r| {
                if !residencies.contains(r) {
                    residencies.push(*r)
                }
            }),
        }
        residencies
    }
}

/// By hand, since a derived one loses the path of a fault inside the members.
impl<'de> Deserialize<'de> for JobSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Map::deserialize(deserializer)?;
        let kind = members.remove("kind").ok_or_else(|| D::Error::missing_field("kind"))?;
        let kind = JobKind::deserialize(kind).map_err(|error| D::Error::custom(format_args!("kind: {error}")))?;
        match kind {
            JobKind::Compress => members_of(members).map(Self::Compress),
            JobKind::Evaluate => members_of(members).map(Self::Evaluate),
            JobKind::Benchmark => members_of(members).map(Self::Benchmark),
            JobKind::Search => members_of(members).map(Self::Search),
            JobKind::Trial => members_of(members).map(Self::Trial),
        }
    }
}

/// Reads the members of a job beside its kind; a fault is named with its path, e.g. `recipe.quantize.levels`.
fn members_of<T: DeserializeOwned, E: serde::de::Error>(members: Map<String, Value>) -> Result<T, E> {
    serde_path_to_error::deserialize(Value::Object(members)).map_err(E::custom)
}

impl utoipa::PartialSchema for JobSpec {
    fn schema() -> RefOr<Schema> {
        one_of(&JobKind::ASKED_FOR, "A job to queue.")
    }
}

/// Stands for the schema of what a job was asked to do: as [`JobSpec`], and that of a trial.
pub enum ShownSpec {}

impl utoipa::PartialSchema for ShownSpec {
    fn schema() -> RefOr<Schema> {
        one_of(&JobKind::ALL, "What a job was asked to do.")
    }
}

impl ToSchema for ShownSpec {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        JobSpec::schemas(schemas);
    }
}

/// The schema of a job of one of `kinds`.
fn one_of(kinds: &[JobKind], description: &str) -> RefOr<Schema> {
    let schemas = kinds.iter().map(|kind| Ref::from_schema_name(kind.spec_name()));
    let one_of = schemas.fold(OneOfBuilder::new(), OneOfBuilder::item);
    let place = |kind: &JobKind| (kind.as_str(), format!("#/components/schemas/{}", kind.spec_name()));
    let discriminator = Discriminator::with_mapping("kind", kinds.iter().map(place));
    one_of.discriminator(Some(discriminator)).description(Some(description)).into()
}

impl ToSchema for JobSpec {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        for kind in JobKind::ALL {
            let of_members = match kind {
                JobKind::Compress => with_members::<CompressSpec>(schemas),
                JobKind::Evaluate => with_members::<EvaluateSpec>(schemas),
                JobKind::Benchmark => with_members::<BenchmarkSpec>(schemas),
                JobKind::Search => with_members::<SearchSpec>(schemas),
                JobKind::Trial => with_members::<TrialSpec>(schemas),
            };
            schemas.push((kind.spec_name().to_owned(), with_kind(of_members, kind)));
        }
    }
}

/// The schema of `T`, and into `schemas` what it refers to.
fn with_members<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) -> RefOr<Schema> {
    T::schemas(schemas);
    T::schema()
}

/// `members`, which are an object, and the kind.
fn with_kind(members: RefOr<Schema>, kind: JobKind) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = members else { unreachable!("the members of a job are an object") };
    let kind = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([kind.as_str()]));
    object.properties.insert("kind".to_owned(), kind.into());
    object.required.push("kind".to_owned());
    Schema::Object(object).into()
}

impl JobSpec {
    /// Which kind it is.
    pub fn kind(&self) -> JobKind {
        match self {
            Self::Compress(_) => JobKind::Compress,
            Self::Evaluate(_) => JobKind::Evaluate,
            Self::Benchmark(_) => JobKind::Benchmark,
            Self::Search(_) => JobKind::Search,
            Self::Trial(_) => JobKind::Trial,
        }
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        match self {
            Self::Compress(spec) => &spec.model,
            Self::Evaluate(spec) => &spec.model,
            Self::Benchmark(spec) => &spec.model,
            Self::Search(spec) => &spec.job.model,
            Self::Trial(spec) => &spec.model,
        }
    }

    /// What to measure, if anything.
    pub fn evaluation(&self) -> Option<&EvaluationSpec> {
        match self {
            Self::Compress(spec) => spec.evaluation.as_ref(),
            Self::Evaluate(spec) => Some(&spec.evaluation),
            Self::Benchmark(spec) => spec.evaluation.as_ref(),
            Self::Search(_) | Self::Trial(_) => None,
        }
    }

    /// What it learns from and selects by, if it does.
    pub fn data(&self) -> Option<&DataSplits> {
        match self {
            Self::Compress(spec) => spec.data.as_ref(),
            Self::Search(spec) => Some(&spec.job.data),
            Self::Evaluate(_) | Self::Benchmark(_) | Self::Trial(_) => None,
        }
    }

    /// Every mapping that it has, which must each name a dataset, with where it stands.
    pub fn maps(&self) -> impl Iterator<Item = (&'static str, &DataMap)> {
        let evaluation = self.evaluation().map(|evaluation| ("evaluation.data", &evaluation.data));
        evaluation.into_iter().chain(self.data().into_iter().flat_map(DataSplits::maps).map(|map| ("data", map)))
    }

    /// A higher one is claimed first.
    pub fn priority(&self) -> i32 {
        match self {
            Self::Compress(spec) => spec.priority,
            Self::Evaluate(spec) => spec.priority,
            Self::Benchmark(spec) => spec.priority,
            Self::Search(spec) => spec.job.priority,
            Self::Trial(spec) => spec.priority,
        }
    }

    /// What users note about the job.
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::Compress(spec) => &spec.metadata,
            Self::Evaluate(spec) => &spec.metadata,
            Self::Benchmark(spec) => &spec.metadata,
            Self::Search(spec) => &spec.job.metadata,
            Self::Trial(_) => Metadata::none(),
        }
    }
}

/// What to measure, and on which data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluationSpec {
    /// All that apply to the data when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// The dataset, which must be named, and how its arrays map to the graph.
    pub data: DataMap,
}

/// What a job that succeeded produced.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobResult {
    /// The version that was made, or measured; absent of a trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Sizes, of a compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// Trials, front and choice, of a search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchReport>,
    /// What came of a trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialResult>,
    /// Times and memory, of a benchmark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub benchmark: Option<BenchmarkReport>,
    /// What was measured; of version 0 or a benchmark's baseline (before) and of `version` (after).
    pub metrics: Vec<NewMetric>,
}

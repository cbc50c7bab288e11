//! What a search is asked for.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::members_of;
use crate::compress::Recipe;
use crate::evaluate::DataSplits;
use crate::search::{Outcome, Proposal, Search, TrialStage};
use crate::storage::{JobId, Metadata};

/// Searches for the smallest version within an allowed loss, or for the best one within a size. The members of the search
/// stand beside those of the job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SearchSpec {
    #[serde(flatten)]
    pub job: SearchJob,
    #[serde(flatten)]
    pub search: Search,
}

/// The members of a search that say where it works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchJob {
    /// The model's name.
    pub model: String,
    /// What it learns from, selects by and reports on.
    pub data: DataSplits,
    /// Makes the version that is chosen the model's default, if it keeps the bound.
    #[serde(default)]
    pub make_default: bool,
    /// Trials that are made at the same time: of more than one, each is a job of its own, which any worker may take. Some of them
    /// then turn out to be needless, and trials share nothing that was measured for another.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schema(minimum = 1, maximum = 64, default = 1)]
    pub parallel: usize,
    /// A higher one is claimed first.
    #[serde(default)]
    pub priority: i32,
    /// What users note about the job.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// The names of the members of [`SearchJob`].
const JOB_MEMBERS: [&str; 6] = ["model", "data", "make_default", "parallel", "priority", "metadata"];
/// Most trials of a search at the same time.
const MAX_PARALLEL: usize = 64;

fn one() -> usize {
    1
}

fn is_one(number: &usize) -> bool {
    *number == 1
}

impl SearchJob {
    /// Checks what the members of the search do not say.
    pub(in crate::jobs) fn check(&self) -> Result<(), String> {
        match self.parallel {
            1..=MAX_PARALLEL => Ok(()),
            found => Err(format!("parallel must be from 1 to {MAX_PARALLEL}, not {found}")),
        }
    }
}

/// One trial of a search whose trials are jobs of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrialSpec {
    /// The model's name.
    pub model: String,
    /// The job that searches.
    pub search: JobId,
    /// Its number in the search.
    pub number: usize,
    /// What part of the search it belongs to.
    pub stage: TrialStage,
    /// The trial whose fine-tuned weights it starts from; the upload when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<usize>,
    /// What is to be done.
    pub recipe: Recipe,
    /// A higher one is claimed first.
    #[serde(default)]
    pub priority: i32,
}

impl TrialSpec {
    /// What its search proposed.
    pub(in crate::jobs) fn proposal(&self) -> Proposal {
        Proposal { stage: self.stage, from: self.from, recipe: self.recipe.clone() }
    }
}

/// What a trial came to, for its search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TrialResult {
    /// What came of it.
    pub outcome: Outcome,
    /// Time of the work: compressing and measuring.
    pub seconds: f64,
    /// SHA-256 of the artifact, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// SHA-256 of the fine-tuned weights, where it trained any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned: Option<String>,
}

/// By hand, since flattened members cannot be told from unknown ones.
impl<'de> Deserialize<'de> for SearchSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut search = Map::deserialize(deserializer)?;
        // A dataset by its name is the shortest way to say where the data are.
        if let Some(name @ Value::String(_)) = search.remove("dataset") {
            let data = search.entry("data").or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(data) = data {
                data.entry("dataset").or_insert(name);
            }
        }
        let job = JOB_MEMBERS.iter().filter_map(|name| Some(((*name).to_owned(), search.remove(*name)?)));
        let job: Map<String, Value> = job.collect();
        Ok(Self { job: members_of(job)?, search: members_of(search)? })
    }
}

impl PartialSchema for SearchSpec {
    fn schema() -> RefOr<Schema> {
        let RefOr::T(Schema::Object(mut object)) = SearchJob::schema() else {
            unreachable!("a structure is an object")
        };
        let RefOr::T(Schema::Object(search)) = Search::schema() else { unreachable!("a structure is an object") };
        object.description = search.description;
        object.properties.extend(search.properties);
        Schema::Object(object).into()
    }
}

impl ToSchema for SearchSpec {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        SearchJob::schemas(schemas);
        Search::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_may_be_named_alone_and_members_survive_a_round_trip() {
        let parse = |json: &str| serde_json::from_str::<SearchSpec>(json);
        let short = parse(r#"{"model": "m", "dataset": "d", "max_drop": 0.01}"#).unwrap();
        let long = parse(r#"{"model": "m", "data": {"dataset": "d"}, "max_drop": 0.01}"#).unwrap();
        assert_eq!(short, long);
        assert_eq!(parse(&serde_json::to_string(&long).unwrap()).unwrap(), long);
        let error = parse(r#"{"model": "m", "data": {}, "max_dorp": 0.01}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `max_dorp`"), "{error}");
    }
}

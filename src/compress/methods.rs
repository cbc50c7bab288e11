//! Every criterion, quantiser, codec and preset: what it does, where it comes from, and the settings it takes.
//!
//! The JSON Schemas are those of the types that parse a recipe, cut down to what one method reads, so they cannot drift
//! from what is accepted.

use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema, ToSchema};

use super::recipe::{EncodeFields, Preset, PruneFields, QuantizeFields, Recipe};
use crate::codec::CodecId;
use crate::prune::Criterion;
use crate::quantize::Method;

/// What a recipe can choose from.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Methods {
    /// What a recipe's `prune` may be.
    pub criteria: Vec<MethodDescription>,
    /// What a recipe's `quantize` may be.
    pub quantizers: Vec<MethodDescription>,
    /// What a recipe's `encode` may be; `auto` first.
    pub codecs: Vec<MethodDescription>,
    /// Starting points by name, expanded.
    pub presets: Vec<PresetDescription>,
}

/// One method.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct MethodDescription {
    /// Its name in a recipe.
    pub name: String,
    /// What it does, in a sentence.
    pub description: &'static str,
    /// The paper or document that defines it.
    pub source: &'static str,
    /// JSON Schema of the object that a recipe gives for this stage, with ranges and defaults.
    #[schema(value_type = Object)]
    pub schema: Value,
}

/// One preset.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PresetDescription {
    /// Its name in a recipe.
    pub name: String,
    /// What it is for, in a sentence.
    pub description: &'static str,
    /// The recipe that it expands to.
    pub recipe: Recipe,
}

/// Describes everything that a recipe can choose from.
pub fn methods() -> Methods {
    Methods {
        criteria: Criterion::ALL.map(criterion).into(),
        quantizers: Method::ALL.map(quantizer).into(),
        codecs: std::iter::once(auto()).chain(CodecId::ALL.iter().copied().map(codec)).collect(),
        presets: Preset::ALL.map(preset).into(),
    }
}

const ICPR: &str = "Marinò, Ghidoli, Frasca, Malchiodi, \"Compression strategies and space-conscious representations for \
                    deep neural networks\", ICPR 2020, arXiv:2007.07967";

fn criterion(criterion: Criterion) -> MethodDescription {
    let (description, source) = match criterion {
        Criterion::Magnitude => ("Sets the weights of smallest absolute value to zero.", ICPR),
        Criterion::Lamp => (
            "Sets the weights to zero whose absolute value is small against the norm of those in their layer that are at least as \
             large; with the scope `global`, each layer is pruned as far as it can bear and none is emptied.",
            "Lee, Park, Mo, Ahn, Shin, \"Layer-adaptive sparsity for the magnitude-based pruning\", ICLR 2021, arXiv:2010.07611",
        ),
        Criterion::Wanda => (
            "Sets the weights to zero whose absolute value times the norm of their input is smallest; needs data.",
            "Sun, Liu, Bair, Kolter, \"A simple and effective pruning approach for large language models\", ICLR 2024, \
             arXiv:2306.11695",
        ),
        Criterion::Obs => (
            "Sets the weights to zero whose removal costs the layer's outputs least, and adjusts the others to make up for them; \
             over the whole network, each layer gets the sparsity that suits it. Needs data.",
            "Meng, Behdin, Wang, Mazumder, \"ALPS\", NeurIPS 2024, arXiv:2406.07831; Hassibi, Stork, \"Second order \
             derivatives for network pruning: optimal brain surgeon\", NIPS 1992",
        ),
    };
    describe(
        Stage { discriminator: "criterion", fields: &["sparsity", "scope", "pattern"] }.of::<PruneFields>(criterion),
        description,
        source,
    )
}

fn quantizer(method: Method) -> MethodDescription {
    let (description, source) = match method {
        Method::Cws => (
            "Clustering weight sharing: each weight takes the nearest of the k values whose squared error is least, found exactly.",
            "Han, Mao, Dally, \"Deep Compression\", ICLR 2016, arXiv:1510.00149",
        ),
        Method::Pws => (
            "Probabilistic weight sharing: each weight is rounded at random, without bias, to one of the two quantiles around it.",
            ICPR,
        ),
        Method::Uq => (
            "Uniform quantisation: each weight takes the nearest multiple of the smallest step that leaves at most k values; \
             a coarse step can ruin convolutional layers.",
            "Marinò, Petrini, Malchiodi, Frasca, \"Deep neural networks compression: a comparative survey and choice \
             recommendations\", Neurocomputing 520, 2023",
        ),
        Method::Ecsq => (
            "Entropy-constrained scalar quantisation: squared error is traded against the bits that each value's code costs.",
            "Chou, Lookabaugh, Gray, \"Entropy-constrained vector quantization\", IEEE Trans. ASSP 37, 1989",
        ),
    };
    let fields: &[&str] = match method {
        Method::Cws => &["levels", "bits", "codebook", "rounding", "weighting"],
        Method::Pws | Method::Uq => &["levels", "bits", "codebook", "rounding"],
        Method::Ecsq => &["levels", "bits", "codebook", "tolerance", "rounding", "weighting"],
    };
    describe(Stage { discriminator: "method", fields }.of::<QuantizeFields>(method), description, source)
}

fn codec(codec: CodecId) -> MethodDescription {
    let (description, source) = match codec {
        CodecId::Dense => ("Every value in full.", ICPR),
        CodecId::Csr => ("Compressed sparse row: the non-zero values and their columns.", ICPR),
        CodecId::Csc => ("Compressed sparse column: the non-zero values and their rows.", ICPR),
        CodecId::IndexMap => (
            "Index map: a codebook, and for every weight its index in as few bits as the codebook's length needs.",
            "Han, Mao, Dally, \"Deep Compression\", ICLR 2016, arXiv:1510.00149",
        ),
        CodecId::Ham => ("Huffman address map: one Huffman code over all values, zero included.", ICPR),
        CodecId::Sham => ("Sparse Huffman address map: Huffman-coded non-zero values and their raw indices.", ICPR),
        CodecId::Cser => (
            "Compressed shared elements row: the columns of each row grouped by the value they hold.",
            "Wiedemann, Müller, Samek, \"Compact and computationally efficient representation of deep neural networks\", \
             IEEE Trans. NNLS 31, 2020, arXiv:1805.10692",
        ),
        CodecId::Rans => (
            "Gaps between the non-zero values and their indices, or all indices, in interleaved asymmetric numeral systems.",
            "Duda, \"Asymmetric numeral systems\", arXiv:1311.2540; Giesen, \"Interleaved entropy coders\", arXiv:1402.3392",
        ),
        CodecId::Mix => (
            "Context mixing with arithmetic coding: the fewest bytes, at about a microsecond for each weight; transcoded when it \
             is loaded for predictions.",
            "Mahoney, \"Adaptive weighing of context models for lossless data compression\", Florida Tech. CS-2005-16, 2005",
        ),
        CodecId::Delta => (
            "Each row as another row and the cells in which it differs, along trees of similar rows; the differences by rans.",
            "Minimum spanning trees of Hamming distances by Prim's algorithm: Prim, \"Shortest connection networks and some \
             generalizations\", Bell System Technical Journal 36, 1957",
        ),
        CodecId::Pco => (
            "Every value in full, its bits as an integer in the pco format, which bins them.",
            "Loncaric, Jeppesen, Zinberg, \"Pcodec: Better Compression for Numerical Sequences\", 2025, arXiv:2502.06112",
        ),
    };
    describe(
        Stage { discriminator: "codec", fields: &["plain", "reorder", "remove", "merge", "free_units"] }
            .of::<EncodeFields>(codec),
        description,
        source,
    )
}

fn auto() -> MethodDescription {
    let description = "The smallest codec for each tensor: with the goal `smallest` of all, with `serving` of those that products run on \
                       (all but mix).";
    let schema =
        Stage { discriminator: "codec", fields: &["goal", "plain", "reorder", "remove", "merge", "free_units"] }
            .of::<EncodeFields>("auto");
    describe(schema, description, "The sizes are measured, not estimated.")
}

fn preset(preset: Preset) -> PresetDescription {
    PresetDescription { name: name_of(&preset), description: preset.description(), recipe: Recipe::from(preset) }
}

fn describe((name, schema): (String, Value), description: &'static str, source: &'static str) -> MethodDescription {
    MethodDescription { name, description, source, schema }
}

/// Which fields of a stage one method reads.
struct Stage<'a> {
    /// The field that names the method.
    discriminator: &'a str,
    /// The others.
    fields: &'a [&'a str],
}

impl Stage<'_> {
    /// The name of `method`, and the schema of the fields `T` as far as this method reads them.
    fn of<T: PartialSchema>(&self, method: impl Serialize) -> (String, Value) {
        let name = name_of(&method);
        let Ok(Value::Object(mut schema)) = serde_json::to_value(T::schema()) else {
            unreachable!("the fields of a stage are an object");
        };
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            properties.retain(|field, _| self.fields.contains(&field.as_str()));
            properties.insert(self.discriminator.to_owned(), json!({"const": name, "description": "The method."}));
        }
        let mut document = Map::new();
        document.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
        document.insert("title".to_owned(), name.clone().into());
        document.append(&mut schema);
        (name, document.into())
    }
}

/// The name of a unit variant, as in JSON.
fn name_of(variant: &impl Serialize) -> String {
    match serde_json::to_value(variant) {
        Ok(Value::String(name)) => name,
        other => unreachable!("methods are unit variants, not {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::LayerSettings;

    fn resolved(stage: &str, fields: Value) -> Result<LayerSettings, String> {
        let recipe = json!({ stage: fields }).to_string();
        Recipe::from_json(&recipe).map(|recipe| recipe.resolve("fc1", "Gemm")).map_err(|e| e.to_string())
    }

    fn stages() -> Vec<(&'static str, &'static str, MethodDescription)> {
        let Methods { criteria, quantizers, codecs, .. } = methods();
        let prune = criteria.into_iter().map(|m| ("prune", "criterion", m));
        let quantize = quantizers.into_iter().map(|m| ("quantize", "method", m));
        let encode = codecs.into_iter().map(|m| ("encode", "codec", m));
        prune.chain(quantize).chain(encode).collect()
    }

    #[test]
    fn every_default_in_a_schema_is_what_leaving_the_field_out_means() {
        for (stage, discriminator, method) in stages() {
            let mut fields = json!({ discriminator: method.name });
            let plain = resolved(stage, fields.clone()).unwrap();
            for (name, property) in method.schema["properties"].as_object().unwrap() {
                if let Some(default) = property.get("default") {
                    fields[name] = default.clone();
                }
            }
            assert_eq!(resolved(stage, fields), Ok(plain), "{}", method.name);
        }
    }

    #[test]
    fn the_ends_of_every_range_are_accepted_and_what_lies_beyond_is_not() {
        let mut checked = 0;
        for (stage, discriminator, method) in stages() {
            for (name, property) in method.schema["properties"].as_object().unwrap() {
                let try_value = |value: f64| {
                    let whole = value.fract() == 0.0 && name == "levels";
                    let value = if whole { json!(value as i64) } else { json!(value) };
                    resolved(stage, json!({ discriminator: method.name, name: value }))
                };
                for (key, beyond, inclusive) in [
                    ("minimum", -1.0, true),
                    ("maximum", 1.0, true),
                    ("exclusiveMinimum", -1.0, false),
                    ("exclusiveMaximum", 1.0, false),
                ] {
                    let Some(end) = property.get(key).and_then(Value::as_f64) else { continue };
                    assert_eq!(try_value(end).is_ok(), inclusive, "{} {name} {end}", method.name);
                    assert!(try_value(end + beyond).is_err(), "{} {name} {}", method.name, end + beyond);
                    checked += 1;
                }
            }
        }
        assert!(checked >= 18, "ranges are in the schemas: {checked}");
    }

    #[test]
    fn a_method_lists_its_own_fields_only_and_no_other() {
        let described = methods();
        let cws = &described.quantizers[0];
        assert_eq!((cws.name.as_str(), &cws.schema["additionalProperties"]), ("cws", &json!(false)));
        assert!(cws.schema["properties"].get("tolerance").is_none());
        assert!(described.quantizers[3].schema["properties"].get("tolerance").is_some());
        assert!(!serde_json::to_string(&described).unwrap().contains("$ref"), "schemas stand alone");
    }

    #[test]
    fn all_methods_are_listed() {
        let described = methods();
        let names =
            |methods: &[MethodDescription]| methods.iter().map(|m| m.name.clone()).collect::<Vec<_>>().join(" ");
        assert_eq!(names(&described.criteria), "magnitude lamp wanda obs");
        assert_eq!(names(&described.quantizers), "cws pws uq ecsq");
        assert_eq!(names(&described.codecs), "auto dense csr csc index_map ham sham cser rans mix delta pco");
        assert_eq!(
            described.presets.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(),
            ["lossless", "balanced", "smallest"]
        );
    }
}

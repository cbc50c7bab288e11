//! What recipes are accepted, what they come to, and what is said of those that are not.

use super::*;
use crate::codec::CodecId;
use crate::prune::{Criterion, Prune, Scope, Sparsity};
use crate::quantize::{Bits, Budget, Cws, Ecsq, Levels, Method, Pws, Quantizer, Tolerance};

fn recipe(json: &str) -> Recipe {
    Recipe::from_json(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn refusal(json: &str) -> String {
    Recipe::from_json(json).expect_err(json).to_string()
}

fn sparsity(settings: &LayerSettings) -> Option<f64> {
    settings.prune.map(|prune| prune.sparsity.get())
}

fn levels(count: i64) -> Levels {
    Levels::new(count).unwrap()
}

#[test]
fn the_empty_recipe_loses_nothing() {
    let settings = recipe("{}").resolve("fc1", "Gemm");
    let expected = LayerSettings { skip: false, prune: None, quantize: None, encode: Encode::default() };
    assert_eq!(settings, expected);
    assert_eq!(recipe("{}").to_json(), "{}");
}

#[test]
fn every_field_reaches_the_settings() {
    let settings = recipe(
        r#"{"prune": {"criterion": "magnitude", "sparsity": 0.9, "scope": "global"},
            "quantize": {"method": "pws", "levels": 32, "codebook": "unified"},
            "encode": {"codec": "sham", "goal": "serving", "plain": "f16", "reorder": true, "remove": false, "merge": true, "free_units": "both"},
            "seed": 7}"#,
    )
    .resolve("fc1", "Gemm");
    let expected = LayerSettings {
        skip: false,
        prune: Some(Prune {
            criterion: Criterion::Magnitude,
            sparsity: Sparsity::new(0.9).unwrap(),
            scope: Scope::Global,
            pattern: None,
        }),
        quantize: Some(Quantize {
            quantizer: Quantizer::Pws(Pws { levels: levels(32), seed: 7 }),
            codebook: CodebookScope::Unified,
            rounding: Rounding::Nearest,
            weighting: Weighting::None,
        }),
        encode: Encode {
            codec: CodecChoice::Only(CodecId::Sham),
            goal: Goal::Serving,
            plain: Plain::F16,
            reorder: Some(true),
            remove: Some(false),
            merge: Some(true),
            free_units: Some(FreeUnits::Both),
        },
    };
    assert_eq!(settings, expected);
}

#[test]
fn the_layer_wins_over_the_operator_and_the_operator_over_the_network() {
    let recipe = recipe(
        r#"{"prune": {"sparsity": 0.9, "scope": "global"}, "quantize": {"levels": 32},
            "by_op": {"Conv": {"prune": {"sparsity": 0.5}, "quantize": {"method": "uq"}}},
            "layers": [{"match": "conv*", "prune": {"sparsity": 0.4}}, {"match": "conv2.*", "prune": {"sparsity": 0.3}},
                       {"match": "fc?", "skip": true}, {"match": "fc2", "skip": false}]}"#,
    );
    assert_eq!(sparsity(&recipe.resolve("fc10", "Gemm")), Some(0.9));
    assert_eq!(sparsity(&recipe.resolve("stem", "Conv")), Some(0.5));
    assert_eq!(sparsity(&recipe.resolve("conv1.weight", "Conv")), Some(0.4));
    let conv2 = recipe.resolve("conv2.weight", "Conv");
    assert_eq!(conv2.prune.map(|p| (p.sparsity.get(), p.scope)), Some((0.3, Scope::Global)));
    assert!(matches!(conv2.quantize, Some(Quantize { quantizer: Quantizer::Uq(uq), .. }) if uq.levels == levels(32)));
    let fc1 = recipe.resolve("fc1", "Gemm");
    assert_eq!((fc1.skip, fc1.prune, fc1.quantize), (true, None, None));
    assert_eq!(sparsity(&recipe.resolve("fc2", "Gemm")), Some(0.9));
}

#[test]
fn null_and_none_switch_a_stage_off_for_a_layer() {
    let recipe = recipe(
        r#"{"prune": {"sparsity": 0.9}, "quantize": {}, "by_op": {"Conv": {"prune": null}},
            "layers": [{"match": "fc1", "quantize": "none"}, {"match": "back", "prune": {}}]}"#,
    );
    assert_eq!(recipe.resolve("c", "Conv").prune, None);
    assert_eq!(recipe.resolve("fc1", "Gemm").quantize, None);
    assert_eq!(sparsity(&recipe.resolve("back", "Conv")), Some(0.5), "switched on again, from the defaults");
}

#[test]
fn levels_and_bits_replace_each_other_and_a_tolerance_stays_with_its_method() {
    let recipe = recipe(
        r#"{"quantize": {"method": "ecsq", "bits": 2.5, "tolerance": 0.01},
            "layers": [{"match": "a", "quantize": {"levels": 9}}, {"match": "b", "quantize": {"method": "cws"}}]}"#,
    );
    let quantizer = |name| recipe.resolve(name, "Gemm").quantize.unwrap().quantizer;
    let tolerance = Tolerance::new(0.01).unwrap();
    assert_eq!(quantizer("x"), Quantizer::Ecsq(Ecsq { budget: Budget::Bits(Bits::new(2.5).unwrap()), tolerance }));
    assert_eq!(quantizer("a"), Quantizer::Ecsq(Ecsq { budget: Budget::Levels(levels(9)), tolerance }));
    assert_eq!(quantizer("b"), Quantizer::Cws(Cws { levels: levels(4) }));
}

#[test]
fn a_preset_is_expanded_and_explicit_fields_win() {
    let smallest = recipe(r#"{"preset": "smallest", "prune": {"sparsity": 0.8}, "quantize": null}"#);
    let settings = smallest.resolve("fc1", "Gemm");
    assert_eq!(settings.prune.map(|p| (p.sparsity.get(), p.scope)), Some((0.8, Scope::Global)));
    assert_eq!((settings.quantize, settings.encode.plain), (None, Plain::F16));
    assert!(smallest.to_json().contains(r#""scope":"global""#), "{}", smallest.to_json());
    for preset in Preset::ALL {
        let expanded = Recipe::from(preset);
        assert_eq!(recipe(&expanded.to_json()), expanded);
    }
    let balanced = Recipe::from(Preset::Balanced).resolve("fc1", "Gemm");
    assert_eq!(sparsity(&balanced), Some(0.4));
    assert!(
        matches!(balanced.quantize, Some(Quantize { quantizer: Quantizer::Uq(uq), .. }) if uq.levels == levels(63))
    );
    let lossless = Recipe::from(Preset::Lossless).resolve("fc1", "Gemm");
    assert_eq!((lossless.prune, lossless.quantize, lossless.encode), (None, None, Encode::default()));
}

#[test]
fn json_is_deterministic_and_reads_back() {
    let text = r#"{"prune":{"sparsity":0.9},"quantize":"none","seed":18446744073709551615,"by_op":{"Conv":{"skip":true},"Gemm":{"encode":{"codec":"ham"}}},"layers":[{"match":"4.*","prune":"none"}]}"#;
    let parsed = recipe(text);
    assert_eq!(parsed.to_json(), text);
    assert_eq!(serde_json::to_string(&parsed).unwrap(), text);
    let shuffled = r#"{"by_op":{"Gemm":{"encode":{"codec":"ham"}},"Conv":{"skip":true}},"seed":18446744073709551615,
        "layers":[{"prune":null,"match":"4.*"}],"quantize":null,"prune":{"sparsity":0.9}}"#;
    assert_eq!(recipe(shuffled).to_json(), text);
}

#[test]
fn what_is_wrong_is_named_with_its_field_and_value() {
    let cases = [
        (r#"{"sparsity": 0.5}"#, "sparsity: unknown field `sparsity`, expected one of `preset`, `prune`"),
        (
            r#"{"prune": {"sparsty": 0.5}}"#,
            "prune.sparsty: unknown field `sparsty`, expected one of `criterion`, `sparsity`",
        ),
        (r#"{"prune": {"sparsity": 1.0}}"#, "prune.sparsity: sparsity must be at least 0 and below 1, found 1"),
        (r#"{"prune": {"sparsity": "high"}}"#, "prune.sparsity: invalid type: string \"high\", expected f64"),
        (r#"{"prune": "some"}"#, "prune: invalid value: string \"some\", expected an object, null or \"none\""),
        (
            r#"{"prune": {"criterion": "size"}}"#,
            "prune.criterion: unknown variant `size`, expected one of `magnitude`, `lamp`, `wanda`, `obs`",
        ),
        (r#"{"quantize": {"levels": 0}}"#, "quantize.levels: levels must be 1 to 65535, found 0"),
        (r#"{"quantize": {"levels": 70000}}"#, "quantize.levels: levels must be 1 to 65535, found 70000"),
        (r#"{"quantize": {"levels": -1}}"#, "quantize.levels: levels must be 1 to 65535, found -1"),
        (r#"{"quantize": {"bits": 17}}"#, "quantize.bits: bits must be above 0 and at most 16, found 17"),
        (r#"{"quantize": {"method": "kmeans"}}"#, "quantize.method: unknown variant `kmeans`, expected one of `cws`"),
        (r#"{"encode": {"codec": "zip"}}"#, "encode.codec: unknown variant `zip`, expected one of `dense`"),
        (
            r#"{"by_op": {"Conv": {"quantize": {"levels": 2, "bits": 1}}}}"#,
            "by_op.Conv.quantize: give either levels or bits, not both",
        ),
        (
            r#"{"layers": [{"match": "a"}, {"match": "b", "quantize": {"method": "uq", "tolerance": 0.1}}]}"#,
            "layers[1].quantize: only ecsq has a tolerance",
        ),
        (r#"{"layers": [{"match": "fc[1"}]}"#, "layers[0].match: \"fc[1\" is not a glob"),
        (r#"{"layers": [{"skip": true}]}"#, "layers[0]: missing field `match`"),
        (r#"{"seed": -1}"#, "seed: invalid value: integer `-1`, expected u64"),
        (r#"{} {}"#, "recipe: trailing characters"),
        ("", "recipe: EOF while parsing"),
    ];
    for (json, expected) in cases {
        let found = refusal(json);
        assert!(found.contains(expected), "{json}\n  says {found}\n  not  {expected}");
    }
}

#[test]
fn deep_nesting_is_refused() {
    let deep = format!(r#"{{"prune": {}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert!(Recipe::from_json(&deep).is_err());
}

#[test]
fn rules_that_no_layer_falls_under_are_listed() {
    let recipe = recipe(r#"{"by_op": {"Conv": {}, "Gem": {}}, "layers": [{"match": "fc*"}, {"match": "cf*"}]}"#);
    let layers = [("fc1", "Gemm"), ("c1", "Conv")];
    assert_eq!(recipe.unmatched(layers.into_iter()), ["by_op.Gem", "layers: cf*"]);
}

#[test]
fn wanda_ranks_the_weights_of_one_layer() {
    let error = Recipe::from_json(r#"{"prune": {"criterion": "wanda", "scope": "global"}}"#).unwrap_err();
    assert_eq!(error.to_string(), "prune: wanda compares the weights of one layer, so its scope is tensor or row");
    let rule = r#"{"prune": {"scope": "global"}, "layers": [{"match": "fc*", "prune": {"criterion": "wanda"}}]}"#;
    let settings = Recipe::from_json(rule).unwrap().resolve("fc1", "Gemm");
    assert_eq!(settings.prune.map(|prune| prune.scope), Some(Scope::Tensor));
    // A preset's scope gives way, and what comes of it is a recipe again.
    let preset = recipe(r#"{"preset": "balanced", "prune": {"criterion": "wanda"}}"#);
    assert_eq!(Recipe::from_json(&preset.to_json()), Ok(preset));
    let rules = r#"{"by_op": {"Conv": {"prune": {"criterion": "wanda"}}}, "layers": [
        {"match": "*", "prune": {"scope": "global"}}, {"match": "c1", "prune": {"criterion": "magnitude"}}]}"#;
    let scopes = ["c1", "c2"].map(|name| recipe(rules).resolve(name, "Conv").prune.map(|prune| prune.scope));
    assert_eq!(scopes, [Some(Scope::Global), Some(Scope::Tensor)]);
}

#[test]
fn names_of_methods_are_those_of_the_recipe() {
    for method in Method::ALL {
        let name = serde_json::to_string(&method).unwrap();
        assert!(recipe(&format!(r#"{{"quantize": {{"method": {name}}}}}"#)).resolve("x", "y").quantize.is_some());
    }
}

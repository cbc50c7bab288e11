#!/usr/bin/env python3
"""Reproduces the tables of DeepDTA on DAVIS, dense layers only, each method alone, beside the published figures.

    benches/deepdta_tables.py FOLDER [METHOD ...]

FOLDER holds `models/` and `datasets/` as docs/how-small.md describes them. Convolutions and embeddings are frozen and not
compressed, so psi is of the dense layers. Weights are pruned (by the criterion `obs`) and rounded to the shared values (with
feedback) by what 1,800 samples give each layer; then the shared values (where nothing is shared, the weights that are left) and the
biases are trained on means of samples, which the upload answers. Methods that differ in nothing but the quantiser are one search over all of their settings (`weightpress
search`, exhaustive). For each published row the smallest
psi is taken whose MSE on the validation split is no worse than the published MSE, and measured on the test split. Trials stay in
target/deepdta_tables, so a run that is cut off goes on. Needs Python 3.9 and nothing else.

Published: Marinò, Ghidoli, Frasca, Malchiodi, "Compression strategies and space-conscious representations for deep neural
networks", ICPR 2020 (Pr, CWS, PWS, Pr-CWS, Pr-PWS); Marinò, Petrini, Malchiodi, Frasca, "Deep neural networks compression: a
comparative survey and choice recommendations", Neurocomputing 520, 2023 (unified methods, two rows with pruning: the smallest
psi with no loss, and the best quality).
"""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("WEIGHTPRESS_BIN", str(ROOT / "target/release/weightpress"))
WORK = ROOT / "target/deepdta_tables"
# The upload's MSE on the validation split, times 1.02.
NEAR_UPLOAD = 1.02

# method: family, quantiser, published (MSE, psi) rows
PUBLISHED = {
    "Pr": ("pruned", None, [(0.2425, 0.2)]),
    "CWS": ("per-layer", "cws", [(0.2840, 0.063)]),
    "PWS": ("per-layer", "pws", [(0.2567, 0.237)]),
    "Pr-CWS": ("pruned-per-layer", "cws", [(0.2367, 0.079)]),
    "Pr-PWS": ("pruned-per-layer", "pws", [(0.2671, 0.060)]),
    "uCWS": ("unified", "cws", [(0.2321, 0.1211)]),
    "uPWS": ("unified", "pws", [(0.2581, 0.1217)]),
    "uUQ": ("unified", "uq", [(0.2244, 0.0959)]),
    "uECSQ": ("unified", "ecsq", [(0.2309, 0.1059)]),
    "Pr-uCWS": ("pruned-unified", "cws", [(0.3037, 0.0268), (0.2218, 0.0795)]),
    "Pr-uPWS": ("pruned-unified", "pws", [(0.3187, 0.0159), (0.2269, 0.0875)]),
    "Pr-uUQ": ("pruned-unified", "uq", [(0.2383, 0.0365), (0.2203, 0.0675)]),
    "Pr-uECSQ": ("pruned-unified", "ecsq", [(0.3127, 0.0271), (0.2199, 0.0887)]),
}
SPARSITY = {"pruned": [0.85, 0.9], "pruned-per-layer": [0.8, 0.9], "pruned-unified": [0.8, 0.9, 0.95]}
LEVELS = {"per-layer": [2, 7], "unified": [3, 4], "pruned-per-layer": [7], "pruned-unified": [7]}


def search_of(family):
    """The common recipe and the space of a family of methods."""
    prunes, unifies = "pruned" in family, "unified" in family
    recipe = {
        "by_op": {"Conv": {"skip": True}, "Gather": {"skip": True}},
        "encode": {"plain": "f16"},
        "calibrate": {"samples": 1800},
    }
    space = {"exhaustive": True}
    if prunes:
        recipe["prune"] = {"criterion": "obs", "scope": "global"}
        space["sparsity"] = SPARSITY[family]
    training = {"batch": 128, "mixup": True, "label_weight": 0}
    if family == "pruned":
        recipe["finetune"] = {"epochs": 4, "sharing_epochs": 0, "gradual": 0, "learning_rate": 3e-4, **training}
        return recipe, space
    recipe["quantize"] = {"codebook": "unified" if unifies else "per_layer", "rounding": "feedback"}
    recipe["finetune"] = {"epochs": 0, "sharing_epochs": 4, "sharing_learning_rate": 6e-4, **training}
    space["levels"] = LEVELS[family]
    space["methods"] = ["cws", "pws", "uq", "ecsq"] if unifies else ["cws", "pws"]
    return recipe, space


def data(folder):
    datasets = folder / "datasets"
    return [
        "--data", str(datasets / "deepdta_davis_train.npz"),
        "--validation", str(datasets / "deepdta_davis_val.npz"),
        "--test", str(datasets / "deepdta_davis_test.npz"),
        "--metrics", "mse",
    ]


def run(*arguments):
    done = subprocess.run([PROGRAM, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)}: exit status {done.returncode}")
    return done.stdout


def search(family, work, model, folder):
    """The trials of a family of methods."""
    recipe, space = search_of(family)
    work.mkdir(parents=True, exist_ok=True)
    (work / "recipe.json").write_text(json.dumps(recipe))
    trials = len(space.get("sparsity", [0])) * len(space.get("levels", [0])) * len(space.get("methods", [0]))
    printed = run(
        "search", model, "-o", str(work / "chosen.wp"), *data(folder), "--max-relative-drop", str(NEAR_UPLOAD - 1),
        "--space", json.dumps(space), "--recipe", str(work / "recipe.json"), "--trials", str(trials),
        "--work", str(work / "trials"), "--json",
    )
    return json.loads(printed)["search"]


def main():
    folder = pathlib.Path(sys.argv[1])
    model = str(folder / "models/deepdta_davis.onnx")
    methods = sys.argv[2:] or list(PUBLISHED)
    print("| method | published MSE | psi | ours: psi | of published | MSE validation | MSE test | at 1.02 x the upload: psi | MSE test |")
    print("|---|---|---|---|---|---|---|---|---|")
    searches = {}
    for method in methods:
        family, quantizer, rows = PUBLISHED[method]
        work = WORK / family
        if family not in searches:
            searches[family] = search(family, work, model, folder)
        found = searches[family]
        measured = [
            trial for trial in found["trials"]
            if trial["outcome"]["state"] == "measured"
            and quantizer in (None, (trial["recipe"].get("quantize") or {}).get("method"))
        ]

        def best(worst):
            kept = [trial for trial in measured if trial["outcome"]["value"] <= worst]
            return min(kept, key=lambda trial: trial["outcome"]["psi"], default=None)

        def on_test(trial):
            artifact = str(work / "trials" / f"{trial['number']}.wp")
            return json.loads(run("evaluate", artifact, *data(folder), "--split", "test", "--json"))["metrics"][0]["value"]

        near = best(found["original"] * NEAR_UPLOAD)
        near = f"{near['outcome']['psi']:.4f} | {on_test(near):.4f}" if near else "- | -"
        for mse, psi in rows:
            trial = best(mse)
            if trial is None:
                least = min(trial["outcome"]["value"] for trial in measured)
                print(f"| {method} | {mse:.4f} | {psi:.4f} | none: least MSE {least:.4f} | | | | {near} |", flush=True)
                continue
            point = trial["outcome"]
            print(
                f"| {method} | {mse:.4f} | {psi:.4f} | {point['psi']:.4f} | {point['psi'] / psi:.2f} "
                f"| {point['value']:.4f} | {on_test(trial):.4f} | {near} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

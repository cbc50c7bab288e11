#!/usr/bin/env python3
"""Reproduces the tables of DeepDTA on DAVIS, dense layers only, each method alone, beside the published figures.

    benches/deepdta_tables.py FOLDER [METHOD ...]

FOLDER holds `models/` and `datasets/` as docs/how-small.md describes them. Convolutions and embeddings are frozen and not
compressed, so psi is of the dense layers. Every method is one search over all of its settings (`weightpress search`, exhaustive);
for each published row the smallest psi is taken whose MSE on the validation split is no worse than the published MSE, and measured
on the test split. Trials stay in target/deepdta_tables, so a run that is cut off goes on. Needs Python 3.9 and nothing else.

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

# method: published (MSE, psi) rows
PUBLISHED = {
    "Pr": [(0.2425, 0.2)],
    "CWS": [(0.2840, 0.063)],
    "PWS": [(0.2567, 0.237)],
    "Pr-CWS": [(0.2367, 0.079)],
    "Pr-PWS": [(0.2671, 0.060)],
    "uCWS": [(0.2321, 0.1211)],
    "uPWS": [(0.2581, 0.1217)],
    "uUQ": [(0.2244, 0.0959)],
    "uECSQ": [(0.2309, 0.1059)],
    "Pr-uCWS": [(0.3037, 0.0268), (0.2218, 0.0795)],
    "Pr-uPWS": [(0.3187, 0.0159), (0.2269, 0.0875)],
    "Pr-uUQ": [(0.2383, 0.0365), (0.2203, 0.0675)],
    "Pr-uECSQ": [(0.3127, 0.0271), (0.2199, 0.0887)],
}
SPARSITY = [0.9, 0.95, 0.97, 0.98, 0.99]
LEVELS = [3, 7, 15]
LEVELS_WITHOUT_PRUNING = [2, 3, 4, 7, 15]


def search_of(method):
    """The common recipe and the space of a method."""
    recipe = {
        "by_op": {"Conv": {"skip": True}, "Gather": {"skip": True}},
        "encode": {"plain": "f16"},
        "finetune": {"epochs": 12, "sharing_epochs": 8, "batch": 128},
    }
    prunes, quantizer = method.startswith("Pr"), method.removeprefix("Pr").removeprefix("-")
    space = {"exhaustive": True}
    if prunes:
        recipe["prune"] = {"scope": "global"}
        space["sparsity"] = SPARSITY
    else:
        recipe["finetune"]["epochs"] = 0
    if quantizer:
        scope = "unified" if quantizer.startswith("u") else "per_layer"
        recipe["quantize"] = {"method": quantizer.removeprefix("u").lower(), "codebook": scope}
        space["levels"] = LEVELS if prunes else LEVELS_WITHOUT_PRUNING
    else:
        recipe["finetune"]["sharing_epochs"] = 0
        recipe["finetune"]["epochs"] = 20
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


def main():
    folder = pathlib.Path(sys.argv[1])
    model = str(folder / "models/deepdta_davis.onnx")
    methods = sys.argv[2:] or list(PUBLISHED)
    print("| method | published MSE | psi | ours: psi | of published | MSE validation | MSE test | at 1.02 x the upload: psi | MSE test |")
    print("|---|---|---|---|---|---|---|---|---|")
    for method in methods:
        recipe, space = search_of(method)
        work = WORK / method
        work.mkdir(parents=True, exist_ok=True)
        (work / "recipe.json").write_text(json.dumps(recipe))
        trials = max(1, len(space.get("sparsity", [0]))) * max(1, len(space.get("levels", [0])))
        printed = run(
            "search", model, "-o", str(work / "chosen.wp"), *data(folder), "--max-relative-drop", str(NEAR_UPLOAD - 1),
            "--space", json.dumps(space), "--recipe", str(work / "recipe.json"), "--trials", str(trials),
            "--work", str(work / "trials"), "--json",
        )
        found = json.loads(printed)["search"]
        measured = [trial for trial in found["trials"] if trial["outcome"]["state"] == "measured"]

        def best(worst):
            kept = [trial for trial in measured if trial["outcome"]["value"] <= worst]
            return min(kept, key=lambda trial: trial["outcome"]["psi"], default=None)

        def on_test(trial):
            artifact = str(work / "trials" / f"{trial['number']}.wp")
            return json.loads(run("evaluate", artifact, *data(folder), "--split", "test", "--json"))["metrics"][0]["value"]

        near = best(found["original"] * NEAR_UPLOAD)
        near = f"{near['outcome']['psi']:.4f} | {on_test(near):.4f}" if near else "- | -"
        for mse, psi in PUBLISHED[method]:
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

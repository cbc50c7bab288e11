#!/usr/bin/env python3
"""Reproduces the tables of DeepDTA on DAVIS, dense layers only, each method alone, beside the published figures.

    benches/deepdta_tables.py FOLDER [METHOD ...]

FOLDER holds `models/` and `datasets/` as docs/how-small.md describes them. Convolutions and embeddings are frozen and not
compressed, so psi is of the dense layers. These are trained on the targets, with weights that decay, and pruned on the way (by
`lamp`); then rounded to the shared values with feedback, by what 1,800 samples give each layer; then the shared values and the
biases are trained. Methods share searches (`weightpress search`, exhaustive), which prune and train once what their trials have in
common. For each published row the smallest psi is taken whose MSE on the validation split is no worse than the published MSE, and
measured on the test split. Trials stay in target/deepdta_tables, so a run that is cut off goes on. Needs Python 3.9 and nothing
else.

Published: Marinò, Ghidoli, Frasca, Malchiodi, "Compression strategies and space-conscious representations for deep neural
networks", ICPR 2020 (Pr, CWS, PWS, Pr-CWS, Pr-PWS); Marinò, Petrini, Malchiodi, Frasca, "Deep neural networks compression: a
comparative survey and choice recommendations", Neurocomputing 520, 2023 (unified methods, two rows with pruning: the smallest
psi with no loss, and the best quality).
"""

import json
import math
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("WEIGHTPRESS_BIN", str(ROOT / "target/release/weightpress"))
WORK = ROOT / "target/deepdta_tables"
# The upload's MSE on the validation split, times 1.02.
NEAR_UPLOAD = 1.02

# method: whether it prunes, whether all layers share their values, quantiser, published (MSE, psi) rows
PUBLISHED = {
    "Pr": (True, False, None, [(0.2425, 0.2)]),
    "CWS": (False, False, "cws", [(0.2840, 0.063)]),
    "PWS": (False, False, "pws", [(0.2567, 0.237)]),
    "Pr-CWS": (True, False, "cws", [(0.2367, 0.079)]),
    "Pr-PWS": (True, False, "pws", [(0.2671, 0.060)]),
    "uCWS": (False, True, "cws", [(0.2321, 0.1211)]),
    "uPWS": (False, True, "pws", [(0.2581, 0.1217)]),
    "uUQ": (False, True, "uq", [(0.2244, 0.0959)]),
    "uECSQ": (False, True, "ecsq", [(0.2309, 0.1059)]),
    "Pr-uCWS": (True, True, "cws", [(0.3037, 0.0268), (0.2218, 0.0795)]),
    "Pr-uPWS": (True, True, "pws", [(0.3187, 0.0159), (0.2269, 0.0875)]),
    "Pr-uUQ": (True, True, "uq", [(0.2383, 0.0365), (0.2203, 0.0675)]),
    "Pr-uECSQ": (True, True, "ecsq", [(0.3127, 0.0271), (0.2199, 0.0887)]),
}

# search: whether all layers share their values, and the space
SEARCHES = {
    "pruned": (False, {"sparsity": [0.9, 0.95]}),
    "per-layer": (False, {"levels": [2, 7], "methods": ["cws", "pws"]}),
    "pruned-per-layer": (False, {"sparsity": [0.9], "levels": [7], "methods": ["cws", "pws"]}),
    "unified": (True, {"levels": [3, 4], "methods": ["cws"]}),
    # Layers differ in scale: values that are quantiles or steps of all of them reach only with many, of which few are frequent.
    "unified-wide": (True, {"levels": [6, 9, 15], "methods": ["pws", "uq", "ecsq"]}),
    "pruned-unified": (True, {"sparsity": [0.8, 0.9, 0.97], "levels": [7], "methods": ["cws", "pws"]}),
    "pruned-unified-wide": (True, {"sparsity": [0.7, 0.8, 0.9], "levels": [11, 31], "methods": ["uq", "ecsq"]}),
    "pruned-unified-entropy": (True, {"sparsity": [0.97], "levels": [7], "methods": ["ecsq"]}),
}


def searches_of(prunes, unifies, quantizer):
    """The names of the searches that try a method."""
    return [
        name for name, (is_unified, space) in SEARCHES.items()
        if ("sparsity" in space, is_unified) == (prunes, unifies) and quantizer in space.get("methods", [None])
    ]


def recipe_of(unifies, space):
    """What the trials of a search have in common."""
    recipe = {
        "by_op": {"Conv": {"skip": True}, "Gather": {"skip": True}},
        "encode": {"plain": "f16"},
        "calibrate": {"samples": 1800},
    }
    if "sparsity" in space:
        recipe["prune"] = {"criterion": "lamp", "scope": "global"}
        training = {"epochs": 10, "gradual": 0.3, "batch": 256, "sharing_epochs": 4, "sharing_learning_rate": 2e-4}
    else:
        training = {"epochs": 4, "batch": 128, "sharing_epochs": 8, "sharing_learning_rate": 1e-3}
    if "methods" in space:
        recipe["quantize"] = {"codebook": "unified" if unifies else "per_layer", "rounding": "feedback"}
    recipe["finetune"] = {
        "loss": "mse", "optimizer": "adamw", "weight_decay": 1, "learning_rate": 1e-3, **training,
    }
    return recipe


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


def search(name, model, folder):
    """The trials of a search, each with the file of its artifact."""
    unifies, space = SEARCHES[name]
    work = WORK / name
    work.mkdir(parents=True, exist_ok=True)
    (work / "recipe.json").write_text(json.dumps(recipe_of(unifies, space)))
    trials = math.prod(len(settings) for settings in space.values())
    printed = run(
        "search", model, "-o", str(work / "chosen.wp"), *data(folder), "--max-relative-drop", str(NEAR_UPLOAD - 1),
        "--space", json.dumps({"exhaustive": True, **space}), "--recipe", str(work / "recipe.json"),
        "--trials", str(trials), "--work", str(work / "trials"), "--json",
    )
    found = json.loads(printed)["search"]
    for trial in found["trials"]:
        trial["artifact"] = str(work / "trials" / f"{trial['number']}.wp")
    return found


def main():
    folder = pathlib.Path(sys.argv[1])
    model = str(folder / "models/deepdta_davis.onnx")
    methods = sys.argv[2:] or list(PUBLISHED)
    print("| method | published MSE | psi | ours: psi | of published | MSE validation | MSE test | at 1.02 x the upload: psi | MSE test |")
    print("|---|---|---|---|---|---|---|---|---|")
    found = {}
    for method in methods:
        prunes, unifies, quantizer, rows = PUBLISHED[method]
        measured = []
        for name in searches_of(prunes, unifies, quantizer):
            if name not in found:
                found[name] = search(name, model, folder)
            original = found[name]["original"]
            for trial in found[name]["trials"]:
                method_of_trial = (trial["recipe"].get("quantize") or {}).get("method")
                if trial["outcome"]["state"] == "measured" and quantizer in (None, method_of_trial):
                    measured.append(trial)

        def best(worst):
            kept = [trial for trial in measured if trial["outcome"]["value"] <= worst]
            return min(kept, key=lambda trial: trial["outcome"]["psi"], default=None)

        def on_test(trial):
            printed = run("evaluate", trial["artifact"], *data(folder), "--split", "test", "--json")
            return json.loads(printed)["metrics"][0]["value"]

        near = best(original * NEAR_UPLOAD)
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

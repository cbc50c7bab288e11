"""Time of an epoch of fine-tuning LeNet-5, beside PyTorch, on one thread each and in turns.

    cargo bench --bench finetune --no-run
    python benches/peers/finetune.py MODEL.onnx MNIST.npz [--samples 12800] [--rounds 3]
"""

import argparse
import glob
import json
import os
import pathlib
import statistics
import subprocess
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

ROOT = pathlib.Path(__file__).parent.parent.parent


def ours(args):
    programs = [p for p in glob.glob(str(ROOT / "target/release/deps/finetune-*")) if os.access(p, os.X_OK)]
    if not programs:
        raise SystemExit("build it first: cargo bench --bench finetune --no-run")
    program = max(programs, key=os.path.getmtime)
    command = [program, "--bench", args.model, args.data, str(args.samples)]
    out = subprocess.run(command, env=os.environ | {"RAYON_NUM_THREADS": "1"}, check=True, capture_output=True, text=True)
    return min(json.loads(line)["seconds_per_60000"] for line in out.stdout.splitlines())


def pytorch(args):
    torch.set_num_threads(1)
    data = np.load(args.data)
    x = torch.from_numpy(data["x_train"][: args.samples].reshape(-1, 1, 28, 28))
    y = torch.from_numpy(data["y_train"][: args.samples].astype("int64"))
    net = nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for rows in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows].float() / 255), y[rows]).backward()
            optimizer.step()
        times.append((time.perf_counter() - start) * 60_000 / len(x))
    return min(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--samples", type=int, default=12_800)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rounds = [(pytorch(args), ours(args)) for _ in range(args.rounds)]
    print(f"PyTorch {torch.__version__}, one thread, {args.samples} images; seconds per 60,000")
    print("| round | PyTorch | Weightpress | ratio |\n|---|---|---|---|")
    for number, (theirs, own) in enumerate(rounds):
        print(f"| {number + 1} | {theirs:.1f} | {own:.1f} | {own / theirs:.2f} |")
    print(f"median ratio {statistics.median(own / theirs for theirs, own in rounds):.2f}")


if __name__ == "__main__":
    main()

"""Makes tests/fixtures/finetune_lenet5.json: what PyTorch computes for a few steps of LeNet-5, to be met by ours.

    pip install torch numpy && python tests/peers/make_finetune.py

Weights and images are sines of their index, so that the fixture holds results alone.
"""

import json
import pathlib

import numpy as np
import torch
from torch.nn import functional as F

SHAPES = {
    "conv1.weight": (20, 1, 5, 5), "conv1.bias": (20,), "conv2.weight": (50, 20, 5, 5), "conv2.bias": (50,),
    "fc1.weight": (500, 800), "fc1.bias": (500,), "fc2.weight": (10, 500), "fc2.bias": (10,),
}
SAMPLES, STEPS = 12, 4
OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda groups: torch.optim.Adam(groups, lr=1e-3),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=1e-3),
}


def sines(shape, place, scale):
    i = np.arange(np.prod(shape), dtype=np.float64)
    return torch.tensor((scale * np.sin(0.7 * i * (place + 1) + place)).astype(np.float32)).reshape(shape)


def forward(p, x):
    x = F.max_pool2d(F.relu(F.conv2d(x, p["conv1.weight"], p["conv1.bias"])), 2)
    x = F.max_pool2d(F.relu(F.conv2d(x, p["conv2.weight"], p["conv2.bias"])), 2)
    x = F.relu(F.linear(x.flatten(1), p["fc1.weight"], p["fc1.bias"]))
    return F.linear(x, p["fc2.weight"], p["fc2.bias"])


def run(make):
    p = {}
    for place, (name, shape) in enumerate(SHAPES.items()):
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 100
        p[name] = sines(shape, place, 1.5 / fan_in ** 0.5).requires_grad_()
    x, y = (sines((SAMPLES, 1, 28, 28), 8, 1.0) + 1) / 2, torch.arange(SAMPLES) * 7 % 10
    wide = [t for t in p.values() if t.dim() > 1]
    flat = [t for t in p.values() if t.dim() == 1]
    optimizer = make([{"params": wide, "weight_decay": 1e-2}, {"params": flat, "weight_decay": 0.0}])
    losses, gradients = [], None
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(forward(p, x), y)
        loss.backward()
        losses.append(loss.item())
        gradients = gradients or {name: float(t.grad.double().norm()) for name, t in p.items()}
        torch.nn.utils.clip_grad_norm_(p.values(), 0.1)
        optimizer.step()
    ends = {name: [float(v) for v in t.detach().flatten()[:: max(1, t.numel() // 7)][:7]] for name, t in p.items()}
    return {"losses": losses, "gradient_norms": gradients, "ends": ends}


def main():
    torch.set_num_threads(1)
    result = {"torch": torch.__version__, **{name: run(make) for name, make in OPTIMIZERS.items()}}
    path = pathlib.Path(__file__).parent.parent / "fixtures" / "finetune_lenet5.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

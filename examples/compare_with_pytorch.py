"""A network trained in PyTorch, swept by jaxdist, and every count checked against PyTorch's own forward passes.

Run it with ``python examples/compare_with_pytorch.py``; it needs PyTorch: ``pip install 'jaxdist[torch]'``. The exit
code is 0 where no count differs by more than 2 images, 1 where one does, and 2 without PyTorch.
"""

import sys
import tempfile
from pathlib import Path

import xarray as xr

from jaxdist import data
from jaxdist.compute import devices
from jaxdist.config import DataConfig
from jaxdist.experiment import running
from jaxdist.storage import import_run

try:
    import torch
except ImportError:
    print("PyTorch is not installed; install it with: pip install 'jaxdist[torch]'", file=sys.stderr)
    sys.exit(2)

STEPS = 300
CLOSE = 2  # images: logits that are almost equal may be ordered otherwise by another order of sums


def train(x: torch.Tensor, y: torch.Tensor) -> torch.nn.Sequential:
    """A ReLU network, trained on all images at once."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network


def edited(h: torch.Tensor, family: str, p: float, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """The paper's edits of the preactivations h [N, H]; low and high [H] are the range behind the activation."""
    if family == "scale":
        return p * h
    if family == "clip":
        return torch.minimum(h, low + p * (high - low))
    slope, moved = (high - p * (high - low)) / high, p * (high - low)  # offset: h = high stays where it is
    return slope * h + moved


@torch.no_grad()
def largest_difference(
    network: torch.nn.Sequential, counts: xr.DataArray, family: str, x: torch.Tensor, y: torch.Tensor
) -> int:
    """The most images by which a count of jaxdist's differs from PyTorch's, over all points of a family."""
    h = network[0](x)
    post = network[1](h)
    low, high = post.amin(0), post.amax(0)
    dead = high == 0  # a unit that no image activates is left as it is
    worst = 0
    for p, correct in zip(counts.fraction.values, counts.values, strict=True):
        logits = network[2](network[1](torch.where(dead, h, edited(h, family, float(p), low, high))))
        worst = max(worst, abs(int((logits.argmax(1) == y).sum()) - int(correct)))
    return worst


devices.use_all_cores()
digits = data.load(DataConfig())
x = torch.from_numpy(data.scaled(digits, DataConfig())[0].reshape(-1, 64))
y = torch.tensor(digits.train.labels, dtype=torch.long)
network = train(x, y)

with tempfile.TemporaryDirectory() as folder:
    checkpoint, run = Path(folder) / "mine.pt", Path(folder) / "run"
    torch.save(network.state_dict(), checkpoint)
    # As on the command line: jaxdist import-torch mine.pt --model.activations relu --out run; jaxdist sweep run
    import_run(checkpoint, {"model.activations": "relu", "out": str(run)})
    result = running.sweep_folder(run)

accuracy = float((network(x).argmax(1) == y).float().mean())
print(f"Trained in PyTorch: {100 * accuracy:.1f} % of {len(y)} training images right")
worst = 0
for family in ("scale", "clip", "offset"):
    counts = result[family]["correct"].sel(network="relu", seed=0, site="dense0/pre", split="train")
    difference = largest_difference(network, counts, family, x, y)
    print(f"{family}: {counts.size} points, counts differ by at most {difference} images")
    worst = max(worst, difference)
print("The counts agree." if worst <= CLOSE else f"The counts do not agree: {worst} images, expected at most {CLOSE}.")
sys.exit(0 if worst <= CLOSE else 1)

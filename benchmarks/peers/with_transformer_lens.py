"""Hook points of TransformerLens, whose own models are transformers."""

import torch
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from benchmarks.peers.torch_network import module


class Network(HookedRootModule):
    def __init__(self, network):
        super().__init__()
        self.hidden, _, self.head = module(network)
        self.hook_hidden = HookPoint()
        self.setup()

    def forward(self, x):
        return self.head(torch.relu(self.hook_hidden(self.hidden(x))))


@torch.no_grad()
def scales(network, x, y, factors):
    made, x, y = Network(network), torch.from_numpy(x), torch.from_numpy(y)
    counts = []
    for factor in factors:
        hooks = [("hook_hidden", lambda value, hook, factor=factor: float(factor) * value)]  # noqa: ARG005 (given by its name)
        counts.append(int((made.run_with_hooks(x, fwd_hooks=hooks).argmax(1) == y).sum()))
    return counts

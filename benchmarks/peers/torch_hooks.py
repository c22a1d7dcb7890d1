"""Forward hooks of PyTorch."""

import torch

from benchmarks.peers.torch_network import module


@torch.no_grad()
def scales(network, x, y, factors):
    made, x, y = module(network), torch.from_numpy(x), torch.from_numpy(y)
    counts = []
    for factor in factors:
        hook = made[0].register_forward_hook(lambda _module, _inputs, output, factor=factor: float(factor) * output)
        counts.append(int((made(x).argmax(1) == y).sum()))
        hook.remove()
    return counts

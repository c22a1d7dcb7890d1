"""One peer's job in a process of its own: ``python -m benchmarks.peers.job MODULE FILE REPEATS``; prints JSON."""

import importlib
import json
import sys
import time
from typing import Any

import numpy as np


def main() -> None:
    """Time the import, the first call and later ones of one network, then of the ensemble."""
    name, path, repeats = sys.argv[1:]
    with np.load(path) as file:
        given = dict(file)
    x, y, factors = (given.pop(key) for key in ("x", "y", "factors"))
    networks = list(zip(*given.values(), strict=True))
    started = time.perf_counter()
    peer = importlib.import_module(f"benchmarks.peers.{name}")
    printed: dict[str, object] = {"import_s": time.perf_counter() - started}

    def each_by_itself(networks: Any, *work: np.ndarray) -> list[Any]:
        return [peer.scales(network, *work) for network in networks]

    # An ensemble takes some so long that it is run twice and no more.
    jobs: Any = (
        ("one", peer.scales, networks[0], int(repeats)),
        ("all", getattr(peer, "ensemble", each_by_itself), networks, 1),
    )
    for what, function, given_networks, again in jobs:
        each = []
        for _ in range(again + 1):
            started = time.perf_counter()
            counts = function(given_networks, x, y, factors)
            each.append(time.perf_counter() - started)
        printed |= {f"{what}_first_s": each[0], f"{what}_again_s": float(np.median(each[1:])), what: counts}
    print(json.dumps(printed))


if __name__ == "__main__":
    main()

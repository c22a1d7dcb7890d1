"""Trains and sweeps one small ensemble on meshes of several sizes, in a process of its own with eight CPU devices.

    python -m tests.mesh_support RESULT.npz

The result holds under ``CASE/NAME`` the metrics and counts of each case of `CASES`.
"""

from __future__ import annotations

import sys

import jax
import numpy as np

CASES = {
    # name: (devices, seeds the mesh is made for, seeds)
    "6 on 1": (1, 6, 6),
    "6 on 2": (2, 6, 6),
    "6 on 4": (4, 6, 6),
    "6 on 8": (8, 6, 6),
    "8 seeds' mesh": (8, 8, 6),
    "3 on 1": (1, 3, 3),
    "3 on 8": (8, 3, 3),
}


def main(path: str) -> None:
    """Compute every case."""
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    from jaxdist import data
    from jaxdist.compute import devices
    from jaxdist.config import DataConfig, SweepConfig
    from jaxdist.networks import mlp, training
    from jaxdist.perturbations import families, ranges
    from jaxdist.sweep import ensemble_sweep

    digits = data.load(DataConfig())
    x, _ = data.scaled(digits, DataConfig(normalisation="unit"))
    model, optimizer, site = mlp.model("abs"), training.optimizer("sgd", 0.5), "dense0/pre"
    found: dict[str, np.ndarray] = {}
    for name, (used, made_for, seeds) in CASES.items():
        mesh = devices.make_mesh(jax.devices()[:used], seeds=made_for)
        split = devices.place(x[:301].reshape(301, -1), digits.train.labels[:301], mesh)
        initial = mlp.init_ensemble(jax.random.key(0), range(seeds), (64, 16, 10))
        params, metrics, _ = training.train(model, initial, split, split, steps=60, optimizer=optimizer)
        measured = ranges.measure(model, params, split, (site,))[site]
        grids = {family: families.get(family).grid() for family in families.PAPER}
        made = {site: families.joined(measured, grids, SweepConfig())}
        counts = ensemble_sweep.sweep(model, params, made, split)
        values = {"mesh": np.array(mesh.devices.shape), **metrics._asdict(), **counts._asdict()}
        if seeds % mesh.shape[devices.SEED]:
            values["same"] = ensemble_sweep.matches(model, (params, made), (params, made), (split, split))
        found |= {f"{name}/{key}": value for key, value in values.items()}
    np.savez(path, **found)


if __name__ == "__main__":
    main(sys.argv[1])

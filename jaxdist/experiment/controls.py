"""What the networks of a run read, beside readers of the same activations that have learned nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from jaxdist import files
from jaxdist.analysis import preference, reading
from jaxdist.compute import Show, silent, tuning
from jaxdist.config import Config, StatisticsConfig
from jaxdist.data import Inputs, load_inputs
from jaxdist.errors import InputError
from jaxdist.experiment import running
from jaxdist.formatting import counted
from jaxdist.networks import mlp, models
from jaxdist.perturbations import families
from jaxdist.report import readings
from jaxdist.storage import folders, manifests, places, result_files
from jaxdist.sweep import family_sweeps, fitness, readers, results
from jaxdist.types import Params

PERMUTATIONS, DRAWS = 8, 8
"""Readers with permuted weights, and draws of signs."""


def control_folder(
    folder: Path,
    changes: Mapping[str, str] | None = None,
    *,
    permutations: int = PERMUTATIONS,
    draws: int = DRAWS,
    show: Show = silent,
) -> readings.Findings:
    """Measure what reads a run's last hidden layers, and write curves, tables and a figure of it into its folder.

    Args:
      folder: a run folder, swept or only trained.
      changes: of the config, where the data is and how intervals are made.
      permutations: readers whose output weights are put to other units.
      draws: of the signs that each edit is compared with.
      show: is called with the progress.

    Raises:
      InputError: if the folder is not a run, its data is not the data it was trained on, a change is not allowed, or
        its networks are too few or of another kind.
    """
    for name, value in (("permutations", permutations), ("draws", draws)):
        if value < 1:
            raise InputError(f"{name}: expected at least 1, got {value}")
    with folders.held(folders.with_result(folder)) as folder, contextlib.ExitStack() as stack:
        earlier = result_files.load(folder)
        config = running.changed(earlier, changes or {}, ("data.dir", "statistics.", "compute."))
        stack.enter_context(tuning.using(**config.compute.together))
        _refuse_other_networks(config, len(results.seeds_of(earlier)), folder)
        inputs = load_inputs(config)
        running.check_data(earlier, inputs, folder)
        networks = running.load_trained(config, inputs, folder, earlier).networks
        seeds = [int(seed) for seed in results.seeds_of(earlier)]
        drawn = "origin" not in earlier.attrs  # imported networks began from weights that are not known
        fractions = families.get("collapse_small").grid()
        fractions = fractions[fractions > 0]
        groups = {}
        for name, params in networks.items():
            initial = models.initial(config, inputs, seeds, name) if drawn else None
            groups[name] = _measured(
                config, inputs, name, _readers(config, inputs, seeds, params, initial, permutations), fractions, seeds,
                draws=draws, show=show,
            )  # fmt: skip
        labels = inputs.dataset.test.labels
        curves = xr.DataTree.from_dict(groups)
        curves.attrs = {
            "permutations": permutations,
            "draws": draws,
            "split": "test",
            "total": len(labels),
            "largest": int(np.bincount(labels).max()),
            "weights": json.dumps({name: files.digest(folders.weights_path(folder, name)) for name in networks}),
            "made": results.stage_provenance(),
        }
        findings = analyse(curves, config.statistics)
        with manifests.recording(folder):
            result_files.save(curves, folder / places.CONTROLS / "curves.nc")
            readings.write(findings, folder)
    return findings


def analyse(curves: xr.DataTree, statistics: StatisticsConfig) -> readings.Findings:
    """The readings of curves as `control_folder` keeps them, with intervals as the statistics say.

    Raises:
      InputError: for fewer than two seeds, or networks without a dose.
    """
    frames, read, notes = [], {}, []
    for name, group in curves.children.items():
        data = group.to_dataset()
        own = _contrasts(data)
        frames.append(readings.frame(data, own, str(name)))
        correct = data.correct.sel(reader=readers.TRAINED).to_numpy()
        low = fitness.at_chance(correct, int(curves.attrs["total"]), int(curves.attrs["largest"]))
        if low.any():
            words = fitness.seed_words(data.seed.to_numpy()[low])
            notes.append(f"{name}: {words} at chance on test images: they have learned nothing that could be read.")
        permuted = [k for k, reader in enumerate(data.reader.to_numpy()) if str(reader).startswith(readers.PERMUTED)]
        trained = data.reader.to_numpy().tolist().index(readers.TRAINED)
        x = preference.LogRatio(own.low[trained], own.high[trained])
        y = reading.mean(preference.LogRatio(own.low[permuted], own.high[permuted]), 0)
        lost = np.isnan(np.concatenate([*x, *y])).any(axis=0)
        if lost.any():
            words = fitness.seed_words(data.seed.to_numpy()[lost])
            notes.append(f"{name}: {words} left out, without a dose: activations do not vary, or nothing reads them.")
        if (~lost).sum() < 2:
            raise InputError(
                f"network '{name}': {int(lost.sum())} of {counted(len(lost), 'seed')} have no dose, as where "
                "activations do not vary or nothing reads them; compare a run with at least two others"
            )
        read[str(name)] = reading.read(*(preference.LogRatio(of.low[:, ~lost], of.high[:, ~lost]) for of in (x, y)))
    return readings.Findings(pd.concat(frames, ignore_index=True), read, reading.decide(read), statistics, notes)


def _contrasts(data: xr.Dataset) -> preference.LogRatio:
    """x of every reader, [readers, levels, S]."""
    dims = ("reader", "seed", "edit", "draw", "fraction")
    dose, flips = (data[name].transpose(*dims).to_numpy() for name in ("dose", "flips"))
    return reading.contrasts(list(zip(dose, flips, strict=True)))


def _refuse_other_networks(config: Config, seeds: int, folder: Path) -> None:
    if seeds < 2:
        raise InputError(f"{folder}: readers are compared over seeds, at least 2 of them, but the run has {seeds}")
    for name in config.model.activations:
        model, site = models.model_of(config, name, None), _sites(config)[0]
        try:
            family_sweeps.behind(model, site, "post", readers.FAMILIES)
        except InputError:
            raise InputError(
                f"{folder}: network '{name}' has an activation of which small values are not those near the boundary; "
                "compare runs of networks with relu or abs"
            ) from None
        if config.model.hidden[-1] < 2:
            raise InputError(
                f"{folder}: the last hidden layer has a single unit, whose weights have no other to go to; compare "
                "runs of wider networks"
            )
        if model.after(f"dense{len(config.model.hidden)}/pre") is not None:
            raise InputError(
                f"{folder}: network '{name}' has an activation behind its last layer, so that its output weights are "
                "not all that reads the layer before; compare runs of plain networks, such as relu and abs"
            )


def _sites(config: Config) -> tuple[str, str]:
    """The last hidden layer's preactivations, and its activations."""
    last = len(config.model.hidden) - 1
    return f"dense{last}/pre", f"dense{last}/post"


def _readers(
    config: Config, inputs: Inputs, seeds: list[int], params: Params, initial: Params | None, permutations: int
) -> dict[str, readers.Reader]:
    """What reads a network's layers: itself, with its weights put to other units, and what it was before training."""
    last = f"dense{len(config.model.hidden)}"
    keys = families.keys("permuted readers", seeds, permutations)
    own = mlp.narrow(params, inputs.used)
    made = {readers.TRAINED: readers.Reader(own, readers.TRAINED)}
    made |= {
        f"{readers.PERMUTED} {k + 1}": readers.Reader(readers.permuted(own, last, keys[:, k]), readers.TRAINED)
        for k in range(permutations)
    }
    if initial is not None:
        before = mlp.narrow(initial, inputs.used)
        made[readers.BEFORE] = readers.Reader(before, readers.BEFORE)
        made[readers.FIRST_BEFORE] = readers.Reader({**before, last: own[last]}, readers.BEFORE)
    return made


def _measured(
    config: Config,
    inputs: Inputs,
    name: str,
    made: Mapping[str, readers.Reader],
    fractions: np.ndarray,
    seeds: list[int],
    *,
    draws: int,
    show: Show,
) -> xr.Dataset:
    curves = readers.measure(
        models.model_of(config, name, inputs.background),
        made,
        _sites(config),
        (inputs.splits["train"], inputs.splits["test"]),
        fractions,
        seeds,
        draws=draws,
        tell=lambda done, total, reader: show(f"controls {name}", done, total, reader),
        block=config.compute.block,
    )
    dims = ("reader", "seed", "edit", "draw", "fraction")
    stacked = {field: np.stack([getattr(each, field) for each in curves.values()]) for field in readers.Curves._fields}
    coords = {"reader": list(made), "seed": seeds, "edit": list(readers.EDITS), "fraction": fractions}
    return xr.Dataset({field: (dims[: array.ndim], array) for field, array in stacked.items()}, coords)

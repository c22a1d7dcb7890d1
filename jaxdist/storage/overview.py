"""Run folders at a glance: what each is of, how far it is, and its main numbers; read without loading arrays or JAX.

Numbers come from the attributes and last training step of the result file, answers from the summary beside the tables.
Accuracies and radii are fractions.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jaxdist import config as configs
from jaxdist import files
from jaxdist.errors import DAMAGED, InputError
from jaxdist.perturbations import traits
from jaxdist.registry import FAMILIES
from jaxdist.storage import manifests, places
from jaxdist.version import READABLE, SCHEMA


@dataclasses.dataclass
class Network:
    """What is known of one network's ensemble; accuracies are means over seeds."""

    train_accuracy: float | None = None
    test_accuracy: float | None = None
    answer: str | None = None  # the verdict: distance, intensity or neither
    offset_to: float | None = None  # how far units are offset up before accuracy is lost; None where it is beyond
    offset_beyond: float | None = None  # the end of the grid, where accuracy is kept to it


@dataclasses.dataclass
class Overview:
    """One run folder."""

    folder: str
    state: str = "damaged"  # trained, swept, unfinished, damaged
    problem: str | None = None  # of a damaged one
    progress: dict[str, Any] | None = None  # of an unfinished one: stage, done, of
    data: str | None = None
    seeds: int | None = None
    steps: int | None = None
    unknown: tuple[str, ...] = ()  # config fields that say nothing, since imported networks came without that history
    networks: dict[str, Network] = dataclasses.field(default_factory=dict)
    margin: float | None = None
    date: str = ""  # ISO, UTC: when the last stage was made, or the work last kept something

    @property
    def far(self) -> str:
        """How far an unfinished run is, in at most 10 letters."""
        if self.progress is None:
            return ""
        if self.progress["stage"] == "sweep":
            return "sweeping"
        return f"train {100 * self.progress['done'] // self.progress['of']} %"


def runs(root: Path, sort: str = "date") -> list[Overview]:
    """The runs in a folder and below it, sorted by date, the newest last, or by name.

    Raises:
      InputError: if there is no such folder.
    """
    root = files.expanded(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; pass one that holds run folders, or make a run with 'jaxdist run'")
    overviews = [read(folder) for folder in folders(root)]
    return sorted(overviews, key=lambda overview: (overview.date if sort == "date" else "", overview.folder))


def folders(root: Path) -> Iterator[Path]:
    """The run folders in a folder and below it; what lies in a run folder is no run."""
    for path, below, names in os.walk(root):
        folder = Path(path)
        if places.RESULT in names or _noted(folder).is_file() or ({places.CONFIG} <= set(names) and "weights" in below):
            below.clear()
            yield folder
        below[:] = [name for name in below if not name.startswith(".")]


def read(folder: Path) -> Overview:
    """What is known of one run folder; whatever is wrong with its files is said, not raised."""
    overview = _look(folder)
    # A run that goes on removes files meanwhile: what was missing is damage only if it is so at a second look.
    return _look(folder) if (overview.problem or "").startswith(FileNotFoundError.__name__) else overview


def _look(folder: Path) -> Overview:
    overview = Overview(str(folder))
    result, noted = folder / places.RESULT, _noted(folder)
    try:
        if result.is_file():
            overview.date = _modified(result)
            date = _read_result(result, overview)
            _read_summary(folder / "tables" / places.SUMMARY, date, overview)
        else:
            overview.state = "unfinished"
        if noted.is_file():
            overview.date = _last_modified(noted.parent)
            overview.state, overview.progress = "unfinished", _progress(noted, overview)
        elif not result.is_file():  # killed while it saved, and begun again by the same command
            _take_config(configs.load(folder / places.CONFIG, kept=True), overview)
            overview.date = _modified(folder / places.CONFIG)
    except (OSError, *DAMAGED) as error:
        overview.state, overview.problem = "damaged", f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return overview


def _noted(folder: Path) -> Path:
    return folder / places.UNFINISHED / places.NOTED


def _modified(path: Path) -> str:
    return _said(path.stat().st_mtime)


def _last_modified(folder: Path) -> str:
    """When anything in a folder was last written; a run that goes on removes files while they are looked at."""
    times = []
    for path, below, names in os.walk(folder):
        for name in (*below, *names):
            with contextlib.suppress(FileNotFoundError):
                times.append((Path(path) / name).stat().st_mtime)
    return _said(max(times)) if times else ""


def _said(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _take_config(config: configs.Config, overview: Overview) -> None:
    overview.data, overview.seeds = config.data.name, config.train.seeds
    overview.steps = None if "train.steps" in overview.unknown else config.train.steps
    overview.networks = {name: overview.networks.get(name, Network()) for name in config.model.activations}


def _read_result(path: Path, overview: Overview) -> str:
    """Take what the result file says; returns when its last stage was made, as far as it says."""
    files.check_seal(path)
    with h5py.File(path) as file:
        schema = int(np.ravel(file.attrs.get("schema", 0))[0])
        if schema not in READABLE:
            raise InputError(f"expected a result of schema {SCHEMA}, got {schema or 'none'}")
        swept = [name for name in FAMILIES if name in file]
        swept += [name for name, group in file.items() if traits.is_told(group.attrs, name) and name not in swept]
        overview.state = "swept" if swept else "trained"
        overview.data = str(file.attrs.get("data_name", "")) or None
        dates = [json.loads(group.attrs.get("made", "{}")).get("at", "") for group in file.values() if _is_group(group)]
        last = max(dates, default="")
        overview.date = last or overview.date
        overview.unknown = tuple(json.loads(file.attrs.get("origin", "{}")).get("unknown", ()))
        if "config" in file.attrs:
            config = configs.from_toml(str(file.attrs["config"]), where=path.name, kept=True)
            _take_config(config, overview)
        if "training" in file:
            group = file["training"]
            columns = {name: _last(group[name]) for name in ("train_accuracy", "test_accuracy") if name in group}
            _take(group, columns, overview)
        elif swept:
            group = file[swept[0]]
            _take(group, _unedited_accuracies(group) if "unperturbed" in group else {}, overview)
    return last


def _unedited_accuracies(group: h5py.Group) -> dict[str, np.ndarray]:
    """Means [network] over seeds of each split's accuracy without an edit, as a family's sweep has counted it."""
    right = group["unperturbed"][...]  # -1 where a network lacks a seed
    counted = np.where(right >= 0, right, np.nan)
    shares = np.nanmean(counted, axis=1) / group["total"][...]
    return {f"{split}_accuracy": shares[:, k] for k, split in enumerate(group["split"].asstr()[...])}


def _last(recorded: h5py.Dataset) -> np.ndarray:
    """Means [network] over seeds at the last step that recorded anything, which is nearly always the last."""
    last = recorded[:, :, -1]
    if np.isfinite(last).all():
        return last.mean(1)
    means = np.asarray(recorded[...].mean(1))  # [network, step]
    return np.array([row[np.isfinite(row)][-1] if np.isfinite(row).any() else np.nan for row in means])


def _is_group(item: object) -> bool:
    return isinstance(item, h5py.Group)


def _take(group: h5py.Group, columns: dict[str, np.ndarray], overview: Overview) -> None:
    overview.seeds = len(group["seed"])
    for k, name in enumerate(group["network"].asstr()[...]):
        network = overview.networks.setdefault(str(name), Network())
        for column, values in columns.items():
            if np.isfinite(values[k]):
                setattr(network, column, float(values[k]))


def _read_summary(path: Path, date: str, overview: Overview) -> None:
    """Take the answers, where the summary is of the same stage of the run as the result.

    It need not be there, so a broken one is as none: nothing of it is taken, and the run is not damaged.
    """
    networks = copy.deepcopy(overview.networks)
    try:
        manifests.check_whole(path)
        summary = json.loads(path.read_text(encoding="utf-8"))
        if summary["made"] != date:
            return
        margin = _number(summary["margin"])
        _take_answers(summary, networks)
    except (OSError, *DAMAGED):
        return
    overview.margin, overview.networks = margin, networks


def _take_answers(summary: Mapping[str, Any], networks: dict[str, Network]) -> None:
    for verdict in reversed(summary["verdicts"]):  # of several sites, the first
        if verdict["network"] in networks:
            networks[verdict["network"]].answer = None if verdict["answer"] is None else str(verdict["answer"])
    # As in the summary on the terminal, of train images where they were swept; of several sites, of the first.
    ups = [row for row in summary["tolerance"] if (row["family"], row["side"]) == ("offset", "above")]
    split = "train" if any(row["split"] == "train" for row in ups) else "test"
    for row in reversed([row for row in ups if row["split"] == split]):
        if row["network"] in networks:
            network = networks[row["network"]]
            network.offset_to = _number(row["radius"])
            network.offset_beyond = _number(row["grid_end"]) if row["censored"] else None


def _number(value: Any) -> float | None:
    """A number of a summary, where undefined ones are None; raises `ValueError` or `TypeError` for anything else."""
    if value is None or np.isfinite(value):
        return None if value is None else float(value)
    raise ValueError(f"expected a finite number, got {value}")


def _progress(noted: Path, overview: Overview) -> dict[str, Any]:
    """Where an unfinished run is: updates made of all networks, or sweeping, with the number of parts kept."""
    config = configs.from_dict(tomllib.loads(noted.read_text(encoding="utf-8"))["config"], where=noted.name, kept=True)
    trained_before = overview.seeds if overview.networks else None
    _take_config(config, overview)
    parts = len(list((noted.parent / "sweep").glob("*.npz")))
    done = 0
    for name in config.model.activations:
        states = (noted.parent / "training").glob(f"{name}-*/*")
        done += min(max((int(path.name) for path in states if path.name.isdecimal()), default=0), config.train.steps)
    total = config.train.steps * len(config.model.activations)
    if parts or done == total or trained_before == config.train.seeds:
        return {"stage": "sweep", "done": parts, "of": None}
    return {"stage": "train", "done": done, "of": total}

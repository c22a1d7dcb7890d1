"""Records of results: every array of what a command left, as digests, samples and moments, made and compared."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import lzma
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

FOLDER = Path(__file__).parent / "frozen"

TOLERANCE = 1e-6
"""Of floating-point numbers, as a fraction of the largest magnitude in their array."""

OF_P_VALUES = 1e-5
"""Of p-values in texts, as a fraction of themselves: they change by several times as much as the statistic that they
are of (1.4e-6 on another processor, where no array differed by 1e-6)."""

NOISE = 1e-7
"""What floating-point numbers may differ by however small they are: the angle between equal vectors, in float32."""

INSTRUCTIONS = "--xla_cpu_max_isa=AVX2"
"""What the measured programs are compiled for."""

DEVICES = 2
"""CPU devices that they run on, where there are as many cores: what is added up in other parts is rounded otherwise."""

SAMPLED = {"float": 64, "int": 24}
"""Values that are kept of an array, evenly spaced; all of a smaller one."""

VARYING = {"made", "made_before", "timings", "products"}
"""Attributes that say when, with which versions and on which devices."""

OF_THE_MOMENT = {"made", "jaxdist", "run", "config"}
"""Keys of a JSON document that say when, with which version and where."""


class Sweep(NamedTuple):
    """A sweep of the networks in a frozen run folder, perhaps with its report and verdict."""

    run: str
    options: tuple[str, ...] = ()
    reported: bool = False


RUNS = ("every", "plain", "forms")

SWEEPS = {
    "every": Sweep("every", reported=True),
    "plain-sd": Sweep(
        "plain",
        (
            *("--sweep.families", "scale,clip,offset,shift"),
            *("--sweep.clip_formula", "caption", "--sweep.offset_formula", "literal", "--sweep.dead_units", "nan"),
            *("--ranges.rule", "sd", "--ranges.deviations", "2", "--sweep.splits", "test", "--sweep.units", "true"),
        ),
    ),
    "plain-pre": Sweep(
        "plain",
        (
            *("--sweep.families", "clip,offset,random_offset,clip_both", "--ranges.measured_on", "pre"),
            *("--ranges.rule", "quantile", "--ranges.quantile", "0.05", "--sweep.clip_formula", "text"),
            *("--sweep.offset_formula", "intended", "--sweep.gauges", "averaged", "--sweep.draws", "2"),
            *("--sweep.matched", "0.2", "--sweep.splits", "train", "--compute.block", "100"),
        ),
    ),
    "forms-pre": Sweep(
        "forms",
        (
            *("--sweep.families", "scale,clip,offset,noise", "--ranges.measured_on", "pre", "--sweep.draws", "4"),
            *("--sweep.dose", "true", "--sweep.sensitivity", "true"),
            *("--statistics.margin", "0.05"),
        ),
    ),
}


def command(folder: Path, *arguments: str) -> None:
    """Run a command from within a folder in a process of its own, optimised, on the devices of the records."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {INSTRUCTIONS}"
    with _few_cores():
        done = subprocess.run(
            [sys.executable, "-m", "jaxdist", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise AssertionError(f"jaxdist {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")


@contextlib.contextmanager
def _few_cores() -> Iterator[None]:
    """Within the block, processes that are started have `DEVICES` cores."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:DEVICES])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Array(NamedTuple):
    """A named array as it is read: its dimensions and values, and whether it is a coordinate."""

    dims: tuple[str, ...]
    values: np.ndarray
    coordinate: bool = False


class Group(NamedTuple):
    """A group of a result, or a table: arrays and attributes by name."""

    arrays: Mapping[str, Array]
    attrs: Mapping[str, Any]


def groups_of_result(path: Path) -> dict[str, Group]:
    """The groups of a result file by path, the root too."""
    with xr.open_datatree(path, engine="h5netcdf") as opened:
        result = opened.load()
    return {node.path: _group(node.to_dataset(inherit=False)) for node in result.subtree}


def _group(dataset: xr.Dataset) -> Group:
    arrays = {
        str(name): Array(tuple(map(str, variable.dims)), variable.values, name in dataset.coords)
        for name, variable in dataset.variables.items()
    }
    attrs = {str(name): _plain(str(name), value) for name, value in dataset.attrs.items() if name not in VARYING}
    return Group(arrays, attrs)


def _plain(name: str, value: Any) -> Any:
    """An attribute as JSON has it, a config as its fields."""
    if name == "config":
        return tomllib.loads(value)
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def groups_of_tables(folder: Path) -> dict[str, Group]:
    """The CSV tables of a run folder, columns as arrays."""
    groups = {}
    for path in sorted(folder.glob("tables/*.csv")):
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
        arrays = {str(name): Array(("row",), frame[name].to_numpy()) for name in frame.columns}
        groups[f"tables/{path.name}"] = Group(arrays, {})
    return groups


def texts_of_folder(folder: Path) -> dict[str, str]:
    """The Markdown tables of a run folder, the documents of its commands a line a value, and the names of its files."""
    documents = [folder / "tables" / "summary.json", *folder.glob("*.json")]
    found = {path.name: "\n".join(_lines(json.loads(path.read_text(encoding="utf-8")))) for path in documents}
    found.pop("manifest.json")
    found |= {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("tables/*.md"))}
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return found | {"files": "\n".join(names)}


def _lines(document: Mapping[str, Any]) -> list[str]:
    rest = {key: value for key, value in document.items() if key not in OF_THE_MOMENT}
    return [f"{place}: {value if isinstance(value, str) else json.dumps(value)}" for place, value in _leaves(rest, "")]


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{place}.{key}")
    elif isinstance(value, list) and value:
        for k, inner in enumerate(value):
            yield from _leaves(inner, f"{place}[{k}]")
    else:
        yield place, float(f"{value:.9g}") if isinstance(value, float) else value


class Record(NamedTuple):
    """What is kept of a sweep."""

    groups: Mapping[str, Any]
    """By path: attributes, and by name a line on each array."""
    numbers: np.ndarray
    """The sampled values of all arrays, one after the other."""
    texts: Mapping[str, str]
    made_with: Mapping[str, str]


def surroundings() -> dict[str, str]:
    """What else than jaxdist a last digit depends on."""
    flags = re.search(r"^flags\s*:(.*)$", _text_of("/proc/cpuinfo"), re.MULTILINE)
    wide = sorted(flag for flag in (flags[1].split() if flags else ()) if re.match(r"avx|fma|amx", flag))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    packages = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "numpy", "scipy")}
    return {"machine": " ".join([platform.machine(), *wide]), "devices": str(min(cores, DEVICES)), **packages}


def _text_of(path: str) -> str:
    return Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""


def record_of(groups: Mapping[str, Group], texts: Mapping[str, str]) -> Record:
    """Make the record of some groups and texts."""
    numbers: list[np.ndarray] = []
    kept: dict[str, Any] = {}
    for path, group in groups.items():
        arrays = {}
        for name, array in group.arrays.items():
            line, sample = _line(array)
            arrays[name] = line
            numbers.append(sample)
        kept[path] = {"attrs": group.attrs, "arrays": arrays}
    return Record(kept, np.concatenate(numbers), texts, surroundings())


def _line(array: Array) -> tuple[dict[str, Any], np.ndarray]:
    """What is kept of an array, and its sample, empty for words."""
    values = array.values
    line: dict[str, Any] = {"dims": " ".join(array.dims), "shape": list(values.shape)}
    line |= {"coordinate": True} if array.coordinate else {}
    if values.dtype.kind not in "fiub":
        words = [str(value) for value in values.ravel()]
        return {"kind": "str", **line, "sha256": _sha("\0".join(words).encode(), array)}, np.zeros(0)
    kind = {"f": "float", "i": "int", "u": "int", "b": "bool"}[values.dtype.kind]
    plain = values.ravel().astype(np.float64 if kind == "float" else np.int64)
    sample = plain[_places(plain.size, kind)].astype(np.float64)
    if kind != "float":
        ends = {"sum": int(plain.sum()), "least": int(plain.min(initial=0)), "most": int(plain.max(initial=0))}
        return {"kind": kind, **line, "sha256": _sha(plain.astype("<i8").tobytes(), array), **ends}, sample
    finite = plain[np.isfinite(plain)]
    moments = {"mean": finite.mean(), "sd": finite.std()} if finite.size else {}
    moments |= {"largest": np.abs(finite).max(initial=0)}
    line |= {name: float(f"{value:.9g}") for name, value in moments.items()}
    if finite.size < plain.size:
        line |= {"not_finite": plain.size - finite.size, "sha256": _sha(_classes(plain).tobytes(), array)}
    return {"kind": kind, **line}, sample


def _classes(values: np.ndarray) -> np.ndarray:
    """0 for a finite value, 1 for NaN, 2 and 3 for the infinities."""
    return np.select([np.isnan(values), values == np.inf, values == -np.inf], [1, 2, 3], 0).astype(np.int8)


def _sha(content: bytes, array: Array) -> str:
    return hashlib.sha256(content + json.dumps([array.values.shape, array.dims]).encode()).hexdigest()


def _places(size: int, kind: str) -> np.ndarray:
    """Evenly spaced indices of a flat array, both ends among them."""
    return np.unique(np.linspace(0, size - 1, min(size, SAMPLED.get(kind, SAMPLED["int"]))).astype(np.int64))


class Allowed(NamedTuple):
    """What may differ: values and ends of an array, its sum, its moments, how many of its samples, and lines of a text.

    Of floating-point numbers as fractions of the largest magnitude.
    """

    count: int = 0
    sum: int = 0
    moment: float = TOLERANCE
    wrong: float = 0
    exact: bool = True


EXACT = Allowed()
ROUNDED = Allowed(count=1, sum=3, moment=1e-2, wrong=1 / 16, exact=False)
"""What another processor does, for which a few images that are nearly on a boundary are on its other side."""


def differences(recorded: Record, found: Record, allowed: Allowed = EXACT) -> list[str]:
    """A sentence on each group, array, attribute and text that differs from its record; floats to a tolerance."""
    problems = list(_names("groups", recorded.groups, found.groups))
    recorded_samples, found_samples = (_samples(record) for record in (recorded, found))
    for path in recorded.groups:
        if path not in found.groups:
            continue
        ours, theirs = recorded.groups[path], found.groups[path]
        problems += _names(f"attributes of {path}", ours["attrs"], theirs["attrs"])
        for name in ours["attrs"]:
            if name in theirs["attrs"] and ours["attrs"][name] != theirs["attrs"][name]:
                problems.append(f"{path}: attribute {name} is {theirs['attrs'][name]!r}, was {ours['attrs'][name]!r}")
        problems += _names(f"arrays of {path}", ours["arrays"], theirs["arrays"])
        for name, line in ours["arrays"].items():
            if name in theirs["arrays"]:
                key = (path, name)
                said = _difference(line, theirs["arrays"][name], recorded_samples[key], found_samples[key], allowed)
                problems += [f"{path}/{name}: {said}"] if said else []
    problems += _names("texts", recorded.texts, found.texts)
    for name, text in recorded.texts.items():
        if name in found.texts and (said := _difference_of_texts(text, found.texts[name], allowed)):
            problems.append(f"{name}: {said}")
    return problems


def other_surroundings(recorded: Record, found: Record) -> str:
    """In words, what else than jaxdist is not as it was recorded; empty where nothing is."""
    both = {name: (found.made_with[name], was) for name, was in recorded.made_with.items()}
    return "; ".join(f"{name} {now}, was {was}" for name, (now, was) in both.items() if now != was)


def _names(what: str, recorded: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    if missing := [name for name in recorded if name not in found]:
        yield f"{what}: missing are {', '.join(missing)}"
    if new := [name for name in found if name not in recorded]:
        yield f"{what}: new are {', '.join(new)}"


def _samples(record: Record) -> dict[tuple[str, str], np.ndarray]:
    """The samples of a record's arrays."""
    samples, first = {}, 0
    for path, group in record.groups.items():
        for name, line in group["arrays"].items():
            size = 0 if line["kind"] == "str" else len(_places(math.prod(line["shape"]), line["kind"]))
            samples[path, name] = record.numbers[first : first + size]
            first += size
    return samples


def _difference(
    recorded: Mapping[str, Any], found: Mapping[str, Any], ours: np.ndarray, theirs: np.ndarray, allowed: Allowed
) -> str:
    """In words, how an array differs from its record; empty where it does not."""
    labels = ("kind", "dims", "shape", "coordinate")
    if changed := [label for label in labels if found.get(label) != recorded.get(label)]:
        return "has " + "; ".join(f"{label} {found.get(label)}, was {recorded.get(label)}" for label in changed)
    same, real = found.get("sha256") == recorded.get("sha256"), recorded["kind"] == "float"
    if recorded["kind"] == "str":
        return "" if same else "holds other words"
    said = []
    if allowed.exact and not same:
        said.append("NaN or infinities in other places" if real else "not the same values")
    limit = max(TOLERANCE * recorded["largest"], NOISE) if real else allowed.count
    classes = _classes(ours)
    with np.errstate(invalid="ignore"):
        gaps = np.where((classes == _classes(theirs)) & (classes > 0), 0.0, np.abs(theirs - ours))
    wrong = ~(gaps <= limit)
    if wrong.sum() > allowed.wrong * len(gaps):
        worst = int(np.argmax(np.where(np.isfinite(gaps), gaps, np.inf)))
        place = _places(math.prod(recorded["shape"]), recorded["kind"])[worst]
        where = [int(k) for k in np.unravel_index(place, recorded["shape"])]
        said.append(
            f"{wrong.sum()} of {len(gaps)} sampled values differ, the furthest at {where}: {theirs[worst]:.9g}, was "
            f"{ours[worst]:.9g}"
        )
    moment = max(allowed.moment * recorded["largest"], NOISE) if real else 0.0
    limits = {"sum": allowed.sum, "least": limit, "most": limit, "not_finite": allowed.sum}
    limits |= dict.fromkeys(("mean", "sd", "largest"), moment)
    for name, most in limits.items():
        now, was = found.get(name, 0), recorded.get(name, 0)
        if not abs(now - was) <= most:
            said.append(f"{name} {now:.9g}, was {was:.9g}")
    if said and real:
        said.append(f"allowed are {limit:.1e}")
    return "; ".join(said)


_NUMBER = r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.]*\w)"
_TOKEN = re.compile(rf"{_NUMBER}|[^\s|]+?(?=\s|$|\||{_NUMBER})")
_RULE = re.compile(r"[:|\- ]+")


def _difference_of_texts(recorded: str, found: str, allowed: Allowed) -> str:
    """In words, how a text differs from its record: in words, or in numbers by more than their last digit."""
    ours, theirs = ([line for line in text.splitlines() if not _RULE.fullmatch(line)] for text in (recorded, found))
    said = [] if len(ours) == len(theirs) else [f"{len(theirs)} lines, was {len(ours)}"]
    wrong = [pair for pair in zip(ours, theirs, strict=False) if not _same_line(*pair)]
    if len(wrong) > allowed.wrong * len(ours):
        said.append(f"{len(wrong)} lines differ, first: {wrong[0][1]!r}, was {wrong[0][0]!r}")
    return "; ".join(said)


def _same_line(recorded: str, found: str) -> bool:
    ours, theirs = _TOKEN.findall(recorded), _TOKEN.findall(found)
    tolerance = OF_P_VALUES if re.search(r"\.p(_\w+)?: ", recorded) else TOLERANCE
    same = functools.partial(_same_token, tolerance=tolerance)
    return len(ours) == len(theirs) and all(map(same, ours, theirs))


def _same_token(recorded: str, found: str, tolerance: float) -> bool:
    if recorded == found:
        return True
    if not (re.fullmatch(_NUMBER, recorded) and re.fullmatch(_NUMBER, found)):
        return False
    ours, theirs = Decimal(recorded), Decimal(found)
    last_digit = Decimal(1).scaleb(int(ours.as_tuple().exponent))
    return abs(ours - theirs) <= max(last_digit, abs(ours) * Decimal(tolerance), Decimal("1e-12"))


def measured(name: str, folder: Path) -> Record:
    """Sweep a copy of a frozen run folder within `folder`, report on it if that is wanted, and record what is there."""
    run, options, reported = SWEEPS[name]
    place = shutil.copytree(FOLDER / run, folder / run)
    command(folder, "sweep", run, "--quiet", *options)
    groups, texts = groups_of_result(place / "result.nc"), {}
    if reported:
        command(folder, "report", run, "--quiet", "--json", f"{run}/report.json")
        command(folder, "verdict", run, "--quiet", "--json", f"{run}/verdict.json")
        groups |= groups_of_tables(place)
        texts = texts_of_folder(place)
    return record_of(groups, texts)


def write(name: str, record: Record) -> None:
    """Keep the record of a sweep: what is said of its arrays, an array a line, the samples, and the texts."""
    lines = ["{", f' "made_with": {json.dumps(record.made_with)},']
    for path, group in record.groups.items():
        arrays = ",\n".join(f"  {json.dumps(key)}: {json.dumps(line)}" for key, line in group["arrays"].items())
        attrs = json.dumps(group["attrs"])
        lines.append(f' {json.dumps(path)}: {{"attrs": {attrs}, "arrays": {{\n{arrays}\n }}}},')
    lines[-1] = lines[-1].removesuffix(",")
    (FOLDER / f"{name}.json").write_text("\n".join([*lines, "}"]) + "\n", encoding="utf-8")
    np.savez_compressed(FOLDER / f"{name}.npz", numbers=record.numbers.astype(np.float32))
    if record.texts:
        (FOLDER / f"{name}.texts.xz").write_bytes(lzma.compress(json.dumps(record.texts).encode()))


def read(name: str) -> Record:
    """The record of a sweep."""
    groups = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    made_with = groups.pop("made_with")
    with np.load(FOLDER / f"{name}.npz") as file:
        numbers = file["numbers"].astype(np.float64)
    texts = FOLDER / f"{name}.texts.xz"
    kept = json.loads(lzma.decompress(texts.read_bytes())) if texts.exists() else {}
    return Record(groups, numbers, kept, made_with)

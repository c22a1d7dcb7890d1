"""Where a run's boundaries lie: every number again by NumPy from its weights and images, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jaxdist import cli, config
from jaxdist.config import DataConfig
from jaxdist.data import load
from jaxdist.storage import weights

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def test_every_unit_is_described_as_numpy_does(swept, capsys):
    assert cli.main(["geometry", str(swept), "--json", "g.json"]) == 0
    said = capsys.readouterr().out
    assert "share of examples" in said
    units = pd.read_csv(swept / "geometry" / "units.csv")
    options = config.load(swept / "config.toml")
    networks, seeds = options.model.activations, options.train.seeds
    assert len(units) == 2 * len(networks) * seeds * options.model.hidden[0]
    dataset = load(DataConfig())
    x = dataset.train.images.reshape(len(dataset.train.images), -1).astype(np.float64)
    for network in networks:
        first = weights.load(swept / "weights" / f"{network}.safetensors")["dense0"]
        for seed in range(seeds):
            values = x @ np.asarray(first["weight"][seed], np.float64).T + np.asarray(first["bias"][seed], np.float64)
            part = units.query("network == @network and seed == @seed and when == 'trained'")
            assert part.above.to_numpy() == pytest.approx((values > 0).mean(axis=0), abs=2e-3)
            groups = [values[dataset.train.labels == label] for label in range(10)]
            offsets = np.array([-group.mean(axis=0) / group.std(axis=0) for group in groups])
            nearest = np.abs(offsets).argmin(axis=0)
            assert part.offset.to_numpy() == pytest.approx(offsets[nearest, range(values.shape[1])], abs=1e-3)
            assert part.cluster.to_numpy().tolist() == nearest.tolist()
    summary = pd.DataFrame(json.loads(Path("g.json").read_text())["summary"])
    for row in summary[summary.quantity == "above"].itertuples():
        medians = units[units.network == row.network].groupby(["when", "seed"]).above.median()
        assert row.trained == pytest.approx(medians["trained"].mean())
        assert row.before == pytest.approx(medians["before"].mean())
        assert row.learned == pytest.approx((medians["trained"] - medians["before"]).mean())
    for kind in ("png", "svg"):
        assert (swept / "geometry" / f"geometry.{kind}").stat().st_size > 1000


def test_it_is_told_again_the_same_and_the_rest_of_the_run_stays(swept):
    before = {path: path.read_bytes() for path in sorted(swept.rglob("*.nc"))}
    assert cli.main(["geometry", str(swept), "-q"]) == 0
    first = (swept / "geometry" / "units.csv").read_bytes(), (swept / "geometry" / "geometry.svg").read_bytes()
    assert cli.main(["geometry", str(swept), "-q"]) == 0
    assert first == (
        (swept / "geometry" / "units.csv").read_bytes(),
        (swept / "geometry" / "geometry.svg").read_bytes(),
    )
    assert before == {path: path.read_bytes() for path in sorted(swept.rglob("*.nc"))}
    assert cli.main(["report", str(swept), "-q"]) == 0  # whose manifest still fits
    assert first[0] == (swept / "geometry" / "units.csv").read_bytes()


def test_units_that_are_all_constant_are_told_without_a_figure(swept):
    path = swept / "weights" / "relu.safetensors"
    kept = weights.load(path)
    kept["dense0"] = {"weight": 0 * kept["dense0"]["weight"], "bias": 0 * kept["dense0"]["bias"] - 1}
    weights.save(kept, path)
    (swept / "manifest.json").unlink()
    assert cli.main(["geometry", str(swept), "-q"]) == 0
    units = pd.read_csv(swept / "geometry" / "units.csv").query("when == 'trained'")
    assert units[["above", "mode", "cluster", "offset", "crossed", "distance"]].isna().all(axis=None)
    assert not (swept / "geometry" / "geometry.png").exists()


def test_networks_that_were_imported_have_no_beginning(swept):
    pytest.importorskip("torch")
    assert cli.main(["export-torch", str(swept), "--out", "torch"]) == 0
    assert cli.main(["import-torch", "torch", "--out", "imported"]) == 0
    assert cli.main(["geometry", "imported", "-q", "--json", "g.json"]) == 0
    (first, *_) = json.loads(Path("g.json").read_text())["summary"]
    assert (first["before"], first["learned"]) == (None, None)
    assert 0 < first["trained"] < 1
    units = pd.read_csv("imported/geometry/units.csv")
    assert set(units.when) == {"trained"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere"),
        (["swept", "--statistics.confidence", "2"], "statistics.confidence"),
        (["swept", "--data.dir", "nowhere"], "nowhere"),
        (["swept", "--train.steps", "3"], "--train.steps"),
    ],
)
def test_what_cannot_be_described_is_refused(swept, capsys, words, sentence):
    assert cli.main(["geometry", *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert not (swept / "geometry" / "units.csv").exists()

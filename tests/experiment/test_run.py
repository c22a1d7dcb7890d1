"""A whole small run through the command line: its files, its result, its steps one by one, its printed words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib

import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

import jaxdist
from jaxdist import cli, data, formatting
from jaxdist import config as configs
from jaxdist.analysis import tables
from jaxdist.compute import devices
from jaxdist.networks import mlp
from jaxdist.perturbations import families
from jaxdist.report import pages, summary, writing
from jaxdist.storage import folders, places, weights
from jaxdist.version import SCHEMA
from tests import oracle
from tests.conftest import to_numpy

# As users run it; the comparisons' tests take the same programs.
pytestmark = pytest.mark.usefixtures("optimised")

SMALL = ["--train.seeds", "6", "--train.steps", "40", "--model.hidden", "16"]


@pytest.fixture(autouse=True)
def _keep_the_devices(monkeypatch):
    """The tests have set the number of CPU devices already."""
    monkeypatch.setattr(devices, "use_all_cores", lambda: None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run folder."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "use_all_cores", lambda: None)
        patch.setattr(writing.figures, "FORMATS", ("svg", "png", "pdf"))
        assert cli.main(["run", "--out", str(folder), *SMALL]) == 0
    return folder


@pytest.fixture
def drawn(monkeypatch):
    """Stems of the figures that would be written; the run of the fixture above draws them in earnest."""
    stems = []
    monkeypatch.setattr(writing.figures, "save", lambda figure, folder, stem: stems.append(stem) or [])
    return stems


@pytest.fixture(scope="module")
def result(run):
    return jaxdist.load(run)


def test_a_run_leaves_every_file_and_nothing_else(run):
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    figures = {
        f"figures/figure1{part}.{kind}" for part in ("", "_intensity", "_distance") for kind in ("svg", "png", "pdf")
    }
    found_tables = {f"tables/{name}" for name in ("published.md", "corrected.md", "tolerance.md", "summary.json")}
    found_tables |= {f"tables/{name}.csv" for name in ("points", "tolerance", "tolerance_flips", "training")}
    stored = {"config.toml", "result.nc", "weights/relu.safetensors", "weights/abs.safetensors"}
    assert files == figures | found_tables | stored | {folders.LOCK_FILE, pages.FILE, places.MANIFEST}
    for path in (run / "figures").glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 400


def test_the_resolved_config_is_the_whole_config(run):
    config = configs.load(run / "config.toml")
    assert (config.train.seeds, config.train.steps, config.model.hidden) == (6, 40, (16,))
    assert set(tomllib.loads((run / "config.toml").read_text())) == set(configs.to_dict(config))


def test_the_result_is_labelled_as_documented(result):
    assert isinstance(result, xr.DataTree)
    training = result["training"]
    assert training["loss"].dims == ("network", "seed", "step")
    assert training["loss"].shape == training["test_accuracy"].shape == (2, 6, 41)
    assert list(training.network.values) == ["relu", "abs"]
    for family in map(families.get, families.PAPER):
        group = result[family.name]
        assert group["correct"].dims == group["agree"].dims == ("network", "seed", "site", "split", "fraction")
        assert group["correct"].dtype.kind == group["agree"].dtype.kind == "i"
        np.testing.assert_array_equal(group.fraction, family.grid())
        assert list(group["total"].values) == [1437, 360]
        assert list(group.split.values) == ["train", "test"]
        assert list(group.site.values) == ["dense0/pre"]
    assert result["ranges"]["dead"].dtype == bool


def test_the_swept_networks_are_the_trained_ones(result):
    """Unperturbed counts are the last training accuracies, and the point without edit agrees on every image."""
    for split, name in (("train", "train_accuracy"), ("test", "test_accuracy")):
        group = result["offset"].sel(split=split)
        last = result["training"][name].isel(step=-1)
        np.testing.assert_allclose(group["unperturbed"] / group["total"], last, atol=1.5 / int(group["total"]))
        assert (group["agree"].sel(fraction=0) == group["total"]).all()


def test_the_saved_weights_give_the_saved_counts(run, result, digits):
    """The oracle, from the files alone; a count may differ by one where float32 rounds an exact tie."""
    for network in ("relu", "abs"):
        params = to_numpy(weights.load(run / "weights" / f"{network}.safetensors"))
        one = jax.tree.map(lambda leaf: leaf[4], params)
        images = [split.images.reshape(-1, 64).astype(np.float64) for split in (digits.train, digits.test)]
        for split, x in zip(("train", "test"), images, strict=True):
            labels = getattr(digits, split).labels
            expected = oracle.sweep(one, network, x, labels, ranges_x=images[0])
            for family, (correct, agree, _) in expected.items():
                group = result[family].sel(network=network, seed=4, site="dense0/pre", split=split)
                assert np.abs(group["correct"].values - correct).max() <= 1
                assert np.abs(group["agree"].values - agree).max() <= 1


def test_seeds_start_from_the_same_weights_for_every_activation(run, digits):
    """Before any step the two activations' networks are one: inputs that are never used keep their first weights."""
    never = ~(digits.train.images.any(axis=0) | digits.test.images.any(axis=0)).ravel()
    assert never.any()
    relu, abs_ = (weights.load(run / "weights" / f"{n}.safetensors")["dense0"]["weight"] for n in ("relu", "abs"))
    np.testing.assert_array_equal(relu[:, :, never], abs_[:, :, never])
    assert not np.array_equal(relu, abs_)
    keys = jax.random.fold_in(jax.random.key(0), 0)
    initial = mlp.init_ensemble(keys, range(6), (64, 16, 10))["dense0"]["weight"]
    np.testing.assert_array_equal(relu[:, :, never], initial[:, :, never])


def test_the_result_says_how_it_came_about(result, digits):
    attrs = result.attrs
    assert attrs["schema"] == SCHEMA
    assert attrs["data_digest"] == digits.digest
    assert configs.from_toml(attrs["config"]).train.steps == 40
    for name in result.children:
        made = json.loads(result[name].attrs["made"])
        assert {"jax", "jaxdist", "numpy"} <= set(made["versions"])
        assert made["platform"] == jax.default_backend()
    assert {"train_s", "sweep_s"} <= set(json.loads(attrs["timings"]))
    assert attrs["precision"] == "float32"


@pytest.mark.slow
def test_train_sweep_and_report_one_by_one_make_the_same_result(run, result, tmp_path, capsys, drawn):
    folder = tmp_path / "steps"
    assert cli.main(["train", "--out", str(folder), *SMALL]) == 0
    assert set(jaxdist.load(folder).children) == {"training"}
    assert cli.main(["report", str(folder)]) == 2
    assert "not swept yet; run 'jaxdist sweep" in capsys.readouterr().err
    assert cli.main(["sweep", str(folder)]) == 0
    assert cli.main(["report", str(folder)]) == 0
    again = jaxdist.load(folder)
    for name in result.children:
        xr.testing.assert_equal(again[name].to_dataset(), result[name].to_dataset())
    assert cli.main(["report", str(folder / "result.nc"), "--statistics.margin", "0.02"]) == 0
    assert set(pd.read_csv(folder / "tables" / "tolerance.csv").margin) == {0.02}
    assert configs.load(folder / "config.toml").statistics.margin == 0.02
    assert cli.main(["report", str(folder), "--statistics.margin", "0.01"]) == 0
    assert (folder / "tables" / "points.csv").read_text() == (run / "tables" / "points.csv").read_text()


@pytest.mark.slow
def test_a_second_sweep_replaces_the_first_and_keeps_the_report_true(run, tmp_path, drawn):
    folder = shutil.copytree(run, tmp_path / "again")
    before = pd.read_csv(folder / "tables" / "points.csv")
    assert cli.main(["sweep", str(folder), "--sweep.families", "clip", "--sweep.clip_formula", "caption"]) == 0
    result = jaxdist.load(folder)
    assert set(result.children) == {"training", "unedited", "ranges", "clip"}
    assert configs.from_toml(result.attrs["config"]).sweep.clip_formula == "caption"
    after = pd.read_csv(folder / "tables" / "points.csv")
    assert set(before.family) == {"scale", "clip", "offset"}
    assert set(after.family) == {"clip"}


def test_the_summary_fits_80_columns_and_holds_the_medians(result, capsys):
    from rich.console import Console

    options = configs.Config().statistics
    console = Console(width=summary.WIDTH, record=True)
    console.print(summary.summary(result, options))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    reach = tables.tolerance(result, options)
    chosen = reach[(reach.network == "relu") & (reach.split == "train") & (reach.family == "offset")]
    for row in chosen.itertuples():
        assert any(formatting.radius(row.median, row.grid_end, row.side) in line for line in lines)


def test_the_points_table_holds_every_point_and_agrees_with_the_counts(run, result):
    points = pd.read_csv(run / "tables" / "points.csv")
    assert len(points) == 325 * 2 * 2
    one = points[(points.family == "clip") & (points.network == "abs") & (points.split == "test")]
    group = result["clip"].sel(network="abs", split="test", site="dense0/pre")
    accuracy = (group["correct"] / group["total"]).to_numpy()
    np.testing.assert_allclose(one.accuracy, accuracy.mean(axis=0))
    np.testing.assert_allclose(one.sd, accuracy.std(axis=0))
    drop = (group["unperturbed"].to_numpy()[:, None] - group["correct"].to_numpy()) / 360
    np.testing.assert_allclose(one["drop"], drop.mean(axis=0), atol=1e-12)


def test_the_markdown_has_the_papers_rows(run):
    published = (run / "tables" / "published.md").read_text()
    for title in ("Scale", "Clip", "Offset"):
        assert f"## {title} of dense0/pre, train images" in published
    cells = [
        [cell.strip() for cell in line.split("|")[1:3]] for line in published.splitlines() if line.startswith("| ")
    ]
    for row, point in (("5 %", "4.977 %"), ("75 %", "75.65 %"), ("-200 %", "-200 %"), ("no edit", "0 %")):
        assert cells.count([row, point]) >= 2, "on train and on test"
    assert published.count("| no edit") == 6


def test_a_home_folder_is_understood(tmp_path, monkeypatch, drawn):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--out=~/mine", *SMALL, "--train.steps", "2"]) == 0
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        folders.LOCK_FILE,
        "config.toml",
        "manifest.json",
        "result.nc",
        "weights",
    ]
    assert not (tmp_path / "~").exists()


@pytest.mark.slow
def test_piped_output_is_plain_and_the_command_is_installed(tmp_path):
    """A process of its own: no control characters, the exit code, all from an empty folder."""
    command = [
        sys.executable,
        "-m",
        "jaxdist.cli",
        "train",
        *SMALL,
        "--train.steps",
        "3",
        "--model.activations",
        "relu",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert "train relu: 3/3" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert (tmp_path / "runs" / "quickstart" / "result.nc").exists()


def test_python_does_the_same_as_the_command_line(tmp_path, result, drawn):
    changes = {"out": str(tmp_path / "api"), "train.seeds": "6", "train.steps": "40", "model.hidden": "16"}
    ours = jaxdist.run(configs.override(jaxdist.Config(), changes))
    xr.testing.assert_equal(ours["offset"].to_dataset(), result["offset"].to_dataset())


@pytest.mark.slow
def test_two_hidden_layers_are_swept_each_by_itself(tmp_path, drawn):
    folder = tmp_path / "deep"
    deep = ["--model.hidden", "16,8", "--train.seeds", "2", "--train.steps", "3", "--model.activations", "abs"]
    deep += ["--sweep.families", "clip", "--sweep.splits", "train"]
    assert cli.main(["run", "--out", str(folder), *deep]) == 0
    result = jaxdist.load(folder)
    assert list(result["clip"].site.values) == ["dense0/pre", "dense1/pre", "all"]
    assert result["ranges"]["low"].shape == (1, 2, 2, 16)
    assert np.isnan(result["ranges"]["low"].sel(site="dense1/pre")).sum() == 2 * 8
    assert "figure1-dense1_pre" in drawn


@pytest.mark.slow
def test_networks_of_any_activation_and_form_run_side_by_side(tmp_path, capsys, drawn):
    folder, names = tmp_path / "kinds", ["gelu", "abs2_neg", "prelu"]
    kinds = ["--model.activations", ",".join(names), "--train.seeds", "2", "--train.steps", "3", "--model.hidden", "8"]
    assert cli.main(["run", "--out", str(folder), *kinds, "--sweep.families", "clip", "--sweep.splits", "train"]) == 0
    result = jaxdist.load(folder)
    group = result["clip"].sel(split="train")
    assert list(group.network.values) == names
    assert (group["agree"].sel(fraction=1, method="nearest") >= group["total"] - 2).all()
    last = result["training"]["train_accuracy"].isel(step=-1)
    np.testing.assert_allclose(group["unperturbed"].squeeze() / group["total"], last, atol=1.5 / int(group["total"]))
    stored = {name: weights.load(folders.weights_path(folder, name)) for name in names}
    assert set(stored["prelu"]["dense0"]) == {"weight", "bias", "slope"}
    assert stored["prelu"]["dense0"]["slope"].shape == (2,)
    assert set(stored["abs2_neg"]["dense1"]) == {"weight"}
    # The weights are read back, each network's in its own layout, and only linear layers go to PyTorch.
    assert cli.main(["sweep", str(folder), "--sweep.families", "scale", "--sweep.splits", "train"]) == 0
    assert cli.main(["export-torch", str(folder), "--out", str(tmp_path / "torch")]) == 2
    assert "network 'prelu' has slope besides weights and biases" in capsys.readouterr().err
    assert not (tmp_path / "torch").exists()


def test_data_prepared_by_the_command_is_found_by_name(tmp_path, monkeypatch, digits):
    """IDX files -> prepared TFDS set -> the same digest, through the commands a user types."""
    folder = tmp_path / "idx"
    folder.mkdir()
    for stem, split in (("train", digits.train), ("t10k", digits.test)):
        for kind, code, array in (("images-idx3", 3, split.images), ("labels-idx1", 1, split.labels.astype(np.uint8))):
            header = bytes([0, 0, 8, code]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            (folder / f"{stem}-{kind}-ubyte").write_bytes(header + array.tobytes())
    assert cli.main(["data", "prepare", "small_digits", "--from", str(folder), "--to", str(tmp_path / "tfds")]) == 0
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    assert data.load(configs.DataConfig(name="small_digits")).digest == digits.digest

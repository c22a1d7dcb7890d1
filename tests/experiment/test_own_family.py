"""A family of one's own from a config to tables and page, and reports without its module."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pandas as pd
import pytest

import jaxdist
from jaxdist import cli, registry
from jaxdist.perturbations import families
from jaxdist.sweep import results
from tests.page_support import ROOT

pytestmark = pytest.mark.slow

NAMED = "--sweep.families=scale,own_family:family"
SMALL = ["--train.seeds=2", "--train.steps=30", "--model.hidden=16", "--sweep.dose=true", "-q"]


def forget():
    """As another process has it."""
    families.ALL.pop("squeeze", None)
    registry.FAMILIES.pop("squeeze", None)
    families.REGISTER.references.clear()
    sys.modules.pop("own_family", None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run whose sweep has the example's family, in a folder without the example."""
    here, there = tmp_path_factory.mktemp("with_module"), tmp_path_factory.mktemp("without")
    shutil.copy(ROOT / "examples" / "own_family.py", here)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert cli.main(["run", "--out", str(there / "run"), NAMED, "--sweep.units=true", *SMALL]) == 0
    forget()
    return there / "run"


@pytest.fixture
def elsewhere(folder, monkeypatch):
    """Where there is no such module."""
    forget()
    monkeypatch.chdir(folder.parent)
    yield folder
    forget()


def test_the_result_holds_the_family_under_its_own_name(folder):
    result = jaxdist.load(folder)
    assert result["squeeze"].attrs["text"].startswith("every unit is pulled to the middle")
    assert {"squeeze", "units_squeeze"} <= set(result.children)
    assert results.config_of(result).sweep.families == ("scale", "own_family:family")
    group = result["squeeze"]
    # At p = 0 nothing is edited.
    unperturbed = group.unperturbed.transpose("network", "seed", "split").to_numpy()
    np.testing.assert_array_equal(group.correct[..., 0], unperturbed[:, :, None])
    assert (group.agree[..., -1] < group.total).all()


def test_reports_need_no_module(elsewhere, capsys):
    for made in ("tables", "figures"):
        shutil.rmtree(elsewhere / made)
    assert cli.main(["report", str(elsewhere)]) == 0
    assert "squeezed by" in capsys.readouterr().out
    assert "own_family" not in sys.modules
    frame = pd.read_csv(elsewhere / "tables" / "tolerance.csv")
    assert set(frame[frame.family == "squeeze"].edit) == {"squeezed by"}
    assert "squeezed by" in (elsewhere / "tables" / "tolerance.md").read_text(encoding="utf-8")
    assert "squeezed by" in (elsewhere / "tables" / "verdict.md").read_text(encoding="utf-8")
    assert "squeeze" in pd.read_csv(elsewhere / "tables" / "units.csv").family.unique()
    for name in ("figure1_further", "doses", "units"):
        assert (elsewhere / "figures" / f"{name}.svg").is_file()
    page = (elsewhere / "report.html").read_text(encoding="utf-8")
    assert "Squeezed by" in page
    assert "squeeze: towards the middle" in page
    summary = json.loads((elsewhere / "tables" / "summary.json").read_text(encoding="utf-8"))
    assert "squeeze" in {row["family"] for row in summary["tolerance"]}


def test_other_commands_that_read_need_no_module(elsewhere, capsys):
    assert cli.main(["list", str(elsewhere.parent)]) == 0
    assert "swept" in capsys.readouterr().out
    assert cli.main(["verdict", str(elsewhere)]) == 0
    assert cli.main(["compare", str(elsewhere), str(elsewhere)]) == 0
    assert "own_family" not in sys.modules


def test_a_sweep_of_the_folder_asks_for_the_option_again(elsewhere, capsys):
    assert cli.main(["sweep", str(elsewhere), "-q"]) == 2
    error = capsys.readouterr().err
    assert "whose module is imported only on request" in error
    assert "--sweep.families scale,own_family:family" in error
    assert cli.main(["sweep", str(elsewhere), "-q", NAMED]) == 2
    assert "'own_family:family' cannot be imported; put a module own_family" in capsys.readouterr().err


def test_a_sweep_that_is_given_the_option_imports_the_module(elsewhere, monkeypatch):
    before = jaxdist.load(elsewhere)["squeeze"].correct
    monkeypatch.chdir(ROOT / "examples")
    assert cli.main(["sweep", str(elsewhere), "-q", NAMED]) == 0
    np.testing.assert_array_equal(jaxdist.load(elsewhere)["squeeze"].correct, before)


def test_a_config_that_names_what_is_no_family_exits_with_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for reference, message in (
        ("os:path", "'os:path' is a module; expected a jaxdist.perturbations.Family"),
        ("os:pathh", "the module os has no 'pathh'"),
        ("no_edits:family", "'no_edits:family' cannot be imported"),
        ("jaxdist.perturbations.paper_families:SCALE", "family 'scale' is named twice"),
    ):
        (tmp_path / "own.toml").write_text(f'[sweep]\nfamilies = ["scale", "{reference}"]\n', encoding="utf-8")
        assert cli.main(["run", "own.toml", "--out", "run", *SMALL]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not (tmp_path / "run").exists()


def test_probe_takes_a_record_its_name_or_a_reference_and_finds_the_same(monkeypatch):
    monkeypatch.chdir(ROOT / "examples")
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    weights = {"a": x[:5].T @ x[:5], "b": np.eye(5, 3, dtype=np.float32)}

    def apply(params, x, tap):
        return jax.nn.relu(tap("h", x @ params["a"])) @ params["b"]

    def probed(family):
        y = np.arange(60) % 3
        return jaxdist.probe(apply, weights, train=(x, y), post={"h": jax.nn.relu}, families=("scale", family))

    by_reference = probed("own_family:family")
    record = families.get("squeeze")
    by_name = probed("squeeze")
    forget()
    by_record = probed(record)
    for result in (by_name, by_record):
        np.testing.assert_array_equal(result["squeeze"].correct, by_reference["squeeze"].correct)
    assert results.options_of(by_record).sweep.families == ("scale", "squeeze")
    forget()
    jaxdist.show(by_record)


def test_another_process_shows_a_probe_without_the_module(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT / "examples")
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    weights = {"b": np.eye(4, 3, dtype=np.float32)}

    def apply(params, x, tap):
        return jax.nn.relu(tap("h", x)) @ params["b"]

    out = tmp_path / "probed"
    given = {"train": (x, np.arange(40) % 3), "post": {"h": jax.nn.relu}, "out": out}
    jaxdist.probe(apply, weights, families=("own_family:family",), **given)
    code = f"import jaxdist; jaxdist.show(jaxdist.load({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "squeezed by" in done.stdout


def test_a_run_with_another_optimiser_is_extended_with_the_same_and_refuses_others(tmp_path, capsys):
    optimizer = '--train.optimizer={name = "adamw", weight_decay = 1e-4}'
    small = ["--train.steps=20", "--model.hidden=8", "--sweep.families=clip", "--sweep.splits=test", "-q"]
    run = ["run", "--out", str(tmp_path / "run"), *small]
    with jax.numpy_dtype_promotion("standard"):  # optax multiplies numbers by counts of steps
        assert cli.main([*run, optimizer, "--train.seeds=1"]) == 0
        assert cli.main([*run, optimizer, "--train.seeds=2"]) == 0
    assert results.config_of(jaxdist.load(tmp_path / "run")).train.optimizer.name == "adamw"
    assert cli.main([*run, "--train.seeds=2"]) == 2
    assert "train.optimizer" in capsys.readouterr().err

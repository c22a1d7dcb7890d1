"""What a user sees stays as it was recorded: every array of some sweeps, the training, the help, the error sentences.

Nothing here knows jaxdist's modules: commands are run, and what they leave and print is compared with the files in
`tests/frozen`, which `tests/frozen/record.py` writes and says when.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import load_file

from tests import frozen_cases, frozen_support

pytestmark = [
    pytest.mark.slow,
    # The tests have set another number of CPU devices than commands do.
    pytest.mark.filterwarnings("ignore:JAX is already in use"),
]

ALLOWED = {"loss": 1e-3, "train_accuracy": 2 / 1437, "test_accuracy": 2 / 360}
"""What training may differ by where it rounds otherwise: accuracies by two images."""


def fail(title: str, problems: list[str]) -> None:
    """Fail with all problems, if there are any."""
    if problems:
        pytest.fail("\n  ".join([f"{title}: {len(problems)} differences", *problems]), pytrace=False)


@pytest.mark.parametrize("name", frozen_support.SWEEPS)
def test_every_array_that_is_measured_is_the_recorded_one(name, tmp_path):
    recorded, found = frozen_support.read(name), frozen_support.measured(name, tmp_path)
    problems = frozen_support.differences(recorded, found)
    if problems and (other := frozen_support.other_surroundings(recorded, found)):
        fail(f"{name}, with {other}", frozen_support.differences(recorded, found, frozen_support.ROUNDED))
        pytest.skip(f"{name} is as recorded but for rounding, with {other}, in {len(problems)} arrays or texts")
    fail(name, problems)


def record(**changes):
    """The record of a made-up group, some arrays of which are others."""
    counts, doses = np.arange(1000).reshape(10, 100), np.linspace(0, 3, 500)
    doses[7], doses[9] = np.nan, np.inf
    arrays = {"counts": counts, "doses": doses, "names": np.array(["relu", "abs"]), "dead": np.eye(4, dtype=bool)}
    arrays |= changes
    dims = {1: ("x",), 2: ("y", "x")}
    labelled = {name: frozen_support.Array(dims[values.ndim], values) for name, values in arrays.items()}
    text = "| relu | 0.25 ± 0.1 |\n|:--|--:|\nat 12 of 30"
    return frozen_support.record_of({"/clip": frozen_support.Group(labelled, {"draws": 2})}, {"a.md": text})


def changed(values, place, value):
    """A copy with another value somewhere."""
    other = values.copy()
    other[place] = value
    return other


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"counts": changed(np.arange(1000).reshape(10, 100), (3, 17), 318)}, "sum 499501, was 499500"),
        ({"counts": np.arange(1000).reshape(100, 10)}, "has shape [100, 10], was [10, 100]"),
        ({"counts": np.arange(1000.0).reshape(10, 100)}, "has kind float, was int"),
        ({"names": np.array(["relu", "gelu"])}, "holds other words"),
        ({"dead": ~np.eye(4, dtype=bool)}, "sum 12, was 4"),
        ({"more": np.zeros(3)}, "arrays of /clip: new are more"),
    ],
)
def test_what_differs_from_a_record_is_named_with_by_how_much(changes, said):
    (problem,) = frozen_support.differences(record(), record(**changes))
    assert said in problem


def test_numbers_may_differ_by_rounding_alone():
    doses = np.linspace(0, 3, 500)
    doses[7], doses[9] = np.nan, np.inf
    assert not frozen_support.differences(record(), record(doses=doses + 2e-6))
    (problem,) = frozen_support.differences(record(), record(doses=doses + 5e-6))
    assert "sampled values differ" in problem
    (problem,) = frozen_support.differences(record(), record(doses=changed(doses, 8, np.nan)))
    assert "NaN or infinities in other places" in problem


@pytest.mark.parametrize(
    ("text", "differs"),
    [
        ("| relu | 0.26 ± 0.2 |\n|:-----|----:|\nat 12 of 30", False),
        ("| relu   | 0.25 ± 0.1 |\n|:--|--:|\nat 12 of 30", False),
        ("| relu | 0.27 ± 0.1 |\n|:--|--:|\nat 12 of 30", True),
        ("| abs | 0.25 ± 0.1 |\n|:--|--:|\nat 12 of 30", True),
        ("| relu | 0.25 ± 0.1 |\n|:--|--:|\nat 12 of 30\nmore", True),
    ],
)
def test_numbers_in_texts_may_differ_by_their_last_digit(text, differs):
    found = record()._replace(texts={"a.md": text})
    assert bool(frozen_support.differences(record(), found)) == differs


@pytest.fixture(scope="module", params=frozen_support.RUNS)
def trained(request, tmp_path_factory):
    """A frozen run folder, and the one that its config makes now."""
    folder = tmp_path_factory.mktemp("trained")
    frozen_support.command(folder, "train", str(frozen_support.FOLDER / f"{request.param}.toml"), "--quiet")
    return frozen_support.FOLDER / request.param, folder / request.param


def test_a_config_trains_to_the_recorded_curves(trained):
    kept, made = (xr.load_dataset(folder / "result.nc", group="training", engine="h5netcdf") for folder in trained)
    assert set(made.variables) == set(kept.variables)
    problems = [f"{name}: is not the same" for name in kept.coords if not made[name].identical(kept[name])]
    for name in kept.data_vars:
        gap = float(np.abs(made[name] - kept[name]).max())
        if made[name].dims != kept[name].dims or not gap <= ALLOWED[name] + 1e-6:
            problems.append(f"{name}: differs by {gap:.2g} at most, its dimensions are {made[name].dims}")
    fail(trained[0].name, problems)


def test_a_trained_folder_holds_the_recorded_files(trained):
    kept, made = (files(folder) for folder in trained)
    assert made == kept | {".lock"}
    # The networks were kept by a version that had two options more.
    kept_lines = (trained[0] / "config.toml").read_text().splitlines()
    removed = ("scale_shortcut = false", "refine = false")
    assert (trained[1] / "config.toml").read_text().splitlines() == [line for line in kept_lines if line not in removed]


def test_trained_weights_have_the_recorded_names_and_shapes_and_about_the_values(trained):
    for path in sorted((trained[0] / "weights").iterdir()):
        kept, made = load_file(path), load_file(trained[1] / "weights" / path.name)
        labels = [{name: (tensor.dtype, tensor.shape) for name, tensor in each.items()} for each in (made, kept)]
        assert labels[0] == labels[1], path.name
        # Along training, another step may have been the first above a threshold.
        for name in kept if "snapshots" not in path.name else ():
            np.testing.assert_allclose(made[name], kept[name], atol=0.01, err_msg=f"{path.name}, {name}")


def files(folder: Path) -> set[str]:
    """The names of all files in a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse lays help out otherwise in other Python versions")
def test_help_is_the_recorded_text():
    kept, found = frozen_cases.kept_help(), frozen_cases.help_texts()
    assert list(found) == list(kept)
    for words, text in kept.items():
        assert found[words] == text, words


def test_help_names_every_command_that_is_recorded():
    listed = frozen_cases.answer("--help").out.partition("commands:\n")[2].partition("\n\n")[0]
    assert {line.split()[0] for line in listed.splitlines()} == set(frozen_cases.COMMANDS)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Run folders that cases copy."""
    jax.devices()  # before a command sets their number
    folder = tmp_path_factory.mktemp("bases")
    frozen_cases.make_bases(folder)
    return folder


@pytest.fixture(scope="module")
def kept_sentences():
    return frozen_cases.kept_sentences()


def test_every_sentence_is_of_a_case(kept_sentences):
    assert list(kept_sentences) == list(frozen_cases.CASES)


@pytest.mark.parametrize("name", frozen_cases.CASES)
def test_wrong_input_is_answered_with_the_recorded_sentence(name, bases, tmp_path, kept_sentences):
    if name in frozen_cases.NEED_TORCH and not importlib.util.find_spec("torch"):
        pytest.skip("PyTorch is an optional extra: pip install 'jaxdist[torch]'")
    found = frozen_cases.said(frozen_cases.CASES[name], bases, tmp_path)
    assert found.err == kept_sentences[name]
    assert found.code == 2

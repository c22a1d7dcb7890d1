"""Bad input on the command line: one sentence, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxdist import cli
from jaxdist.cli import parser
from jaxdist.errors import InputError
from jaxdist.experiment import planning
from jaxdist.storage import weights as stored

SMALL = ["--train.seeds", "2", "--train.steps", "2", "--model.hidden", "8", "--model.activations", "relu"]


pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def idx(array):
    code = {1: 1, 3: 3}[array.ndim]
    kinds = {np.dtype(np.uint8): 8, np.dtype(np.float32): 13}
    header = bytes([0, 0, kinds[array.dtype], code]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def images(tmp_path):
    """A good folder of IDX files, for the tests to break."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for stem, count in (("train", 40), ("t10k", 20)):
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 255, (count, 4, 4), np.uint8)))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8) % 10))
    return folder


def refused(capsys, *arguments, message):
    """Run the command; check code and sentence, and that it wrote nothing."""
    assert cli.main([*map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("jaxdist: ")
    assert captured.err.count("\n") == 1, "one line"
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not Path("out").exists()
    return captured.err


def run_on(images, *more):
    return ("run", "--data.name", "mnist", "--data.dir", images, "--out", "out", *SMALL, *more)


def test_the_good_folder_is_good(images):
    assert cli.main(["train", *map(str, run_on(images)[1:])]) == 0


def test_unknown_config_key(capsys, tmp_path):
    (tmp_path / "c.toml").write_text("[train]\nlearning_rat = 0.1\n")
    refused(
        capsys,
        "run",
        "c.toml",
        "--out",
        "out",
        message="unknown key 'train.learning_rat'; did you mean 'learning_rate'?",
    )


@pytest.mark.parametrize("command", ["run", "train", "plan"])
@pytest.mark.parametrize("option", ["train.seeds", "model.hidden"])
def test_networks_that_no_memory_holds_are_refused_before_anything_is_made(images, capsys, command, option):
    message = refused(
        capsys, command, *run_on(images)[1:], f"--{option}", 10**12, message="more than this machine's memory of "
    )
    assert message.startswith("jaxdist: train.seeds, model.hidden: training ")


@pytest.mark.slow
def test_a_refused_sweep_leaves_nothing_in_the_way_of_the_one_that_its_sentence_names(images, capsys):
    words = [str(word) for word in run_on(images, "--model.activations", "tanh")[1:]]
    assert cli.main(["train", *words]) == 0
    capsys.readouterr()
    assert cli.main(["sweep", "out"]) == 2
    assert "network 'tanh', site 'dense0/pre'" in (message := capsys.readouterr().err)
    assert "use measured_on 'pre'" in message
    assert not Path("out/unfinished").exists()
    assert cli.main(["sweep", "out", "--ranges.measured_on", "pre"]) == 0


def test_a_collapse_that_training_shows_to_mean_nothing_loses_no_training(images, capsys):
    words = run_on(images, "--model.activations", "prelu", "--sweep.families", "collapse_small")
    assert cli.main([*map(str, words)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("jaxdist: network 'prelu', site 'dense0/pre': collapse_small takes small activations for ")
    assert said.endswith("kept, so pass that to 'jaxdist sweep out', then run 'jaxdist report out'\n")
    assert cli.main(["sweep", "out", "--sweep.families", "offset"]) == 0


def test_an_option_without_its_section_is_known(capsys):
    refused(capsys, "run", "--steps", "3", message="unknown option '--steps'; did you mean '--train.steps'?")
    refused(capsys, "run", "--nothing-like-it", message="unknown option '--nothing-like-it'; see 'jaxdist run --help'")


def test_quiet_may_come_first_and_a_dry_run_is_a_plan(images, capsys, monkeypatch):
    assert cli.main(["-q", *map(str, run_on(images))]) == 0
    assert capsys.readouterr().out == ""
    planned = []
    monkeypatch.setattr(planning, "plan", lambda config, devices: planned.append(config) or sys.exit(0))
    with pytest.raises(SystemExit):
        cli.main([*map(str, run_on(images, "--dry-run", "--quiet"))])
    assert planned[0].data.dir == str(images)


def test_unknown_option_and_command(capsys):
    refused(
        capsys, "run", "--train.stepz", "3", message="unknown option '--train.stepz'; did you mean '--train.steps'?"
    )
    refused(capsys, "compare", "a", "b", "--statistics.margn=1", message="did you mean '--statistics.margin'?")
    refused(capsys, "import-torch", "a.pt", "--out", "x", "--quiet", message="--quiet: not an option of 'import-torch'")
    with pytest.raises(InputError) as error:
        parser.parse(["export-torch", "runs/a", "--out", "x", "--train.stepz"])
    assert "--train.steps" not in str(error.value), "which that command does not take"
    refused(capsys, "trian", message="invalid choice: 'trian'")
    refused(capsys, "run", "a.toml", "b.toml", message="unexpected argument 'b.toml' for 'run'")


def test_impossible_values(capsys):
    seeds = "train.seeds: expected an integer at least 1, or a range such as 20:40, got 0"
    refused(capsys, "run", "--train.seeds", "0", message=seeds)
    refused(
        capsys, "run", "--train.learning_rate", "-1", message="train.learning_rate: expected a number above 0, got -1"
    )
    refused(capsys, "run", "--sweep.families", "shear", message="sweep.families: expected one of scale, clip, offset")


def test_numbers_too_large_for_the_machine(capsys):
    refused(capsys, "run", "--train.seed", 2**32, message="train.seed: expected an integer at least 0 and below 429")
    refused(capsys, "run", "--train.steps", 3 * 10**9, message="train.steps: expected an integer at least 0 and below")


def test_black_pictures(capsys, images):
    for stem, count in (("train", 40), ("t10k", 20)):
        (images / f"{stem}-images-idx3-ubyte").write_bytes(idx(np.zeros((count, 4, 4), np.uint8)))
    refused(capsys, *run_on(images), message="Every pixel of every image is 0")


def test_a_folder_for_the_embedded_data(capsys, images):
    refused(capsys, "run", "--data.dir", images, message="data.name is 'digits', whose images are built in")


def test_unknown_activation(capsys):
    refused(
        capsys,
        "run",
        "--out",
        "out",
        "--model.activations",
        "rellu",
        message="unknown activation 'rellu'; did you mean 'relu'?",
    )


def test_missing_config_file(capsys):
    refused(capsys, "run", "nowhere.toml", message="nowhere.toml: no such config file")


def test_truncated_idx(capsys, images):
    path = images / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-7])
    refused(capsys, *run_on(images), message="expected 640 bytes after it, got only 633")


def test_wrong_file(capsys, images):
    (images / "t10k-labels-idx1-ubyte").write_bytes(b"\x89PNG\r\n")
    refused(capsys, *run_on(images), message="which is not an IDX header")


def test_missing_file(capsys, images):
    (images / "t10k-labels-idx1-ubyte").unlink()
    refused(capsys, *run_on(images), message="no test labels, such as t10k-labels-idx1-ubyte")


def test_images_and_labels_that_disagree(capsys, images):
    (images / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(39, np.uint8)))
    refused(capsys, *run_on(images), message="holds 40 images but")


def test_labels_out_of_range(capsys, images):
    (images / "train-labels-idx1-ubyte").write_bytes(idx(np.full(40, 10, np.uint8)))
    refused(capsys, *run_on(images), message="label 10 at index 0 is not a class; expected 0 to 9")


def test_pixels_that_are_not_finite(capsys, images):
    for stem, count in (("train", 40), ("t10k", 20)):
        pixels = np.zeros((count, 4, 4), np.float32)
        pixels[3, 2, 1] = np.nan
        (images / f"{stem}-images-idx3-ubyte").write_bytes(idx(pixels))
    refused(capsys, *run_on(images), message="the pixel at [3, 2, 1] is nan")


def test_data_that_is_not_there(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    refused(capsys, "run", "--data.name", "mnist", message="run 'jaxdist data prepare mnist --from FOLDER'")
    refused(capsys, "run", "--data.name", "mnist", "--data.dir", "nowhere", message="nowhere")


def test_an_output_folder_that_is_in_use(capsys, tmp_path):
    used = tmp_path / "used"
    used.mkdir()
    (used / "thesis.tex").write_text("years of work")
    assert cli.main(["run", "--out", str(used), *SMALL]) == 2
    assert "is neither empty nor a run; choose another with --out" in capsys.readouterr().err
    assert [path.name for path in used.iterdir()] == ["thesis.tex"]


def test_training_that_diverges(capsys):
    error = refused(
        capsys,
        "run",
        "--out",
        "out",
        *SMALL,
        "--train.steps",
        "60",
        "--train.learning_rate",
        "1e30",
        message="training diverged",
    )
    assert "network 'relu'" in error
    assert "try a smaller train.learning_rate" in error


@pytest.fixture
def trained(tmp_path, images):
    assert cli.main(["train", *map(str, run_on(images)[1:5]), "--out", str(tmp_path / "trained"), *SMALL]) == 0
    return tmp_path / "trained"


def test_run_folders_that_are_broken(capsys, trained, images):
    refused(capsys, "sweep", "nothing-here", message="no result found")
    refused(capsys, "sweep", trained, "--train.steps", "9", message="--train.steps: not an option of 'sweep'")
    labels = images / "train-labels-idx1-ubyte"
    good = labels.read_bytes()
    labels.write_bytes(good[:-1] + b"\x01")
    refused(capsys, "sweep", trained, message="was trained on different data")
    labels.write_bytes(good)
    weights = trained / "weights" / "relu.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    refused(capsys, "sweep", trained, message="not a readable safetensors file")
    weights.unlink()
    refused(capsys, "sweep", trained, message="no such weights file")
    weights.write_bytes(whole)
    stored.save({"dense0": {"weight": np.zeros((2, 8, 16), np.float16)}}, weights)
    refused(capsys, "sweep", trained, message="these are not weights for this run")
    weights.write_bytes(whole)
    (trained / "result.nc").write_bytes((trained / "result.nc").read_bytes()[:3000])
    refused(capsys, "sweep", trained, message="not a readable result file")
    shutil.rmtree(trained)
    refused(capsys, "report", trained, message="no result found")


@pytest.mark.parametrize("name", ["n" * 300, "/".join(["d" * 200] * 20) + "/e"])
def test_a_name_that_the_system_does_not_take_is_said_to_be_too_long(capsys, name):
    assert cli.main(["train", "--out", name, *SMALL]) == 2
    said = capsys.readouterr().err
    assert "the name or path is too long for this system; choose a shorter one" in said
    assert "free up space" not in said

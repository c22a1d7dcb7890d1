"""What users have set for other programs: commands work with it, or say in one sentence why not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxdist import cli
from jaxdist.errors import InputError
from jaxdist.experiment import running

SMALL = ("--train.seeds=2", "--train.steps=2", "--model.hidden=8", "--model.activations=relu")


def command(folder, *arguments, **environment):
    """A command in a process of its own: its exit status, answer and complaint."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    done = subprocess.run(
        [sys.executable, "-m", "jaxdist", *arguments],
        cwd=folder,
        env={**plain, "XDG_CACHE_HOME": str(folder / "cache"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"JAX_TRANSFER_GUARD": "disallow"},
        {"JAX_DEBUG_INFS": "1"},
        {"JAX_DEBUG_NANS": "1", "OPTIONS": "--sweep.dead_units=nan"},
        {"JAX_ENABLE_X64": "1"},
        {"MPLBACKEND": "a backend that there is not"},
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    ],
    ids=lambda environment: next(iter(environment)),
)
def test_commands_work_with(environment, tmp_path):
    options = environment.get("OPTIONS", "").split()
    code, answer, complaint = command(tmp_path, "run", *SMALL, *options, "--out", "run", **environment)
    assert (code, complaint.count("Traceback")) == (0, 0), complaint
    assert "relu" in answer
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize(
    ("name", "platform"),
    [("JAX_PLATFORMS", "rocm"), ("JAX_PLATFORMS", "a platform that there is not"), ("JAX_PLATFORM_NAME", "elsewhere")],
)
def test_a_platform_that_is_not_there_is_named(name, platform, tmp_path):
    code, _, complaint = command(tmp_path, "train", *SMALL, "--out", "run", **{name: platform})
    assert code == 2
    assert complaint.startswith(f"jaxdist: {name}={platform}: JAX cannot use that here")
    assert complaint.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", ["XLA_FLAGS", "JAX_NUM_CPU_DEVICES"])
def test_a_number_of_devices_that_is_set_stays(how, tmp_path):
    number = (os.cpu_count() or 1) + 1
    value = f"--xla_force_host_platform_device_count={number}" if how == "XLA_FLAGS" else str(number)
    assert f"on {number} cpu devices" in command(tmp_path, "plan", *SMALL, **{how: value})[1]


def test_the_environment_stays_as_it_was(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://somewhere")
    assert cli.main(["list", "nowhere"]) == 2
    assert os.environ["MPLBACKEND"] == "module://somewhere"


@pytest.mark.usefixtures("in_an_empty_folder")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", *SMALL, "--out", "~nobody-of-that-name/run"), "~nobody-of-that-name/run: there is no home folder"),
        (("list", "~nobody-of-that-name"), "~nobody-of-that-name: there is no home folder of that name"),
        (("train", *SMALL, "--out", "gs://bucket/run"), "gs:/bucket/run: expected a path on this machine"),
        (("gallery", "--out", "GS://bucket/run"), "GS:/bucket/run: expected a path on this machine"),
        (("train", "--model.hidden", "8,,4"), "model.hidden"),
        (("train", "deep.toml"), "deep.toml: tables lie thousands of levels deep; the config has two levels"),
    ],
)
def test_bad_places_and_lists_are_refused_in_a_sentence(arguments, sentence, capsys):
    Path("deep.toml").write_text(".".join(["a"] * 3000) + " = 1\n", encoding="utf-8")
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["deep.toml"]


@pytest.mark.usefixtures("in_an_empty_folder")
def test_what_to_type_next_is_quoted_as_a_shell_needs_it(capsys):
    assert cli.main(["train", *SMALL, "--out", "my run"]) == 0
    assert "next: jaxdist sweep 'my run'" in capsys.readouterr().out


@pytest.mark.parametrize("function", [running.run, running.train])
@pytest.mark.parametrize("given", ["configs/paper.toml", {"train": {"steps": 2}}])
def test_what_is_no_config_is_refused(function, given):
    with pytest.raises(InputError, match=r"expected a Config, got .*; jaxdist.config.load\(path\) reads one"):
        function(given)

"""What users have set for other programs: commands work with it, or say in one sentence why not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxdist import cli, compute, files
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
        {"SOURCE_DATE_EPOCH": "99999999999999"},
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_NUM_CPU_DEVICES", "0"),
        ("JAX_NUM_CPU_DEVICES", ""),
        ("XLA_FLAGS", "--xla_force_host_platform_device_count=0"),
        ("JAX_ENABLE_X64", "maybe"),
        ("JAX_DEFAULT_DEVICE", "tpu"),
        ("JAX_DEFAULT_MATMUL_PRECISION", "much"),
    ],
)
def test_what_jax_cannot_start_with_is_named(name, value, tmp_path):
    code, _, complaint = command(tmp_path, "train", *SMALL, "--out", "run", **{name: value})
    assert code == 2
    assert complaint.startswith(f"jaxdist: {name}={value}: JAX cannot use that here (")
    assert complaint.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_what_has_nothing_to_do_with_it_is_not_blamed(tmp_path):
    other = {"JAX_LOG_COMPILES": "0", "JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    code, _, complaint = command(tmp_path, "train", *SMALL, "--out", "run", **other, JAX_NUM_CPU_DEVICES="0")
    assert code == 2
    assert complaint.startswith("jaxdist: JAX_NUM_CPU_DEVICES=0: JAX cannot use that here")


def test_names_that_a_stream_cannot_print_are_printed_as_escape_sequences(tmp_path):
    plain = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    code, answer, complaint = command(tmp_path, "train", *SMALL, "--out", "é", **plain)
    assert (code, complaint) == (0, "")
    assert "trained networks in \\xe9" in answer
    assert command(tmp_path, "list", ".", **plain)[::2] == (0, "")


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_is_closed_leads_nowhere(redirection, tmp_path):
    line = f"{sys.executable} -m jaxdist schema {redirection}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_an_answer_that_cannot_be_printed_is_one_sentence(tmp_path):
    line = f"{sys.executable} -m jaxdist schema > /dev/full"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("jaxdist: cannot read or write ([Errno 28] No space left on device)")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may read everything")
def test_what_may_not_be_written_is_named(tmp_path):
    (tmp_path / "mine").mkdir(mode=0o500)
    code, _, complaint = command(tmp_path, "train", *SMALL, "--out", "mine/run")
    assert (code, complaint.count("\n")) == (2, 1)
    assert "mine/run: this user may not read or write it; fix its permissions" in complaint


@pytest.mark.usefixtures("in_an_empty_folder")
@pytest.mark.parametrize("number", sorted(cli._OF_SYSTEM), ids=errno.errorcode.get)
def test_what_the_system_says_of_a_file_is_told_of_that_file(number, monkeypatch, capsys):
    def refused(path, text):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(files, "write_named", refused)
    assert cli.main(["schema", "there"]) == 2
    assert capsys.readouterr().err == f"jaxdist: there: {cli._OF_SYSTEM[number]}\n"


def test_random_numbers_are_the_same_whatever_is_set_for_them(tmp_path):
    weights = set()
    for k, setting in enumerate(({}, {"JAX_THREEFRY_PARTITIONABLE": "0"}, {"JAX_RANDOM_SEED_OFFSET": "7"})):
        assert command(tmp_path, "train", *SMALL, "--out", f"run{k}", **setting)[0] == 0
        weights.add((tmp_path / f"run{k}" / "weights" / "relu.safetensors").read_bytes())
    assert len(weights) == 1


@pytest.mark.parametrize(("name", "value"), [("jax_threefry_partitionable", False), ("jax_random_seed_offset", 3)])
def test_other_random_numbers_are_refused_in_python(name, value):
    before = jax.config.values[name]
    jax.config.update(name, value)
    try:
        with pytest.raises(InputError, match=f"{name} is {value}: with that JAX draws other random numbers"):
            compute.devices.make_mesh()
    finally:
        jax.config.update(name, before)


@pytest.mark.usefixtures("in_an_empty_folder")
def test_a_named_file_stays_what_it_is(capsys):
    Path("real").write_text("before", encoding="utf-8")
    Path("link").symlink_to("real")
    assert cli.main(["train", *SMALL, "--out", "run", "-q"]) == 0
    for name in ("result.nc", "weights/relu.safetensors"):
        Path("to_run").unlink(missing_ok=True)
        Path("to_run").symlink_to(f"run/{name}")
        before = Path("to_run").read_bytes()
        for words in (["schema", "to_run"], ["list", ".", "-q", "--json", "to_run.json"]):
            Path("to_run.json").unlink(missing_ok=True)
            Path("to_run.json").symlink_to(f"run/{name}")
            assert cli.main(words) == 2
            assert "is a file of the run in" in capsys.readouterr().err
        assert Path("to_run").read_bytes() == before
    assert cli.main(["schema", "link"]) == 0
    assert Path("link").is_symlink()
    assert Path("real").read_text(encoding="utf-8").startswith("{")
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe")
        with subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE, text=True) as reader:
            assert cli.main(["schema", "pipe"]) == 0
            assert reader.communicate()[0] == Path("real").read_text(encoding="utf-8")
        assert Path("pipe").is_fifo()
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("in_an_empty_folder")
@pytest.mark.parametrize(
    "arguments", [("--out", "gs://bucket/run"), ("--model.activations=gelu", "--sweep.families=collapse_small")]
)
def test_what_a_run_refuses_at_once_its_plan_refuses(arguments, capsys):
    said = []
    for name in ("run", "plan"):
        assert cli.main([name, *SMALL, *arguments]) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]


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
        (
            ("import-torch", "deep.toml", "--model.activations=relu,,abs", "--out=new"),
            "expected names with a comma betwe",
        ),
        (("run", *SMALL, "--sweep.families=noise", "--sweep.units=true"), "units: single units are edited by families"),
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

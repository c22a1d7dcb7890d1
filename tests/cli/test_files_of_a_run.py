"""What commands write never takes the place of what a run folder consists of, and what they refuse is not kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from jaxdist import cli, config
from jaxdist.errors import InputError
from jaxdist.storage import manifests

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("schema {}", "result.nc"),
        ("schema {}", "config.toml"),
        ("schema {}", "weights/relu.safetensors"),
        ("report swept --json {}", "manifest.json"),
        ("report swept --json {}", "tables/summary.json"),
        ("compare swept swept --json {}", "result.nc"),
        ("list --json {}", "manifest.json"),
    ],
)
def test_no_file_of_a_run_is_written_over(swept, capsys, command, name):
    before = contents(swept)
    assert name in before
    assert cli.main(command.format(f"swept/{name}").split()) == 2
    assert f"jaxdist: swept/{name}: is a file of the run in {swept.resolve()}" in capsys.readouterr().err
    assert contents(swept) == before
    # Neither is that of a folder without a list of its files, as those of earlier versions.
    Path("swept/manifest.json").unlink()
    if manifests.is_basis(name):
        with pytest.raises(InputError, match="is a file of the run"):
            manifests.refuse_own(Path("swept") / name)


def test_other_files_may_lie_in_a_run_folder(swept):
    for name in ("mine.json", "tables/mine.json"):
        assert cli.main(["-q", "list", ".", "--json", f"swept/{name}"]) == 0
        assert cli.main(["-q", "list", ".", "--json", f"swept/{name}"]) == 0, (
            "nor does it matter that it is there already"
        )
    assert cli.main(["schema", "config.toml"]) == 0, "which is no run's"


def test_a_list_of_another_program_is_none_of_ours(capsys):
    Path("manifest.json").write_text('{"name": "an app"}', encoding="utf-8")
    assert cli.main(["schema", "sub/schema.json"]) == 0


def test_a_run_that_is_made_by_the_command_is_not_written_over_either(capsys):
    small = ["--train.seeds=2", "--train.steps=3", "--model.hidden=4", "--model.activations=relu"]
    words = ["-q", "run", *small, "--sweep.families=offset", "--out=new", "--json", "new/manifest.json"]
    assert cli.main(words) == 2
    assert "new/manifest.json: is a file of the run in " in capsys.readouterr().err
    assert manifests.read(Path("new")) is not None


def test_any_margin_above_0_can_be_told(swept):
    """Drops are rounded to twelve decimals, so that less than the least of these is as much as it."""
    assert cli.main(["-q", "report", "swept", "--statistics.margin", "1e-15"]) == 0
    assert cli.main(["-q", "report", "swept", "--statistics.margin", "0.01"]) == 0


@pytest.mark.slow
def test_a_margin_beside_a_site_that_there_is_not_is_not_kept(capsys):
    small = ["--train.seeds=2", "--train.steps=3", "--model.hidden=4", "--model.activations=relu", "--out=dosed"]
    assert cli.main(["-q", "run", *small, "--sweep.dose=true", "--sweep.families=clip,offset"]) == 0
    before = contents(Path("dosed"))
    assert cli.main(["verdict", "dosed", "--site", "nowhere", "--margin", "0.2"]) == 2
    assert "site: expected one with doses (dense0/pre), got 'nowhere'" in capsys.readouterr().err
    assert contents(Path("dosed")) == before
    assert cli.main(["-q", "verdict", "dosed", "--site", "dense0/pre", "--margin", "0.2"]) == 0
    assert config.load("dosed/config.toml").statistics.flips == 0.2


def test_an_option_of_the_command_before_it_is_told_where_to_go(capsys):
    assert cli.main(["--json", "run"]) == 2
    assert "--json: options come after the command, 'jaxdist run --json'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["schema", "list . --json", "verdict swept --margin 0.1 --json"])
@pytest.mark.parametrize("name", ["", "folder"])
def test_a_folder_is_no_file_to_write(swept, capsys, command, name):
    Path("folder").mkdir()
    before = contents(swept)
    assert cli.main([*command.split(), name]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith(("is a folder; give the name of a file\n", "see 'jaxdist list --help'\n"))
    assert contents(swept) == before


def test_an_empty_name_of_a_config_is_not_the_quickstart(capsys):
    assert cli.main(["run", ""]) == 2
    assert "cannot be read as a config" in capsys.readouterr().err

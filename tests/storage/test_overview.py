"""The list of runs: what it says of whole, unfinished, damaged and imported ones."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxdist import cli, files
from jaxdist import config as configs
from jaxdist.report import documents, table
from jaxdist.storage import overview, places, result_files
from tests import dose_support, results_support
from tests.cli.terminal_support import small_runs, wide


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a swept, a trained, an unfinished and a damaged run, a deeper one, and one that is no run."""
    root = tmp_path_factory.mktemp("list") / "runs"
    small_runs(root)
    begun(root / "unfinished")
    shutil.copytree(root / "trained", root / "damaged")
    (root / "damaged" / places.RESULT).write_bytes((root / "swept" / places.RESULT).read_bytes()[:2000])
    (root / "thesis").mkdir()
    (root / "thesis" / "config.toml").write_text("chapters = 7\n")
    dosed = root / "of my thesis, with a name that is much too long for a terminal" / "comparison"
    dosed.mkdir(parents=True)
    given = dose_support.made_up()
    result_files.save(given, dosed / places.RESULT)
    numbers = table.document(documents.main_numbers(given, dose_support.OPTIONS))
    files.write_text(dosed / "tables" / places.SUMMARY, numbers)
    return root


def begun(folder):
    """Make what a run keeps that has trained one of its two networks and 60 of 200 steps of the other."""
    noted = folder / places.UNFINISHED / places.NOTED
    config = configs.override(configs.Config(), {"train.steps": "200", "model.activations": "relu,abs"})
    for state in ("training/relu-0/200", "training/relu-0/100", "training/abs-0/60", "training/abs-0/80.tmp"):
        (noted.parent / state).mkdir(parents=True)
    noted.write_text("backend = 'float32'\n[config]\n" + configs.to_toml(config).replace("\n[", "\n[config."))


def swept(folder, **options):
    """Make a run folder of a swept result; returns the result."""
    given = results_support.made_up(**options)
    folder.mkdir(parents=True, exist_ok=True)
    result_files.save(given, folder / places.RESULT)
    return given


class TestList:
    def shown(self, capsys, *arguments):
        assert cli.main(["list", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    @pytest.mark.slow
    def test_every_run_has_its_numbers(self, runs, capsys):
        found = json.loads(self.shown(capsys, runs, "--sort", "name", "--json"))["runs"]
        states = {Path(one["folder"]).name: one["state"] for one in found}
        assert states == {
            "comparison": "swept",
            "damaged": "damaged",
            "swept": "swept",
            "trained": "trained",
            "unfinished": "unfinished",
        }
        known = {Path(one["folder"]).name: one for one in found}
        summary = json.loads((runs / "swept/tables/summary.json").read_text())
        relu, row = known["swept"]["networks"]["relu"], summary["tolerance"][1]
        assert (row["split"], row["side"]) == ("train", "above")
        assert relu["train_accuracy"] == pytest.approx(summary["networks"]["relu"]["train_accuracy"], rel=1e-6)
        assert relu["offset_to"] == row["radius"]
        assert known["trained"]["networks"]["relu"]["offset_to"] is None
        assert known["swept"]["date"] == summary["made"] >= known["trained"]["date"]
        assert known["unfinished"]["progress"] == {"stage": "train", "done": 260, "of": 400}
        assert "OSError" in known["damaged"]["problem"]
        assert known["comparison"]["networks"]["abs"]["answer"] == "intensity"

    def test_the_table_fits(self, runs, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        text = self.shown(capsys, runs)
        assert wide(text) <= 80
        for words in ("trained", "swept", "unfinished", "train 65 %", "damaged", "intensity", "2 × 3", "digits"):
            assert words in text
        assert "…" in text
        assert "thesis" not in text.replace("of my thesis", "")
        assert "Traceback" not in text

    def test_a_stale_summary_gives_no_answer(self, runs, capsys, tmp_path):
        shutil.copytree(runs / "swept", tmp_path / "again")
        path = tmp_path / "again/tables/summary.json"
        path.write_text(path.read_text().replace('"made": "2', '"made": "1'))
        (one,) = json.loads(self.shown(capsys, tmp_path, "--json"))["runs"]
        assert one["networks"]["relu"]["offset_to"] is one["networks"]["relu"]["offset_beyond"] is None

    def test_imported_networks_without_a_history_have_what_the_sweep_counted(self, capsys, tmp_path):
        given = swept(tmp_path / "own", config_=False)
        (one,) = json.loads(self.shown(capsys, tmp_path / "own", "--json"))["runs"]
        group = given["scale"]
        expected = (group.unperturbed / group.total).mean("seed").sel(network="abs", split="test")
        assert one["networks"]["abs"]["test_accuracy"] == pytest.approx(float(expected))
        assert one["steps"] is None

    def test_imported_networks_have_no_steps_that_are_not_known(self, capsys, tmp_path):
        given = results_support.made_up()
        given.attrs["origin"] = json.dumps({"kind": "file", "unknown": ["train.steps"]})
        result_files.save(given, tmp_path / places.RESULT)
        (one,) = json.loads(self.shown(capsys, tmp_path, "--json"))["runs"]
        numbers = documents.main_numbers(given, dose_support.OPTIONS)
        assert one["steps"] is numbers["steps"] is None
        assert one["unknown"] == numbers["unknown"] == ["train.steps"]
        assert "6 × imported" in self.shown(capsys, tmp_path)
        begun(tmp_path)
        (one,) = json.loads(self.shown(capsys, tmp_path, "--json"))["runs"]
        assert (one["state"], one["steps"]) == ("unfinished", None)

    def test_imported_networks_have_the_steps_that_came_with_them(self, capsys, tmp_path):
        given = results_support.made_up()
        given.attrs["origin"] = json.dumps({"kind": "exported", "unknown": []})
        result_files.save(given, tmp_path / places.RESULT)
        (one,) = json.loads(self.shown(capsys, tmp_path, "--json"))["runs"]
        expected = configs.Config().train.steps
        assert one["steps"] == documents.main_numbers(given, dose_support.OPTIONS)["steps"] == expected

    @pytest.mark.parametrize("name", ["x[/b]", "run [bold] lr", "a :gear: b"])
    def test_names_are_shown_as_they_are(self, capsys, tmp_path, monkeypatch, name):
        monkeypatch.setenv("COLUMNS", "120")
        swept(tmp_path / "odd" / name, networks=("[red]relu", "abs[/]"))
        text = self.shown(capsys, tmp_path)
        for words in (f"odd/{name} ", "[red]relu ", "abs[/] "):
            assert words in text

    @pytest.mark.parametrize("change", ["[]", "3", "null", "{", "margin", "verdicts", "tolerance", "network", "radius"])
    def test_a_broken_summary_is_as_none(self, runs, capsys, tmp_path, change):
        shutil.copytree(runs / "swept", tmp_path / "again")
        path = tmp_path / "again/tables/summary.json"
        whole = json.loads(path.read_text())
        if change in ("network", "radius"):
            whole["tolerance"][0][change] = ["not one"]
            whole["tolerance"][1][change] = ["not one"]
        else:
            whole.pop(change, None)
        path.write_text(json.dumps(whole) if change.isalpha() and change != "null" else change)
        (broken,) = json.loads(self.shown(capsys, tmp_path, "--json"))["runs"]
        path.unlink()
        (without,) = json.loads(self.shown(capsys, tmp_path, "--json"))["runs"]
        assert broken == without
        assert broken["state"] == "swept"

    def test_files_of_a_live_run_may_vanish(self, capsys, tmp_path):
        begun(tmp_path)
        (tmp_path / places.UNFINISHED / "training" / "relu-0" / "300").symlink_to("gone")
        (one,) = json.loads(self.shown(capsys, tmp_path, "--json"))["runs"]
        assert (one["state"], one["problem"]) == ("unfinished", None)
        assert one["date"]

    def test_a_run_may_end_while_it_is_looked_at(self, tmp_path, monkeypatch):
        swept(tmp_path / "run")
        begun(tmp_path / "run")

        def ends(noted, _):
            shutil.rmtree(noted.parent)
            noted.read_text()

        monkeypatch.setattr(overview, "_progress", ends)
        (one,) = overview.runs(tmp_path)
        assert (one.state, one.problem) == ("swept", None)

    def test_a_run_that_is_looked_at_from_within_has_its_name(self, capsys, tmp_path, monkeypatch):
        swept(tmp_path / "mine")
        monkeypatch.chdir(tmp_path / "mine")
        assert re.search(r"^ *mine +digits", self.shown(capsys, "."), re.MULTILINE)

    @pytest.mark.usefixtures("in_an_empty_folder")
    def test_no_runs_and_no_folder(self, capsys):
        assert "no runs in ." in self.shown(capsys, ".")
        assert json.loads(self.shown(capsys, ".", "--json")) == {"folder": ".", "runs": []}
        assert cli.main(["list"]) == 2
        assert "runs: no such folder" in capsys.readouterr().err

    def test_it_looks_without_loading_what_computes(self, runs):
        look = f"import sys; from jaxdist import cli; cli.main(['list', {str(runs)!r}]); print('jax' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
        assert done.stdout.endswith("False\n")

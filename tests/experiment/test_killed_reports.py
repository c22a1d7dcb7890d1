"""Killed between saving a result and the last of its tables, figures and page, the same command makes these alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jaxdist import cli, files
from jaxdist.compute import devices
from jaxdist.experiment import running
from jaxdist.report import compare, figures, pages, writing
from jaxdist.report.compare import saving
from jaxdist.storage import manifests, places, result_files, unfinished
from jaxdist.storage.unfinished import Store
from jaxdist.sweep import results

pytestmark = pytest.mark.slow

SMALL = ["--train.seeds=2", "--train.steps=3", "--model.hidden=8", "--sweep.splits=test", "--sweep.families=clip"]
SWEEP = ["--sweep.families=offset"]

DURING = {
    "before the first file": (writing, "write"),
    "after the tables": (figures, "save"),
    "before the page": (pages, "write"),
}
"""What is called then."""

MOMENTS = [next(iter(DURING)), *(pytest.param(moment, marks=pytest.mark.slow) for moment in list(DURING)[1:])]
"""Of runs, which report whenever they are given again, one moment is tried each time."""


class Killed(BaseException):
    """Stands for the signal that no code sees."""


@pytest.fixture(scope="module", autouse=True)
def _small_pictures():
    """Pictures are a line of text each, and the devices are those of the tests."""

    def save(figure, folder, stem):
        files.write_text(folder / f"{stem}.png", stem)
        return [folder / f"{stem}.png"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "save", save)
        patch.setattr(devices, "use_all_cores", lambda: None)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert cli.main(["run", "--out", str(folder), "-q", *SMALL]) == 0
    return folder


@pytest.fixture
def run(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


@pytest.fixture(scope="module")
def swept(made, tmp_path_factory) -> Path:
    """The same run after a second sweep that nothing disturbed."""
    folder = shutil.copytree(made, tmp_path_factory.mktemp("swept") / "run")
    assert cli.main(["sweep", str(folder), "-q", *SWEEP]) == 0
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def killed(place: tuple[object, str], *arguments: object) -> None:
    """Give a command, in which a process is killed as it comes to some function."""

    def kill(*_, **__):
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*place, kill)
        with pytest.raises(Killed):
            cli.main(list(map(str, arguments)))


def computing_nothing(*arguments: object) -> None:
    """Give a command, which must not train or sweep."""

    def compute(*_, **__):
        raise AssertionError("it computes what was finished")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("train_networks", "sweep_networks"):
            patch.setattr(running, name, compute)
        assert cli.main(list(map(str, arguments))) == 0


def assert_reported(folder: Path, like: Path) -> None:
    """Everything that an undisturbed command leaves is there, of the present result, and nothing waits."""
    assert names(folder) == names(like)
    assert (folder / "tables" / "points.csv").read_bytes() == (like / "tables" / "points.csv").read_bytes()
    assert set(manifests.read(folder).files) == set(manifests.read(like).files)
    assert not manifests.report_due(folder)
    assert not (folder / unfinished.FOLDER).exists()


@pytest.mark.parametrize("moment", DURING)
def test_the_same_sweep_makes_the_report_alone(moment, run, swept):
    command = ["sweep", run, "-q", *SWEEP]
    killed(DURING[moment], *command)
    assert manifests.report_due(run)
    computing_nothing(*command)
    assert_reported(run, swept)


def test_killed_twice_it_still_makes_the_report(run, swept):
    command = ["sweep", run, "-q", *SWEEP]
    killed(DURING["before the first file"], *command)
    killed(DURING["after the tables"], *command)
    computing_nothing(*command)
    assert_reported(run, swept)


@pytest.mark.parametrize("place", [(Store, "clear"), (manifests._Record, "_settle")], ids=["cleared", "listed"])
def test_killed_before_a_sweep_is_all_saved_the_same_command_reports_too(place, run, swept):
    command = ["sweep", run, "-q", *SWEEP]
    killed(place, *command)
    assert cli.main(list(map(str, command))) == 0
    assert_reported(run, swept)


@pytest.mark.parametrize("more", [[], ["--statistics.margin=0.02"]])
def test_the_report_that_another_command_makes_is_due_no_longer(more, run, swept):
    killed(DURING["after the tables"], "sweep", run, "-q", *SWEEP)
    computing_nothing("report", run, "-q", *more)
    assert names(run) == names(swept)
    assert not manifests.report_due(run)


def test_another_sweep_is_made_and_reports_too(run, made):
    killed(DURING["before the first file"], "sweep", run, "-q", *SWEEP)
    assert not (run / "tables").exists()
    assert cli.main(["sweep", str(run), "-q", "--sweep.families=clip"]) == 0
    assert_reported(run, made)


def test_the_same_sweep_with_other_statistics_makes_the_report_by_them(run):
    killed(DURING["before the first file"], "sweep", run, "-q", *SWEEP)
    computing_nothing("sweep", run, "-q", *SWEEP, "--statistics.margin=0.02")
    assert results.config_of(result_files.load(run)).statistics.margin == 0.02
    assert "0.02" in (run / "tables" / places.SUMMARY).read_text()
    assert not manifests.report_due(run)


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_same_run_makes_the_report_alone(moment, made, tmp_path):
    command = ["run", "--out", tmp_path / "new", "-q", *SMALL]
    killed(DURING[moment], *command)
    computing_nothing(*command)
    assert_reported(tmp_path / "new", made)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_grew_makes_the_report_alone(moment, run, made):
    command = ["run", "--out", run, "-q", *SMALL, "--train.seeds=3"]
    killed(DURING[moment], *command)
    computing_nothing(*command)
    assert names(run) == names(made)
    assert ",3," in (run / "tables" / "points.csv").read_text()
    assert not manifests.report_due(run)


def test_a_sweep_after_a_run_that_grew_and_was_killed_reports(run, swept):
    killed(DURING["before the first file"], "run", "--out", run, "-q", *SMALL, "--train.seeds=3")
    assert cli.main(["sweep", str(run), "-q", *SWEEP]) == 0
    assert names(run) == names(swept)


def test_without_tables_before_it_a_sweep_reports_nothing(tmp_path):
    folder = tmp_path / "trained"
    assert cli.main(["train", "--out", str(folder), "-q", *SMALL]) == 0
    assert cli.main(["sweep", str(folder), "-q"]) == 0
    assert not manifests.report_due(folder)
    assert not (folder / "tables").exists()


def test_a_report_leaves_comparisons_and_a_sweep_takes_them_with_it(run, monkeypatch):
    monkeypatch.setattr(saving.pictures, "write", lambda _, folder: [files.write_text(folder / "a.svg", "-")])
    compare.save(compare.compare(str(run), str(run)), run / "comparisons")
    for more in ([], ["--statistics.margin=0.02"]):
        assert cli.main(["report", str(run), "-q", *more]) == 0
        assert manifests.is_whole(run / "comparisons" / "a.svg")
        assert "comparisons/a.svg" in manifests.read(run).files
    assert cli.main(["sweep", str(run), "-q", *SWEEP]) == 0
    assert not (run / "comparisons").exists()

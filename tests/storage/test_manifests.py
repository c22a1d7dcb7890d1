"""The list of a run folder's files: damage is refused, what a result no longer has goes, a person's files stay."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxdist import cli, config, files, probe
from jaxdist.compute import devices
from jaxdist.errors import InputError
from jaxdist.report import compare, writing
from jaxdist.report.compare import saving
from jaxdist.storage import manifests, places, result_files, weights

SMALL = ["--train.seeds=2", "--train.steps=3", "--model.hidden=8"]


def slow(value):
    """A further case of a test, which takes long."""
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)


class Killed(BaseException):
    """Stands for the signal that no code sees."""


@pytest.fixture(scope="module", autouse=True)
def _small_pictures():
    """Pictures are a line of text each, and the devices are those of the tests."""

    def save(figure, folder, stem, formats=("png",)):
        paths = [folder / f"{stem}.{kind}" for kind in formats]
        for path in paths:
            files.write_text(path, stem)
        return paths

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing.figures, "save", save)
        patch.setattr(devices, "use_all_cores", lambda: None)
        yield


@pytest.fixture(scope="module")
def dosed(tmp_path_factory) -> Path:
    """A finished run with doses, a grid and weights kept along training."""
    folder = tmp_path_factory.mktemp("runs") / "dosed"
    more = ["--sweep.dose=true", "--sweep.grid=true", "--train.snapshots=true", "--sweep.splits=test"]
    assert cli.main(["run", "--out", str(folder), "-q", *SMALL, *more, "--sweep.families=clip,offset"]) == 0
    return folder


@pytest.fixture
def run(dosed, tmp_path) -> Path:
    return shutil.copytree(dosed, tmp_path / "run")


def names(folder: Path) -> set[str]:
    """The files in a folder and below it, without what is hidden."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    return {path.relative_to(folder).as_posix() for path in paths}


def flip(path: Path, at: float, bit: int = 3) -> None:
    """Change one bit of a file, at a share of its length."""
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(content)


def refused(capsys, *arguments: object) -> str:
    """The sentence with which a command ends."""
    capsys.readouterr()
    assert cli.main(list(map(str, arguments))) == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("jaxdist: ")
    assert sentence.count("\n") == 1
    return sentence


def fewer(folder: Path) -> None:
    assert cli.main(["sweep", str(folder), "-q", "--sweep.dose=false", "--sweep.grid=false"]) == 0


def test_every_file_of_a_run_is_listed_with_its_content(dosed):
    manifest = manifests.read(dosed)
    assert set(manifest.files) == names(dosed) - {places.MANIFEST}
    assert not manifest.before | manifest.edited
    for name, entry in json.loads((dosed / places.MANIFEST).read_text())["files"].items():
        content = manifests.content_of(dosed / name)
        assert entry == {"size": content.size, "sha256": content.sha256}


def test_tables_pictures_and_verdict_of_an_earlier_sweep_go(run):
    before = names(run)
    fewer(run)
    gone = before - names(run)
    assert {"tables/verdict.md", "tables/doses.csv", "figures/doses.png", "tables/grid_scale_offset.csv"} <= gone
    assert manifests.notes(run) == []
    assert set(manifests.read(run).files) == names(run) - {places.MANIFEST}
    assert cli.main(["report", str(run), "-q"]) == 0
    assert before - names(run) == gone


def test_a_sweep_takes_tables_with_it_where_no_report_follows(run, monkeypatch):
    monkeypatch.setattr(writing, "write", lambda *_: [])
    fewer(run)
    weights = {f"weights/{name}{kind}.safetensors" for name in ("relu", "abs") for kind in ("", ".snapshots")}
    assert names(run) == weights | {places.CONFIG, places.RESULT, places.MANIFEST}


@pytest.mark.parametrize("edited", ["tables/verdict.md", *map(slow, ("tables/doses.csv", "figures/doses.png"))])
def test_what_a_person_edited_or_put_there_is_never_removed(edited, run, capsys):
    (run / edited).write_text("mine")
    (run / "tables" / "notes.md").write_text("also mine")
    (run / "figures" / "doses-by-hand.png").write_text("also mine")
    fewer(run)
    assert (run / edited).read_text() == "mine"
    assert cli.main(["report", str(run)]) == 0
    sentence = " ".join(capsys.readouterr().out.split())
    assert f"note: not part of this result, but kept, since edited: {edited}" in sentence
    assert (run / edited).read_text() == "mine"
    assert (run / "tables" / "notes.md").read_text() == "also mine"
    assert (run / "figures" / "doses-by-hand.png").read_text() == "also mine"
    (run / edited).unlink()
    assert cli.main(["report", str(run)]) == 0
    assert "note:" not in capsys.readouterr().out


@pytest.mark.parametrize("edited", ["tables/points.csv", *map(slow, ("figures/figure1.png", "report.html"))])
def test_what_a_person_edited_is_moved_out_of_the_way_of_what_is_written_anew(edited, run, capsys):
    path = run / edited
    whole = path.read_bytes()
    for k, end in enumerate(("", "-2")):
        path.write_text(f"mine {k}")
        assert cli.main(["report", str(run)]) == 0
        moved = path.with_name(f"{path.stem}.edited{end}{path.suffix}")
        assert moved.read_text() == f"mine {k}"
        assert moved.name in capsys.readouterr().out
        if path.suffix != ".html":  # which says when it was made
            assert path.read_bytes() == whole


@pytest.mark.slow
def test_an_edited_config_breaks_nothing_and_stays(run):
    path = run / places.CONFIG
    path.write_text("# for the record\n" + path.read_text().replace("steps = 3", "steps = 4"))
    mine = path.read_text()
    for command in (["report"], ["sweep", "--sweep.splits=test"], ["report", "--statistics.margin=0.02"]):
        assert cli.main([command[0], str(run), "-q", *command[1:]]) == 0
    assert (run / "config.edited.toml").read_text() == mine
    assert "steps = 3" in path.read_text()


@pytest.mark.parametrize(("change", "sentence"), [("steps = 3", "differs from what jaxdist wrote"), (None, None)])
def test_without_a_result_the_config_says_what_run_it_was(change, sentence, run, tmp_path, capsys):
    path = run / places.CONFIG
    command = ["run", str(shutil.copy(path, tmp_path / "mine.toml")), "--out", str(run), "-q"]
    (run / places.RESULT).unlink()
    path.write_text("# a comment\n" + path.read_text().replace(change or "-", "steps = 4" if change else "-"))
    if sentence:
        assert sentence in refused(capsys, *command)
    else:
        assert cli.main(command) == 0
        assert result_files.load(run).children


@pytest.mark.parametrize(("name", "at"), [("relu", 0.9), *map(slow, (("abs", 0.3), ("abs.snapshots", 1.0)))])
def test_one_flipped_bit_in_weights_is_refused(name, at, run, capsys):
    path = run / places.WEIGHTS / f"{name}.safetensors"
    flip(path, at, bit=0)
    before = {name: (run / name).read_bytes() for name in names(run)}
    sentence = refused(capsys, "sweep", run)
    assert f"{path}: differs from what jaxdist wrote, so it was damaged or edited" in sentence
    if name != "abs.snapshots":
        assert str(path) in refused(capsys, "export-torch", run, "--out", run.parent / "torch")
        with pytest.raises(InputError, match="differs from what jaxdist wrote"):
            compare.compare(str(run), str(run))
    assert {name: (run / name).read_bytes() for name in names(run)} == before
    # The way out: by whoever changed it on purpose.
    (run / places.MANIFEST).unlink()
    assert cli.main(["sweep", str(run), "-q", "--sweep.families=clip"]) == 0
    assert manifests.is_whole(path)


def test_a_result_alone_is_checked_too(run, tmp_path, capsys):
    path = shutil.copy(run / places.RESULT, tmp_path / "alone.nc")
    flip(path, 0.5)
    with pytest.raises(InputError, match="not a readable result file"):
        result_files.load(path)


@pytest.mark.slow
def test_a_folder_of_an_earlier_version_works_and_gets_its_list(run, capsys):
    (run / places.MANIFEST).unlink()
    before = names(run)
    assert cli.main(["report", str(run)]) == 0
    assert "note:" not in capsys.readouterr().out
    assert names(run) == before | {places.MANIFEST}
    assert set(manifests.read(run).files) == before
    (run / places.MANIFEST).unlink()
    assert cli.main(["sweep", str(run), "--sweep.dose=false"]) == 0
    assert (run / "tables" / "verdict.md").exists()
    sentence = " ".join(capsys.readouterr().out.split())
    assert (
        "not part of this result, but kept, since there before manifest.json: figures/doses.png, tables/doses.csv"
        in sentence
    )
    flip(run / places.WEIGHTS / "abs.safetensors", 0.9)
    assert "differs from what jaxdist wrote" in refused(capsys, "sweep", run)


def test_a_damaged_list_is_refused_wherever_it_is_damaged(run, capsys):
    path, rng = run / places.MANIFEST, np.random.default_rng(0)
    whole = path.read_bytes()
    manifest = manifests.read(run)
    for k in rng.integers(0, len(whole), 60):
        flip(path, k / (len(whole) - 1), int(rng.integers(7)))
        sentence = ""
        try:
            assert manifests.read(run) == manifest
        except InputError as error:
            sentence = str(error)
        assert not sentence or "not an intact list of the folder's files" in sentence
        path.write_bytes(whole)
    path.write_text("[]")
    assert "move it away" in refused(capsys, "report", run)
    path.unlink()
    assert cli.main(["report", str(run), "-q"]) == 0


def test_what_a_folder_holds_for_another_program_is_no_list(tmp_path, capsys):
    (tmp_path / places.MANIFEST).write_text('{"name": "a web page"}')
    sentence = refused(capsys, "run", "--out", tmp_path, *SMALL)
    assert "is neither empty nor a run" in sentence


@pytest.mark.parametrize("after", range(8))
def test_whenever_it_is_killed_every_file_is_whole_and_the_same_again_gives_the_same(after, tmp_path, monkeypatch):
    """Killed right before or after a file takes its place, of those in the folder and of its list."""

    def recorded(texts: dict[str, str]) -> None:
        with manifests.recording(tmp_path, lambda name: name.startswith("tables/")):
            for name, text in texts.items():
                files.write_text(tmp_path / name, text)

    first = {"config.toml": "a", "tables/a.md": "a", "tables/b.md": "b"}
    second = {"config.toml": "A", "tables/b.md": "B", "tables/c.md": "C"}
    recorded(first)
    left, replace = after, Path.replace

    def killed(self, target):
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        try:
            recorded(second)
        except Killed:
            pass
        else:
            assert after == 7
    assert all(manifests.is_whole(tmp_path / name) for name in names(tmp_path))
    if after == 6:  # all but the list's last
        recorded({})
        assert not any(entry.coming for entry in manifests.read(tmp_path).files.values())
    recorded(second)
    assert names(tmp_path) == {*second, places.MANIFEST}
    assert {name: (tmp_path / name).read_text() for name in second} == second
    listed = manifests.read(tmp_path)
    assert listed == manifests.Manifest(
        {name: manifests.Entry(manifests.content_of(tmp_path / name)) for name in second}
    )


def edited(path: Path) -> None:
    path.write_bytes(b"mine")


def with_a_flipped_bit(path: Path) -> None:
    flip(path, 0.5)


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replaced_by_a_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.png")


@pytest.mark.parametrize(
    "change", [edited, with_a_flipped_bit, *map(slow, (replaced_by_a_folder, replaced_by_a_link_to_nothing))]
)
def test_a_changed_picture_is_left_out_of_pages_and_words_stand_in_its_place(change, run, dosed, tmp_path):
    path, *others = [p for p in sorted((run / "figures").iterdir()) if p.name.startswith(("grid_", "snapshots"))]
    assert others
    whole = path.read_bytes()
    change(path)
    words = f"figures/{path.name} was changed since jaxdist wrote it; `jaxdist report {run}` makes it again."
    both = tmp_path / "both"
    for page, command, runs in (
        (both / "report.html", ["report", str(run), str(dosed), "--out", str(both), "-q"], 2),
        (run / "report.html", ["verdict", str(run), "-q"], 1),
    ):
        assert cli.main(command) == 0
        text = html.unescape(page.read_text())
        # What is no file any more goes from the list with the next command that writes there.
        assert (words in text) == (path.is_file() or runs == 2)
        assert text.count("data:image/png") == runs * (1 + len(others)) - 1
    if path.is_dir():
        path.rmdir()
    assert cli.main(["report", str(run), "-q"]) == 0
    assert path.read_bytes() == whole
    assert "was changed since" not in (run / "report.html").read_text()


@pytest.mark.slow
def test_an_import_that_was_killed_is_done_again_in_the_same_folder(dosed, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is an optional extra: pip install 'jaxdist[torch]'")
    assert cli.main(["export-torch", str(dosed), "--out", str(tmp_path / "torch")]) == 0
    command = ["import-torch", str(tmp_path / "torch"), "--out", str(tmp_path / "again")]
    for module, name in ((weights, "save"), (config, "to_toml"), (result_files, "save")):
        with monkeypatch.context() as patch:
            whole = getattr(module, name)
            killed_before = module is not weights

            def kill(*args, whole=whole, before=killed_before):
                if not before:
                    whole(*args)
                raise Killed

            patch.setattr(module, name, kill)
            with pytest.raises(Killed):
                cli.main(command)
    assert cli.main(command) == 0
    assert set(manifests.read(tmp_path / "again").files) == names(tmp_path / "again") - {places.MANIFEST}


@pytest.mark.slow
def test_a_probe_and_a_comparison_list_what_they_write(run, tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)

    def apply(params, x, tap):
        return tap("hidden", x @ params["w"]) @ params["v"]

    params = {"w": np.eye(5, 4, dtype=np.float32), "v": np.eye(4, 3, dtype=np.float32)}
    options = {"sites": ["hidden"], "measured_on": "pre", "families": ("clip",)}
    probe(apply, params, train=(x, np.arange(40) % 3), out=tmp_path / "own", **options)
    assert set(manifests.read(tmp_path / "own").files) == names(tmp_path / "own") - {places.MANIFEST}
    monkeypatch.setattr(saving.pictures, "write", lambda _, folder: [files.write_text(folder / "run-test.svg", "-")])
    monkeypatch.setattr("jaxdist.cli.reporting._where_pictures_are", lambda *_: "")
    assert cli.main(["compare", str(run), str(run), "-q"]) == 0
    assert "comparisons/run-test.svg" in manifests.read(run).files
    fewer(run)
    assert not (run / "comparisons").exists()

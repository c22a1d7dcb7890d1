"""What goes wrong around a run: no room, no permission, damaged files. One sentence, nothing lost, and it goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxdist import cli, files
from jaxdist.cli import output
from jaxdist.experiment import running
from jaxdist.storage import folders, result_files, unfinished

SMALL = ("--train.seeds=2", "--train.steps=4", "--model.hidden=8", "--train.save_every=0", "--sweep.families=scale")


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(running.writing, "write", lambda *_: [])
    monkeypatch.setattr(output, "summarise", lambda *_: None)


def run_with_quota(folder: Path, size: int) -> subprocess.CompletedProcess[str]:
    """Run in a process whose files cannot become larger, as on a disk that fills up."""
    limited = (
        "import resource, sys; size = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))\n"
        "from jaxdist import cli; sys.exit(cli.main(sys.argv[2:]))"
    )
    command = [sys.executable, "-c", limited, str(size), "run", "--out", str(folder), *SMALL]
    # Nor may it leave half of a compiled program for other tests.
    env = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def run(folder: Path) -> int:
    return cli.main(["run", "--out", str(folder), *SMALL])


@pytest.fixture
def disk(tmp_path):
    """A file system of 4 MB of its own, and a function that mounts it anew with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)

    if mount("size=4m").returncode:
        pytest.skip("only root may mount a file system that is full or read-only")
    yield folder, lambda options: mount(f"remount,{options}").check_returncode()
    subprocess.run(["umount", str(folder)], check=True)


def assert_goes_on(folder: Path) -> None:
    assert not [path for path in folder.rglob("*") if files.is_temporary(path.name)]
    assert not (folder / result_files.FILE).exists()
    assert run(folder) == 0
    assert not (folder / unfinished.FOLDER).exists()
    assert set(result_files.load(folder).children) == {"training", "unedited", "ranges", "scale"}


@pytest.mark.slow
def test_no_room_for_the_results(tmp_path):
    folder = tmp_path / "run"
    failed = run_with_quota(folder, 12_000)
    assert failed.returncode == 2, failed.stderr
    assert failed.stderr.count("\n") == 1
    assert f"[Errno 27] File too large: '{folder}" in failed.stderr
    assert "finished work is kept: free up space or fix permissions, then repeat the command" in failed.stderr
    kept = {path.name for path in (folder / unfinished.FOLDER).iterdir()}
    assert kept == {"run.toml", "training", "sweep"}
    assert_goes_on(folder)


def test_no_room_for_a_training_state(disk, capsys):
    folder, remount = disk
    remount("size=1m")
    assert run(folder / "run") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"jaxdist: {folder / 'run' / 'unfinished'}")
    assert "no space is left there; finished work is kept: free up space, then repeat the command" in said
    remount("size=4m")
    assert_goes_on(folder / "run")


@pytest.mark.slow
def test_a_folder_that_becomes_read_only(disk, capsys):
    folder, remount = disk
    assert run(folder / "run") == 0
    remount("ro")
    assert cli.main(["run", "--out", str(folder / "run"), *SMALL, "--train.seeds=3"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Read-only file system" in said or "cannot be written to" in said
    remount("rw")
    assert cli.main(["run", "--out", str(folder / "run"), *SMALL, "--train.seeds=3"]) == 0


def test_a_truncated_result_is_named_and_without_it_the_run_is_made_again(tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(folder) == 0
    path = folder / result_files.FILE
    before = result_files.load(path)
    path.write_bytes(path.read_bytes()[:2000])
    assert run(folder) == 2
    said = capsys.readouterr().err
    assert f"{path}: not a readable result file" in said
    assert said.count("\n") == 1
    path.unlink()
    assert run(folder) == 0
    for group in ("training", "scale"):
        assert result_files.load(path)[group].to_dataset().equals(before[group].to_dataset())


def test_a_half_removed_folder_of_unfinished_work_is_not_gone_on_with(tmp_path, monkeypatch):
    """Removed aside: what a process killed while removing leaves is not found under its old name."""
    monkeypatch.setattr(shutil, "rmtree", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    work = tmp_path / unfinished.FOLDER
    (work / "sweep").mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        files.remove(work)
    assert not work.exists()
    monkeypatch.undo()
    (left,) = tmp_path.iterdir()
    assert files.is_temporary(left.name)
    with folders.held(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [folders.LOCK_FILE]

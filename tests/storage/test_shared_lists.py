"""Several processes that write into one run folder at once: its list loses nothing, no file is taken for an edit."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import filelock
import pytest

from jaxdist import files
from jaxdist.errors import InputError
from jaxdist.storage import folders, manifests, places

WRITER = """
import sys
from pathlib import Path
from jaxdist import files
from jaxdist.storage import manifests
folder, who, times, *names = Path(sys.argv[1]), *sys.argv[2:]
print("ready", flush=True)
sys.stdin.readline()
for k in range(int(times)):
    with manifests.recording(folder):
        for name in names:
            files.write_text(folder / name, f"{who} {k}")
    for name in names:
        manifests.check_whole(folder / name)
"""

BASIS = ("weights/relu.safetensors", "config.toml", "result.nc")

WRITERS = {
    "a run and a comparison": {"run": BASIS, "comparison": ("comparisons/a.md", "comparisons/a.svg")},
    "two comparisons": {"first": ("comparisons/a.md",), "second": ("comparisons/b.md",)},
    "three at once": {"run": BASIS, "first": ("comparisons/a.md",), "second": ("tables/b.md",)},
    "two of the same files": dict.fromkeys(("first", "second"), ("comparisons/a.md", "comparisons/b.md")),
}


def names(folder: Path) -> set[str]:
    """Every file in a folder and below it, hidden ones too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path) -> Path:
    """A folder with the files that make it a run's, listed."""
    with manifests.recording(tmp_path / "run"):
        for name in BASIS:
            files.write_text(tmp_path / "run" / name, "as it was")
    return tmp_path / "run"


@pytest.mark.parametrize("case", WRITERS)
def test_processes_that_write_at_once_lose_no_entry_and_take_no_file_for_an_edit(case, run):
    writers = WRITERS[case]
    commands = [[sys.executable, "-c", WRITER, str(run), who, "60", *written] for who, written in writers.items()]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0] * len(running), told
    listed = manifests.read(run)
    expected = {name for written in writers.values() for name in written} | set(BASIS)
    assert names(run) == expected | {places.MANIFEST}
    assert listed == manifests.Manifest(
        {name: manifests.Entry(manifests.content_of(run / name)) for name in sorted(expected)}
    )


def test_threads_take_turns_too_and_a_reader_never_sees_half_of_a_change(run):
    path, stop, refused = run / BASIS[0], threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            if not manifests.is_whole(path):
                refused.append(path)

    def write(who: str, name: str) -> None:
        for k in range(60):
            with manifests.recording(run):
                files.write_text(run / name, f"{who} {k}")

    reader = threading.Thread(target=read)
    writers = [
        threading.Thread(target=write, args=case)
        for case in (("run", BASIS[0]), ("first", "comparisons/a.md"), ("second", "comparisons/a.md"))
    ]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert not refused
    assert names(run) == {*BASIS, "comparisons/a.md", places.MANIFEST}
    assert set(manifests.read(run).files) == {*BASIS, "comparisons/a.md"}


def test_a_files_size_and_digest_are_those_of_one_content(run, monkeypatch):
    path, whole = run / BASIS[0], hashlib.file_digest
    before = manifests.content_of(path)

    def replaced_meanwhile(file, name):
        files.write_text(path, "longer than what was there before")
        return whole(file, name)

    monkeypatch.setattr(hashlib, "file_digest", replaced_meanwhile)
    assert manifests.content_of(path) == before
    monkeypatch.undo()
    assert manifests.content_of(path).size == path.stat().st_size != before.size


def test_recording_within_recording_waits_for_nobody(run, monkeypatch):
    monkeypatch.setattr(manifests, "_PATIENCE", 0)
    with manifests.recording(run), manifests.recording(run):
        files.write_text(run / "tables" / "a.md", "a")
        with manifests.renewing(run / BASIS[0]):
            files.write_text(run / BASIS[0], "anew")
    assert names(run) == {*BASIS, "tables/a.md", places.MANIFEST}
    assert all(manifests.is_whole(run / name) for name in names(run))


def test_who_waits_too_long_is_told_and_nothing_is_changed(run, monkeypatch):
    monkeypatch.setattr(manifests, "_PATIENCE", 0)
    before = {name: (run / name).read_bytes() for name in names(run)}
    with (
        filelock.FileLock(run / places.MANIFEST_LOCK),
        pytest.raises(InputError, match=r"\.manifest\.lock: another process has locked the list of the folder's files"),
        manifests.recording(run),
    ):
        files.write_text(run / BASIS[1], "anew")
    (run / places.MANIFEST_LOCK).unlink(missing_ok=True)
    assert {name: (run / name).read_bytes() for name in names(run)} == before


def test_a_lock_that_a_killed_process_left_is_no_content_and_goes_with_the_next_change(run, tmp_path):
    (run / places.MANIFEST_LOCK).touch()
    with manifests.recording(run):
        files.write_text(run / BASIS[1], "anew")
    assert names(run) == {*BASIS, places.MANIFEST}
    left = tmp_path / "left"
    left.mkdir()
    (left / places.MANIFEST_LOCK).touch()
    assert not folders.is_run(left)
    with folders.held(left, new=True):
        assert names(left) == {places.LOCK, places.MANIFEST_LOCK}
    with folders.held(tmp_path / "new") as made:
        (made / places.MANIFEST_LOCK).touch()
    assert not (tmp_path / "new").exists()


def test_what_a_killed_first_save_left_is_known_with_a_lock_beside_it(tmp_path):
    with manifests.recording(tmp_path):
        files.write_text(tmp_path / BASIS[0], "first")
        left = (tmp_path / places.MANIFEST).read_text()  # as of a process that was killed now
    (tmp_path / places.MANIFEST).write_text(left)
    (tmp_path / places.MANIFEST_LOCK).touch()
    assert folders.is_run(tmp_path)
    with folders.held(tmp_path, new=True):
        assert not (names(tmp_path) - set(places.LOCKS))

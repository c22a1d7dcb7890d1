"""What a terminal, a pipe and a script get to see: progress, silence, JSON, help by examples."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import pandas as pd
import pytest
from rich.console import Console

from jaxdist import cli
from jaxdist.analysis import dose_tables
from jaxdist.cli import options as cli_options
from jaxdist.cli import output, parser
from jaxdist.compute import progress
from jaxdist.report import documents, summary, verdicts, writing
from jaxdist.storage import places, result_files
from jaxdist.sweep import results
from tests import dose_support, results_support
from tests.cli.terminal_support import SMALL, small_runs, wide

ROOT = Path(__file__).parents[2]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\x9b]")
LONG = "restored_offset_of_a_network_with_a_long_name"


@pytest.fixture
def drawn(monkeypatch):
    """Pictures are not drawn: they take long and do not matter here."""
    monkeypatch.setattr(writing.figures, "save", lambda *_: [])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a trained and a swept run."""
    root = tmp_path_factory.mktemp("terminal") / "runs"
    small_runs(root)
    return root


def screen(text):
    """What a terminal shows of a stream: control sequences taken out, lines as they are."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")


class TestProgress:
    def terminal(self, height=24):
        return Console(
            width=80, height=height, file=io.StringIO(), force_terminal=True, legacy_windows=False, _environ={}
        )

    def test_lines_fit_whatever_is_said(self):
        console = self.terminal()
        with progress.progress_display(console) as show:
            for job in ("train relu", f"sweep {LONG}"):
                for done in (0, 40_000, 100_000):
                    show(job, done, 100_000, "loss 0.1234, test 97.12 %, and more that there is no room for at all")
        shown = screen(console.file.getvalue())
        assert wide(shown) <= 80
        assert "loss 0.1234" in shown
        assert "100000/100000" in shown
        assert "sweep resto" in shown
        assert "…" in shown

    def test_the_line_of_training_has_loss_accuracy_and_rate(self):
        console = self.terminal()
        with progress.progress_display(console) as show:
            show("train relu_l2_neg", 0, 5000, "")
            time.sleep(0.05)  # so that the rate has no more digits than there is room for
            show("train relu_l2_neg", 5000, 5000, "loss 0.0698, test 90.32 %")
        last = screen(console.file.getvalue()).splitlines()[-1]
        assert re.search(r"5000/5000 +\d+/s in 0:0\d loss 0\.0698, test 90\.32 %", last)

    def test_a_job_of_one_piece_has_no_rate(self):
        console = self.terminal()
        with progress.progress_display(console) as show:
            show("report", 0, 1, "")
            show("report", 1, 1, "tables and figures")
        assert re.search(r"1/1 +in 0:0\d tables and figures", screen(console.file.getvalue()).splitlines()[-1])

    def test_a_screen_holds_the_jobs(self):
        console = self.terminal()
        with progress.progress_display(console) as show:
            for k in range(30):
                show(f"sweep family{k}", 0, 2, "")
                show(f"sweep family{k}", 2, 2, "")
        last = screen(console.file.getvalue()).rstrip().split("jobs finished before these")[-1]
        assert len(last.strip().splitlines()) == progress.MOST_BARS
        assert "22 jobs finished before these" in screen(console.file.getvalue())
        assert "family29" in last

    def test_a_job_that_begins_anew_is_shown_anew(self):
        console = self.terminal()
        with progress.progress_display(console) as show:
            show("train relu", 400, 400, "")
            show("train relu", 0, 400, "")
            show("train relu", 100, 400, "the second")
        assert "100/400" in screen(console.file.getvalue()).splitlines()[-1]

    def test_a_terminal_without_cursor_gets_plain_lines(self):
        dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"}, color_system=None)
        with progress.progress_display(dumb) as show:
            show("train relu", 0, 2, "")
            show("train relu", 2, 2, "loss 0.1, test 90.00 %")
        assert re.fullmatch(r"train relu: 2/2 in 0 s(, \d+/s)?; loss 0\.1, test 90\.00 %\n", dumb.file.getvalue())


@pytest.mark.usefixtures("in_an_empty_folder", "drawn")
class TestQuietAndJson:
    @pytest.mark.slow
    def test_quiet_says_nothing(self, capsys):
        assert cli.main(["train", "--quiet", "--out", "run", *SMALL]) == 0
        assert cli.main(["sweep", "run", "-q"]) == 0
        assert cli.main(["report", "run", "--quiet"]) == 0
        assert cli.main(["run", "--out", "run", "--quiet", *SMALL]) == 0
        assert cli.main(["list", ".", "--quiet"]) == 0
        assert capsys.readouterr() == ("", "")
        assert cli.main(["report", "nowhere", "--quiet"]) == 2
        assert capsys.readouterr().err.startswith("jaxdist: nowhere: no result found")

    def test_stdout_is_one_document_with_the_numbers_of_the_tables(self, runs, capsys):
        run = str(runs / "swept")
        assert cli.main(["report", run, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["run"], found["config"]) == (run, f"{run}/config.toml")
        assert (found["state"], found["seeds"], found["steps"]) == ("swept", 2, 3)
        table = pd.read_csv(runs / "swept/tables/tolerance.csv")
        assert len(found["tolerance"]) == len(table)
        for row, cells in zip(found["tolerance"], table.to_dict("records"), strict=True):
            assert [row[name] for name in ("network", "split", "side")] == [
                cells[n] for n in ("network", "split", "side")
            ]
            assert row["censored"] == (row["radius"] is None)
            if row["radius"] is not None:
                assert row["radius"] == pytest.approx(cells["median"], rel=1e-12)
        training = pd.read_csv(runs / "swept/tables/training.csv").set_index("quantity")["mean"]
        for name in ("loss", "train_accuracy", "test_accuracy"):
            assert found["networks"]["relu"][name] == pytest.approx(training[name], rel=1e-6)
        assert found["networks"]["relu"]["dead_units"] == int(result_files.load(run)["ranges"].dead.sum())
        assert found["verdicts"] == []

    def test_progress_goes_to_stderr_beside_a_document(self, capsys):
        assert cli.main(["run", "--out", "run", *SMALL, "--json=-"]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out)["run"] == "run"
        assert "train relu: 3/3" in captured.err
        assert cli.main(["train", "--out", "more", *SMALL, "--json", "--quiet"]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out)["state"] == "trained"
        assert captured.err == ""

    def test_a_file_is_written_beside_what_is_printed(self, runs, capsys, tmp_path):
        assert cli.main(["report", str(runs / "swept"), "--json", "main.json"]) == 0
        assert "How far an edit goes" in capsys.readouterr().out
        assert json.loads((tmp_path / "main.json").read_text())["tolerance"]

    @pytest.mark.parametrize("arguments", [["run", "--json", "configs/paper.toml"], ["list", "--json", "runs"]])
    def test_a_config_or_folder_is_not_taken_for_the_file(self, arguments, capsys):
        assert cli.main(arguments) == 2
        assert "expected a file name ending in .json" in capsys.readouterr().err

    @pytest.mark.slow
    def test_verdicts_are_in_the_document_and_on_stdout(self, capsys, tmp_path):
        given = dose_support.made_up(splits=("test",))
        (tmp_path / "run").mkdir()
        result_files.save(given, tmp_path / "run" / places.RESULT)
        said = documents.main_numbers(given, dose_support.OPTIONS)["verdicts"]
        assert [(one["network"], one["answer"]) for one in said] == [("relu", "distance"), ("abs", "intensity")]
        assert said[0]["sentence"].startswith("mnist relu, dense0/pre, test images: reads distance (p ")
        assert cli.main(["verdict", "run", "--json"]) == 0
        whole = json.loads(capsys.readouterr().out)
        assert {one["sentence"] for one in said} <= {one["sentence"] for one in whole["verdicts"]}

    def test_the_report_of_several_runs_says_where_its_page_is(self, runs, capsys):
        shutil.copytree(runs / "swept", "other")
        assert cli.main(["report", str(runs / "swept"), "other", "--out", "both", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"page": "both/report.html"}
        assert Path("both/report.html").is_file()

    def test_names_are_no_markup(self, capsys):
        given = results_support.made_up(networks=("[b]relu", ":gear:"), sites=("at[/b]/pre", "at/pre"), config_=False)
        summary.show(given)
        output.say(parser.parse(["report", "run"]), summary.summary(given, results.options_of(given).statistics))
        given = dose_support.made_up({"net[/b]": dose_support.DISTANCE})
        found = dose_tables.compare(given, dose_support.OPTIONS)
        output.say(parser.parse(["verdict", "run"]), verdicts.rendered(given, found, dose_support.OPTIONS))
        shown = capsys.readouterr().out
        assert shown.count("at[/b]/pre ") >= 2
        assert shown.count("[b]relu ") >= 2
        assert shown.count(":gear: ") >= 2
        assert re.search(r"^net\[/b\], dense0/pre", shown, re.MULTILINE)

    def test_compare_says_its_answer_as_json_and_by_its_code(self, runs, capsys):
        code = cli.main(["compare", str(runs / "swept"), str(runs / "swept"), "--json", "--pictures", "p"])
        assert code == json.loads(capsys.readouterr().out)["exit_code"] == 0


class TestPipe:
    @pytest.mark.slow
    def test_has_no_control_characters(self, tmp_path):
        compiled = {"JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir)}
        compiled["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "COLUMNS")}
        done = subprocess.run(
            [sys.executable, "-m", "jaxdist", "train", "--out", "run", *SMALL],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**environment, **compiled, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        assert not CONTROL.search(done.stdout)
        assert "train relu: 3/3 in" in done.stdout
        assert done.stderr == ""

    def test_an_error_is_one_line_there_and_wrapped_at_words_on_a_terminal(self, capsys, monkeypatch):
        message = f"{LONG}: expected something else, " + "so do what this sentence says, which goes on and on " * 3
        output.complain(message)
        assert capsys.readouterr().err == f"jaxdist: {message}\n"
        file = io.StringIO()
        terminal = Console(width=80, file=file, force_terminal=True, color_system=None, _environ={})
        monkeypatch.setattr(output, "Console", lambda **_: terminal)
        output.complain(message)
        lines = file.getvalue().splitlines()
        assert wide(file.getvalue()) <= 80
        assert len(lines) > 2
        assert " ".join(line.strip() for line in lines) == f"jaxdist: {message}".strip()


EXAMPLES = [typed for examples in (parser.EXAMPLES, *(c.examples for c in parser.COMMANDS)) for typed, _ in examples]


class TestHelp:
    @pytest.mark.parametrize("command", EXAMPLES)
    def test_every_example_is_a_command(self, command):
        program, *arguments = shlex.split(command)
        options = parser.parse(arguments)
        assert program == "jaxdist"
        if "config" in vars(options):
            if options.config:
                options.config = ROOT / options.config
            cli_options.config_of(options)

    @pytest.mark.parametrize("command", parser.COMMANDS, ids=lambda command: command.name)
    def test_every_command_ends_with_its_examples_and_fits(self, command, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            cli.main([command.name, "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert wide(text) <= 80
        *_, last = text.split("examples:\n")
        assert 2 <= sum(line.startswith("  jaxdist ") for line in last.splitlines()) <= 3
        assert all(typed in last for typed, _ in command.examples)

    def test_alone_it_says_what_there_is(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        assert cli.main([]) == 0
        text = capsys.readouterr().out
        assert wide(text) <= 80
        assert len(text.splitlines()) <= 24
        assert all(f"\n  {command.name} " in text for command in parser.COMMANDS)

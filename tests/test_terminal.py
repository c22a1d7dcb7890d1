"""What a terminal, a pipe and a script get to see: progress, silence, JSON, the list of runs, help by examples."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pandas as pd
import pytest
from rich.console import Console

from jaxdist import cli, documents, files, places, progress, report, results
from jaxdist import config as configs
from jaxdist.cli import options as cli_options
from jaxdist.cli import output, parser
from tests import dose_support, results_support

ROOT = Path(__file__).parents[1]
SMALL = (
    "--train.seeds=2",
    "--train.steps=3",
    "--model.hidden=4",
    "--model.activations=relu",
    "--sweep.families=offset",
)
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\x9b]")
LONG = "restored_offset_of_a_network_with_a_long_name"


@pytest.fixture
def drawn(monkeypatch):
    """Pictures are not drawn: they take long and do not matter here."""
    monkeypatch.setattr(report.figures, "save", lambda *_: [])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a swept, a trained, an unfinished and a damaged run, a deeper one, and one that is no run."""
    root = tmp_path_factory.mktemp("terminal") / "runs"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr("jaxdist.devices.use_all_cores", lambda: None)
        patch.setattr(report.figures, "save", lambda *_: [])
        assert cli.main(["train", "--out", str(root / "trained"), *SMALL]) == 0
        shutil.copytree(root / "trained", root / "swept")
        assert cli.main(["sweep", str(root / "swept")]) == 0
        assert cli.main(["report", str(root / "swept")]) == 0
    noted = root / "unfinished" / places.UNFINISHED / places.NOTED
    config = configs.override(configs.Config(), {"train.steps": "200", "model.activations": "relu,abs"})
    for state in ("training/relu-0/200", "training/relu-0/100", "training/abs-0/60", "training/abs-0/80.tmp"):
        (noted.parent / state).mkdir(parents=True)
    noted.write_text("backend = 'float32'\n[config]\n" + configs.to_toml(config).replace("\n[", "\n[config."))
    shutil.copytree(root / "trained", root / "damaged")
    (root / "damaged" / places.RESULT).write_bytes((root / "swept" / places.RESULT).read_bytes()[:2000])
    (root / "thesis").mkdir()
    (root / "thesis" / "config.toml").write_text("chapters = 7\n")
    dosed = root / "of my thesis, with a name that is much too long for a terminal" / "comparison"
    dosed.mkdir(parents=True)
    given = dose_support.made_up()
    results.save(given, dosed / places.RESULT)
    numbers = documents.text(documents.main_numbers(given, dose_support.OPTIONS))
    files.write_text(dosed / "tables" / places.SUMMARY, numbers)
    return root


def screen(text):
    """What a terminal shows of a stream: control sequences taken out, lines as they are."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")


def wide(text):
    return max(map(len, text.splitlines()), default=0)


class TestProgress:
    def terminal(self, height=24):
        return Console(
            width=80, height=height, file=io.StringIO(), force_terminal=True, legacy_windows=False, _environ={}
        )

    def test_lines_fit_whatever_is_said(self):
        console = self.terminal()
        with progress.shown(console) as show:
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
        with progress.shown(console) as show:
            show("train relu_l2_neg", 0, 5000, "")
            show("train relu_l2_neg", 5000, 5000, "loss 0.0698, test 90.32 %")
        last = screen(console.file.getvalue()).splitlines()[-1]
        assert re.search(r"5000/5000 +\d+/s in 0:0\d loss 0\.0698, test 90\.32 %", last)

    def test_a_job_of_one_piece_has_no_rate(self):
        console = self.terminal()
        with progress.shown(console) as show:
            show("report", 0, 1, "")
            show("report", 1, 1, "tables and figures")
        assert re.search(r"1/1 +in 0:0\d tables and figures", screen(console.file.getvalue()).splitlines()[-1])

    def test_a_screen_holds_the_jobs(self):
        console = self.terminal()
        with progress.shown(console) as show:
            for k in range(30):
                show(f"sweep family{k}", 0, 2, "")
                show(f"sweep family{k}", 2, 2, "")
        last = screen(console.file.getvalue()).rstrip().split("jobs finished before these")[-1]
        assert len(last.strip().splitlines()) == progress.MOST_BARS
        assert "22 jobs finished before these" in screen(console.file.getvalue())
        assert "family29" in last

    def test_a_job_that_begins_anew_is_shown_anew(self):
        console = self.terminal()
        with progress.shown(console) as show:
            show("train relu", 400, 400, "")
            show("train relu", 0, 400, "")
            show("train relu", 100, 400, "the second")
        assert "100/400" in screen(console.file.getvalue()).splitlines()[-1]

    def test_a_terminal_without_cursor_gets_plain_lines(self):
        dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"}, color_system=None)
        with progress.shown(dumb) as show:
            show("train relu", 0, 2, "")
            show("train relu", 2, 2, "loss 0.1, test 90.00 %")
        assert re.fullmatch(r"train relu: 2/2 in 0 s(, \d+/s)?; loss 0\.1, test 90\.00 %\n", dumb.file.getvalue())


@pytest.mark.usefixtures("in_an_empty_folder", "drawn")
class TestQuietAndJson:
    def test_quiet_says_nothing(self, capsys):
        assert cli.main(["train", "--quiet", "--out", "run", *SMALL]) == 0
        assert cli.main(["sweep", "run", "-q"]) == 0
        assert cli.main(["report", "run", "--quiet"]) == 0
        assert cli.main(["run", "--out", "run", "--quiet", *SMALL]) == 0
        assert cli.main(["list", ".", "--quiet"]) == 0
        assert capsys.readouterr() == ("", "")
        assert cli.main(["report", "nowhere", "--quiet"]) == 2
        assert capsys.readouterr().err.startswith("jaxdist: nowhere: no such result")

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
        assert found["networks"]["relu"]["dead_units"] == int(results.load(run)["ranges"].dead.sum())
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
        assert "expected a file that ends in .json" in capsys.readouterr().err

    def test_verdicts_are_in_the_document_and_on_stdout(self, capsys, tmp_path):
        given = dose_support.made_up(splits=("test",))
        (tmp_path / "run").mkdir()
        results.save(given, tmp_path / "run" / places.RESULT)
        verdicts = documents.main_numbers(given, dose_support.OPTIONS)["verdicts"]
        assert [(one["network"], one["answer"]) for one in verdicts] == [("relu", "distance"), ("abs", "intensity")]
        assert verdicts[0]["sentence"].startswith("mnist relu, dense0/pre, test images: reads distance (p ")
        assert cli.main(["verdict", "run", "--json"]) == 0
        whole = json.loads(capsys.readouterr().out)
        assert {one["sentence"] for one in verdicts} <= {one["sentence"] for one in whole["verdicts"]}

    def test_compare_says_its_answer_as_json_and_by_its_code(self, runs, capsys):
        code = cli.main(["compare", str(runs / "swept"), str(runs / "swept"), "--json", "--pictures", "p"])
        assert code == json.loads(capsys.readouterr().out)["exit_code"] == 0


class TestList:
    def shown(self, capsys, *arguments):
        assert cli.main(["list", *map(str, arguments)]) == 0
        return capsys.readouterr().out

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
        given = results_support.made_up(config_=False)
        (tmp_path / "own").mkdir()
        results.save(given, tmp_path / "own" / places.RESULT)
        (one,) = json.loads(self.shown(capsys, tmp_path / "own", "--json"))["runs"]
        group = given["scale"]
        expected = (group.unperturbed / group.total).mean("seed").sel(network="abs", split="test")
        assert one["networks"]["abs"]["test_accuracy"] == pytest.approx(float(expected))
        assert one["steps"] is None

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


class TestPipe:
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


EXAMPLES = [command for each in (parser, *parser.COMMANDS) for command, _ in each.EXAMPLES]


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

    @pytest.mark.parametrize("module", parser.COMMANDS, ids=parser.name_of)
    def test_every_command_ends_with_its_examples_and_fits(self, module, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            cli.main([parser.name_of(module), "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert wide(text) <= 80
        *_, last = text.split("examples:\n")
        assert 2 <= sum(line.startswith("  jaxdist ") for line in last.splitlines()) <= 3
        assert all(command in last for command, _ in module.EXAMPLES)

    def test_alone_it_says_what_there_is(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        assert cli.main([]) == 0
        text = capsys.readouterr().out
        assert wide(text) <= 80
        assert len(text.splitlines()) <= 24
        assert all(f"\n  {parser.name_of(module)} " in text for module in parser.COMMANDS)

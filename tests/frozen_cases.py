"""What the command line says: the help of every command, and the one sentence that answers each wrong input."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

from jaxdist import cli
from tests.frozen_support import FOLDER

COMMANDS = (
    *("run", "train", "plan", "sweep", "merge", "report", "verdict", "list"),
    *("import-torch", "export-torch", "compare", "geometry", "controls", "gallery", "data", "schema"),
)
HELP = FOLDER / "help.txt"
SENTENCES = FOLDER / "sentences.txt"
WIDTH = "100"

SMALL = "--train.seeds 2 --train.steps 2 --model.hidden 8 --model.activations relu"
"""What trains at once."""


class Answer(NamedTuple):
    """What a command printed, and its exit code."""

    out: str
    err: str
    code: int


def answer(*arguments: str) -> Answer:
    """Run a command in this process, as on a terminal of 100 columns that shows no colours."""
    environment = {"COLUMNS": WIDTH, "NO_COLOR": "1"}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                code = cli.main(list(arguments))
            except SystemExit as end:
                code = int(end.code or 0)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return Answer(out.getvalue(), err.getvalue(), code)


def help_texts() -> dict[str, str]:
    """What is printed without a command, and by --help of the program and of every command."""
    asked = {"jaxdist": (), "jaxdist --help": ("--help",)}
    asked |= {f"jaxdist {name} --help": (name, "--help") for name in COMMANDS}
    return {words: answer(*arguments).out for words, arguments in asked.items()}


def write_help(folder: Path) -> None:
    """Keep the help."""
    HELP.write_text("".join(f"$ {words}\n{text}\n" for words, text in help_texts().items()), encoding="utf-8")


def kept_help() -> dict[str, str]:
    """The help as it was kept."""
    parts = re.split(r"^\$ (.*)\n", HELP.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {words: text.removesuffix("\n") for words, text in zip(parts[::2], parts[1::2], strict=True)}


# Inputs, made in the folder that a command is run in.


def config(text: str) -> Callable[[], None]:
    """A config of this text."""
    return lambda: _write("c.toml", text.encode())


def file(name: str, content: bytes) -> Callable[[], None]:
    """A file of this content."""
    return lambda: _write(name, content)


def _write(name: str, content: bytes) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content)


TRAIN, TEST = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"
TRAIN_LABELS, TEST_LABELS = "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"


def idx(array: np.ndarray) -> bytes:
    """An array as an IDX file."""
    kind = {"u1": 0x08, "f4": 0x0D}[array.dtype.str[1:]]
    header = bytes([0, 0, kind, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def images(**changes: bytes | None) -> Callable[[], None]:
    """Four IDX files of 40 and 20 pictures in the folder ``images``, with some of them changed, or left out."""

    def make() -> None:
        draw = np.random.default_rng(0)
        files: dict[str, bytes | None] = {}
        for name, count in (("train", 40), ("test", 20)):
            files[name] = idx(draw.integers(0, 255, (count, 4, 4), np.uint8))
            files[f"{name}_labels"] = idx(np.arange(count, dtype=np.uint8) % 10)
        names = {"train": TRAIN, "train_labels": TRAIN_LABELS, "test": TEST, "test_labels": TEST_LABELS}
        for name, content in (files | changes).items():
            if content is not None:
                _write(f"images/{names[name]}", content)

    return make


def flat_pictures(kind: type[np.generic], value: float) -> dict[str, bytes]:
    """Pictures of one value in both splits."""
    return {name: idx(np.full((count, 4, 4), value, kind)) for name, count in (("train", 40), ("test", 20))}


def first_value(path: str, value: float) -> None:
    """Change the first value of a tensor in a weights file, and remove the list of the folder's files."""
    tensors = {name: tensor.copy() for name, tensor in load_file(path).items()}
    tensors["dense0.weight"].flat[0] = value
    save_file(tensors, path)
    (Path(path).parents[1] / "manifest.json").unlink()


def narrower(path: str) -> None:
    """Leave out a layer's last unit, and remove the list of the folder's files."""
    tensors = load_file(path)
    tensors["dense0.weight"] = np.ascontiguousarray(tensors["dense0.weight"][:, :-1])
    save_file(tensors, path)
    (Path(path).parents[1] / "manifest.json").unlink()


def shorter(path: str, size: int) -> None:
    """Cut the last bytes off a file."""
    Path(path).write_bytes(Path(path).read_bytes()[:-size])


def changed(path: str, place: int) -> None:
    """Change one byte of a file."""
    content = bytearray(Path(path).read_bytes())
    content[place] ^= 1
    Path(path).write_bytes(content)


def checkpoint(kind: str) -> Callable[[], None]:
    """A file ``net.pt`` that PyTorch wrote."""

    def make() -> None:
        import torch

        generator = torch.Generator().manual_seed(0)

        def layer(units: int, inputs: int, scale: float = 1.0) -> torch.Tensor:
            return scale * torch.randn(units, inputs, generator=generator)

        state = {"a.weight": layer(12, 64), "a.bias": torch.zeros(12)}
        state |= {"b.weight": layer(10, 12), "b.bias": torch.zeros(10)}
        square = {f"{name}.weight": layer(64, 64) for name in ("hidden", "input")}
        contents = {
            "list": [1, 2, 3],
            "constant": {name: torch.zeros_like(value) for name, value in state.items()},
            "optimiser": torch.optim.Adam([torch.nn.Parameter(torch.zeros(2, 2))]).state_dict(),
            "inputs": state | {"a.weight": layer(12, 50)},
            "order": square | {"output.weight": layer(10, 64)},
            "transposed": state | {"a.weight": layer(64, 12)},
            "complex": {name: value.to(torch.complex64) for name, value in state.items()},
            "norm": state | {"n.weight": torch.ones(12), "n.running_mean": torch.zeros(12)},
            "not finite": state | {"a.bias": torch.full((12,), torch.nan)},
            "good": state,
        }
        torch.save(contents[kind], "net.pt")

    return make


def two_layers() -> None:
    """A run folder ``two``, of networks with two hidden layers."""
    done = answer(*f"train --out two {SMALL} --model.hidden 8,8".split())
    assert done.code == 0, done.err


def other_size_in_the_list() -> None:
    """Change the list of a folder's files."""
    path = Path("swept/manifest.json")
    path.write_text(path.read_text(encoding="utf-8").replace('"size": ', '"size": 1', 1), encoding="utf-8")


NINE_LABELS = {"train_labels": idx(np.arange(40, dtype=np.uint8) % 9)}


class Case(NamedTuple):
    """A command that cannot be done: its words, what is there before, and which kept run folders are copied there."""

    words: str
    make: Callable[[], None] | None = None
    folders: tuple[str, ...] = ()


BASES = {
    "trained": ("train --out trained {small}",),
    "swept": ("train --out swept {small}", "sweep swept --sweep.families offset --sweep.splits test"),
    "clipped": ("train --out clipped {small}", "sweep clipped --sweep.families clip --sweep.splits test"),
    "distant": ("train --out distant {small} --model.activations relu_l2",),
    "pictured": ("train --out pictured {small} --data.name mnist --data.dir images",),
}
"""Run folders that cases copy, and the commands that make them."""

RELU = "--model.activations relu --data.normalisation unit --out out"
ON_IMAGES = f"--out out --data.name mnist --data.dir images {SMALL}"

CASES = {
    # run
    "an unknown key": Case("run c.toml", config("[train]\nlearning_rat = 0.1\n")),
    "a value of another type": Case("run c.toml", config('[train]\nsteps = "many"\n')),
    "a section that is no table": Case("run c.toml", config("train = 3\n")),
    "a list with an impossible value": Case("run c.toml", config("[model]\nhidden = [16, 0]\n")),
    "a config that is not there": Case("run nowhere.toml"),
    "an unknown option": Case("run --train.stepz 3"),
    "too many arguments": Case("run a.toml b.toml"),
    "no seeds": Case("run --train.seeds 0"),
    "a negative step size": Case("run --train.learning_rate -1"),
    "a seed that is too large": Case("run --train.seed 4294967296"),
    "a number that is none": Case("run --train.steps few"),
    "neither true nor false": Case("run --sweep.dose maybe"),
    "an unknown family": Case("run --sweep.families clip,shear"),
    "a dose that is too large": Case("run --sweep.matched 0.1,2"),
    "an unknown activation": Case("run --model.activations rellu"),
    "a folder for embedded data": Case("run --data.dir images", images()),
    "a name that no data set has": Case("run --data.name Digits!"),
    "a mean that nothing uses": Case("run --out out --data.mean 0.5"),
    "a data folder that is not there": Case("run --out out --data.name mnist --data.dir nowhere"),
    "pictures cut short": Case(f"run {ON_IMAGES}", images(train=idx(np.zeros((40, 4, 4), np.uint8))[:-7])),
    "no IDX file": Case(f"run {ON_IMAGES}", images(test_labels=b"\x89PNG\r\n")),
    "a missing IDX file": Case(f"run {ON_IMAGES}", images(test_labels=None)),
    "a label too few": Case(f"run {ON_IMAGES}", images(train_labels=idx(np.zeros(39, np.uint8)))),
    "a label that is no class": Case(f"run {ON_IMAGES}", images(train_labels=idx(np.full(40, 10, np.uint8)))),
    "one label for all": Case(f"run {ON_IMAGES}", images(train_labels=idx(np.full(40, 3, np.uint8)))),
    "black pictures": Case(f"run {ON_IMAGES}", images(**flat_pictures(np.uint8, 0))),
    "pixels that are not finite": Case(f"run {ON_IMAGES}", images(**flat_pictures(np.float32, np.nan))),
    "a folder in use": Case(f"run --out used {SMALL}", file("used/thesis.tex", b"years of work")),
    "another run's folder": Case(f"run --out trained {SMALL} --train.learning_rate 0.5", None, ("trained",)),
    "training that diverges": Case(f"run --out out {SMALL} --train.steps 60 --train.learning_rate 1e30"),
    "the paper's weights for two layers": Case("run --out out --model.init paper_code --model.hidden 8,8"),
    "the paper's weights of another activation": Case("run --out out --model.init paper_code --model.activations gelu"),
    "exact products of fractions": Case("run --out out --compute.precision exact --data.normalisation unit"),
    "ranges behind an activation with limits": Case("run --out out --model.activations sine"),
    "erased values behind a leaky activation": Case(
        "run --out out --model.activations leaky_relu --sweep.families floor"
    ),
    "magnitudes of ranges in front": Case("run --out out --sweep.gauges absolute --ranges.measured_on pre"),
    "doses of layers together": Case("run --out out --model.hidden 8,8 --sweep.layers all --sweep.dose true"),
    "a process without a meeting place": Case("run --distributed.processes 2"),
    "a meeting place without a port": Case(
        "run --distributed.coordinator here --distributed.processes 2 --distributed.index 0"
    ),
    "a process that is one too many": Case(
        "run --distributed.coordinator a:1234 --distributed.processes 2 --distributed.index 2"
    ),
    # train
    "a layer without units": Case("train --model.hidden 0"),
    "numbers into what is no JSON file": Case("train --json c.toml"),
    "training of what is swept": Case(f"train --out swept {SMALL} --train.seeds 3", None, ("swept",)),
    "a smaller run than is there": Case(f"train --out trained {SMALL} --train.seeds 1", None, ("trained",)),
    # plan
    "no devices": Case("plan --devices 0"),
    "devices that are no number": Case("plan --devices two"),
    "a plan with a seed that is no number": Case("plan --train.seed s"),
    # sweep
    "a sweep of nothing": Case("sweep nothing-here"),
    "a sweep that would train": Case("sweep trained --train.steps 9", None, ("trained",)),
    "an unknown formula": Case("sweep trained --sweep.clip_formula middle", None, ("trained",)),
    "a family of a module that is not there": Case("sweep two --sweep.families scale,nowhere:family", two_layers),
    "other pictures": Case("sweep pictured", images(**NINE_LABELS), ("pictured",)),
    "weights cut short": Case("sweep trained", lambda: shorter("trained/weights/relu.safetensors", 10), ("trained",)),
    "no weights": Case("sweep trained", lambda: Path("trained/weights/relu.safetensors").unlink(), ("trained",)),
    "weights that are not finite": Case(
        "sweep trained", lambda: first_value("trained/weights/relu.safetensors", np.nan), ("trained",)
    ),
    "weights of another shape": Case(
        "sweep trained", lambda: narrower("trained/weights/relu.safetensors"), ("trained",)
    ),
    "weights that were edited": Case(
        "sweep trained",
        lambda: save_file({"dense0.weight": np.zeros((2, 8, 64), np.float32)}, "trained/weights/relu.safetensors"),
        ("trained",),
    ),
    "a result that was changed": Case("sweep trained", lambda: changed("trained/result.nc", 5000), ("trained",)),
    "a result cut short": Case("sweep trained", lambda: shorter("trained/result.nc", 5000), ("trained",)),
    # report
    "a report on nothing": Case("report nothing-here"),
    "a report before a sweep": Case("report trained", None, ("trained",)),
    "several runs without a folder": Case("report swept clipped", None, ("swept", "clipped")),
    "a folder for one run": Case("report swept --out page", None, ("swept",)),
    "a run given twice": Case("report swept swept --out page", None, ("swept",)),
    "a page in a run's folder": Case("report swept clipped --out clipped", None, ("swept", "clipped")),
    "a margin of nothing": Case("report swept --statistics.margin 0", None, ("swept",)),
    "a damaged list of files": Case("report swept", other_size_in_the_list, ("swept",)),
    # verdict
    "a verdict without doses": Case("verdict swept", None, ("swept",)),
    "a verdict on nothing": Case("verdict nothing-here"),
    "a share above one": Case("verdict swept --margin 2", None, ("swept",)),
    # list
    "a list of nothing": Case("list nothing-here"),
    "a list by steps": Case("list --train.steps 3"),
    # compare
    "the paper with itself": Case("compare published published"),
    "a comparison with nothing": Case("compare swept publishd", None, ("swept",)),
    "a comparison before a sweep": Case("compare trained swept", None, ("trained", "swept")),
    "nothing in common": Case("compare swept clipped", None, ("swept", "clipped")),
    "the same networks called independent": Case(
        "compare swept swept --weights independent --pictures pictures", None, ("swept",)
    ),
    "images that are no number": Case("compare swept swept --images many", None, ("swept",)),
    # import-torch
    "a file that is not there": Case(f"import-torch nowhere.pt {RELU}"),
    "an empty file": Case(f"import-torch net.pt {RELU}", file("net.pt", b"")),
    "a web page": Case(f"import-torch net.pt {RELU}", file("net.pt", b"<!DOCTYPE html><html>")),
    "a pointer to a file": Case(
        f"import-torch net.safetensors {RELU}",
        file("net.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n"),
    ),
    "a list of numbers": Case(f"import-torch net.pt {RELU}", checkpoint("list")),
    "an optimiser's state": Case(f"import-torch net.pt {RELU}", checkpoint("optimiser")),
    "a network at chance": Case(f"import-torch net.pt {RELU}", checkpoint("constant")),
    "a network of other pictures": Case(f"import-torch net.pt {RELU}", checkpoint("inputs")),
    "layers in any order": Case(f"import-torch net.pt {RELU}", checkpoint("order")),
    "a layer that is not there": Case(f"import-torch net.pt {RELU} --layers a,c", checkpoint("good")),
    "transposed weights": Case(f"import-torch net.pt {RELU}", checkpoint("transposed")),
    "complex weights": Case(f"import-torch net.pt {RELU}", checkpoint("complex")),
    "a normalised layer": Case(f"import-torch net.pt {RELU}", checkpoint("norm")),
    "imported weights that are not finite": Case(f"import-torch net.pt {RELU}", checkpoint("not finite")),
    "an activation that nothing tells": Case("import-torch net.pt --out out", checkpoint("good")),
    "chance that is neither true nor false": Case(f"import-torch net.pt {RELU} --allow-chance maybe"),
    "an import without words": Case("import-torch a.pt --out out --quiet"),
    # export-torch
    "an export of nothing": Case("export-torch nothing-here --out out"),
    "an export into a folder in use": Case(
        "export-torch trained --out used", file("used/thesis.tex", b"years of work"), ("trained",)
    ),
    "an export of distances": Case("export-torch distant --out out", None, ("distant",)),
    "an export to nowhere": Case("export-torch trained"),
    # data
    "embedded data prepared": Case("data prepare digits --download"),
    "a name in capitals": Case("data prepare My-Data --from images", images()),
    "a download of what is nowhere": Case("data prepare mnistt --download"),
    "data from nowhere": Case("data prepare mine --from nowhere --to tfds"),
    "data from nothing": Case("data prepare mine"),
    # gallery
    "a gallery of something": Case("gallery figures"),
    "a gallery in a file": Case("gallery --out figures/new", file("figures", b"")),
}
"""By what is wrong."""

NEED_TORCH = frozenset(name for name, case in CASES.items() if "import-torch" in case.words or "export" in case.words)

LIBRARIES = (
    # What these libraries say differs between their versions.
    (re.compile(r"(not a readable safetensors file) \(.*\);"), r"\1 (<safetensors>);"),
    (re.compile(r"(not a readable result file) \(OSError: .*\);"), r"\1 (<HDF5>);"),
)


def make_bases(folder: Path) -> None:
    """Make the run folders that cases copy."""
    with contextlib.chdir(folder):
        images()()
        for commands in BASES.values():
            for words in commands:
                done = answer(*words.format(small=SMALL).split(), "--quiet")
                assert done.code == 0, done.err


def said(case: Case, bases: Path, folder: Path) -> Answer:
    """Run a case in an empty folder."""
    for name in case.folders:
        shutil.copytree(bases / name, folder / name)
    with contextlib.chdir(folder):
        if case.make:
            case.make()
        found = answer(*case.words.split())
    sentence = found.err.replace(str(folder.resolve()), "<tmp>").replace(str(folder), "<tmp>")
    for pattern, instead in LIBRARIES:
        sentence = pattern.sub(instead, sentence)
    return found._replace(err=sentence)


def write_sentences(folder: Path) -> None:
    """Keep what every case is answered with."""
    bases = folder / "bases"
    bases.mkdir()
    make_bases(bases)
    parts = []
    for k, (name, case) in enumerate(CASES.items()):
        place = folder / str(k)
        place.mkdir()
        found = said(case, bases, place)
        if found.code != 2 or found.err.count("\n") != 1:
            raise AssertionError(f"{name}: expected code 2 and one sentence, got {found}")
        parts.append(f"# {name}\n$ jaxdist {case.words}\n{found.err}")
    SENTENCES.write_text("\n".join(parts), encoding="utf-8")


def kept_sentences() -> Mapping[str, str]:
    """The sentences as they were kept, by what is wrong."""
    return dict(_blocks(SENTENCES.read_text(encoding="utf-8")))


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    for block in text.split("\n\n"):
        name, _, sentence = block.strip().split("\n")
        yield name.removeprefix("# "), f"{sentence}\n"

"""Reading and writing prepared TFDS data sets; the only module that imports TensorFlow Datasets, and only when called.

TensorFlow is not needed and the network is never used: a builder is made from the files on disk, not from its name.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxdist.data.dataset import Dataset, Split
from jaxdist.errors import InputError

_BATCH = 1000
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_VERSIONS = {"mnist": "3.0.1", "fashion_mnist": "3.0.1"}
# As in tensorflow_datasets/image_classification/mnist.py at 4.9.10.
_CLASS_NAMES = {
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
}


class Arrays(NamedTuple):
    """A data set as stored: images [N, H, W, C] or [N, ...], labels [N]."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def decode(folder: Path) -> Arrays:
    """Return the arrays of the prepared set in `folder`, in stored order.

    Raises `InputError` if it lacks a train or test split or an image and a label, or cannot be read.
    """
    with _readable(folder):
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(folder)
        features, splits = builder.info.features, sorted(builder.info.splits)
        if missing := {"train", "test"} - set(splits):
            raise InputError(
                f"{folder}: no {' or '.join(sorted(missing))} split, only {', '.join(splits) or 'none'}; expected "
                "both train and test; use a data set that has them"
            )
        image, label = builder.info.supervised_keys or ("image", "label")
        if {image, label} - {key for key, feature in features.items() if _numeric(feature)}:
            raise InputError(
                f"{folder}: its features are {', '.join(sorted(features))}, of which {image} and {label} are to be "
                "used; expected pixels and a whole number; use an image-classification data set"
            )
        # TFDS decodes images slowly, and logs that it would rather have OpenCV.
        pictures = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
        decoders = {key: tfds.decode.SkipDecoding() for key in pictures}
        stored = features[image]
        convert = _picture_decoder(stored.np_dtype, stored.shape[-1]) if image in pictures else np.asarray
        train, test = (builder.as_data_source(split, decoders=decoders) for split in ("train", "test"))
        return Arrays(*_columns(train, image, label, convert), *_columns(test, image, label, convert))


def write(dataset: Dataset, data_dir: Path) -> Path:
    """Write a data set as a prepared TFDS data set in `data_dir`, in its order, and return its folder.

    It is written aside and renamed, so nothing that is not whole looks prepared. Raises `InputError` if it cannot be.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=data_dir, prefix=".incomplete-") as aside:
            builder = _builder(dataset, Path(aside))
            # TFDS announces itself on stdout and draws progress bars on stderr.
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                builder.download_and_prepare(file_format="array_record")
            written = Path(builder.data_dir)
            target = data_dir / written.relative_to(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            return written.rename(target)
    except (OSError, RuntimeError) as error:  # array_record raises the latter
        raise InputError(
            f"{data_dir}: {dataset.name} cannot be written there ({_line(error)}); expected a writable folder without "
            "a damaged copy of it; free up space or choose another data folder"
        ) from None


def _builder(dataset: Dataset, data_dir: Path) -> Any:
    """A TFDS builder that yields `dataset`; for the known names, of TFDS's own name, version and features."""
    import tensorflow_datasets as tfds

    shape, pixel = dataset.train.images.shape[1:], dataset.train.images.dtype
    as_png = pixel == np.uint8 and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4)))
    if as_png:
        image = tfds.features.Image(shape=shape if len(shape) == 3 else (*shape, 1))
    else:
        # Only stored as bytes do float64 values keep their precision.
        image = tfds.features.Tensor(shape=shape, dtype=pixel.type, encoding=tfds.features.Encoding.BYTES)
    names = _CLASS_NAMES.get(dataset.name)
    label = tfds.features.ClassLabel(names=names) if names else tfds.features.ClassLabel(num_classes=dataset.classes)

    class Info(tfds.core.DatasetInfo):  # type: ignore[misc]  # TFDS is untyped
        def initialize_from_bucket(self) -> None:
            """Do nothing, where TFDS would look on the web and leave a temporary folder behind."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[misc, call-arg]  # TFDS is untyped
        name = dataset.name
        VERSION = tfds.core.Version(_VERSIONS.get(dataset.name, "1.0.0"))

        def _info(self) -> Any:
            return Info(
                builder=self,
                description=f"{dataset.name}, prepared by jaxdist from IDX files, in the order of the files.",
                features=tfds.features.FeaturesDict({"image": image, "label": label}),
                supervised_keys=("image", "label"),
                # Otherwise TFDS shuffles on writing, and the canonical order is lost.
                disable_shuffling=True,
            )

        def _split_generators(self, _: Any) -> dict[str, Any]:
            return {"train": self._generate_examples(dataset.train), "test": self._generate_examples(dataset.test)}

        def _generate_examples(self, split: Split) -> Iterator[tuple[int, dict[str, Any]]]:
            for index, (pixels, number) in enumerate(zip(*split, strict=True)):
                yield index, {"image": _png(pixels) if as_png else pixels, "label": int(number)}

    return Builder(data_dir=data_dir)


def _numeric(feature: Any) -> bool:
    """Whether a TFDS feature is one array of numbers, not text and not a dictionary of features."""
    return not isinstance(feature.np_dtype, dict) and np.dtype(feature.np_dtype).kind in "uif"


def _columns(
    source: Any, image: str, label: str, convert: Callable[[Any], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Read all of a TFDS data source into images [N, ...] and labels [N]."""
    images, labels = [], []
    for start in range(0, len(source), _BATCH):
        for example in source.__getitems__(range(start, min(start + _BATCH, len(source)))):
            images.append(convert(example[image]))
            labels.append(example[label])
    if len({picture.shape for picture in images}) > 1:
        raise ValueError("its images have several shapes, but one is expected")
    return np.array(images), np.array(labels)


def _picture_decoder(pixel: np.dtype, channels: int) -> Callable[[bytes], np.ndarray]:
    """A decoder of PNG or JPEG bytes to [H, W, C]; TFDS stores float32 as four uint8 channels."""

    def decoded(data: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(data)) as picture:
            mode = _MODES[channels] if pixel == np.uint8 else picture.mode
            array = np.asarray(picture if picture.mode == mode else picture.convert(mode))
        if pixel == np.float32:
            array = array.view(np.float32)
        if array.dtype != pixel:
            raise ValueError(f"a picture has type {array.dtype}, but {pixel} is declared")
        return array.reshape(*array.shape[:2], channels)

    return decoded


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Turn whatever TFDS and its readers raise on damaged files into an `InputError`."""
    try:
        yield
    except (InputError, ImportError):
        raise
    except Exception as error:  # the libraries document no common class for it
        raise InputError(
            f"{folder}: the prepared TFDS data set cannot be read ({_line(error)}); expected intact array_record "
            "files; delete the folder and prepare it again"
        ) from None


def _line(error: Exception) -> str:
    """What an error says, on one line of reasonable length."""
    return " ".join(str(error).split())[:200]

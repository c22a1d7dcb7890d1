"""Fetching the official IDX files of MNIST and Fashion-MNIST."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from jaxdist.data import idx
from jaxdist.errors import InputError

# The addresses in tensorflow_datasets/image_classification/mnist.py at 4.9.10.
MIRRORS = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}
"""The folder on the web of each data set's four gzip files."""

DIGESTS = {
    "mnist": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}
"""SHA-256 of the official files, decompressed, because gzip bytes depend on who compressed them."""

_TIMEOUT = 15.0  # seconds without a byte
_CHUNK = 1 << 20
_MOST = 1 << 27  # bytes; several times the largest of the official files, decompressed


def fetch(name: str, folder: Path, *, base_url: str, digests: Mapping[str, str], report: Callable[[str], None]) -> None:
    """Fetch a data set's gzip files into a folder and check them.

    Args:
      name: of the data set, for messages.
      folder: one that exists.
      base_url: the address before the files' names, such as one of `MIRRORS`.
      digests: by the files' stems, the SHA-256 of their content, decompressed, in hex.
      report: is given a line before each file is fetched.

    Raises:
      InputError: if a file cannot be fetched or is not, decompressed, of the SHA-256 given.
    """
    for stem, expected in digests.items():
        url, path = f"{base_url}{stem}.gz", folder / f"{stem}.gz"
        report(f"fetching {url}")
        try:
            _fetch_file(url, path)
        except (OSError, http.client.HTTPException) as error:
            raise InputError(f"{url}: cannot be fetched ({error}); {_way_out(name)}") from None
        if not official(path, expected):
            raise InputError(f"{url}: not the official {name} file, whose SHA-256 is {expected}; {_way_out(name)}")


def official(path: Path, expected: str) -> bool:
    """Whether the file at `path`, decompressed, has the SHA-256 `expected`."""
    try:
        return idx.digest(path) == expected
    except InputError:
        return False


def _fetch_file(url: str, path: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response, path.open("wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                if file.tell() > _MOST:
                    raise OSError(f"more than {_MOST:,} bytes")
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection open
        raise


def _way_out(name: str) -> str:
    return (
        f"try again later, or put the four files in a folder and run 'jaxdist data prepare {name} --from FOLDER', "
        "which needs no network"
    )

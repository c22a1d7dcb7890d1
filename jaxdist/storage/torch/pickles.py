"""What is in a file that PyTorch or Python's pickle wrote, without executing anything of it, and without PyTorch.

A pickle names classes and functions, which are to be called. Here only names on a list stand for something, all of it
made here: tensors and NumPy arrays, as arrays that are read when they are asked for, a few containers of Python's own,
and the modules of `jaxdist.storage.torch.modules`. Every other name becomes a class without any behaviour, whose
objects keep what was stored in them, so that a network is read beside whatever a training script saved with it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import math
import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.storage.torch import modules
from jaxdist.storage.torch.modules import Foreign

_LEGACY = 0x1950A86A20F9469CFC6C
"""The number that files of torch.save begin with which are no zip archives."""

_TYPES: dict[str, Any] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "UntypedStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
}

_SPELLED = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64")
"""Numbers that PyTorch names as NumPy does; only of these are tensors made by name."""

_MOST_DIMS = 32
_MOST_STEPS = 5_000_000
_MOST_TUPLES = 30_000
"""Tuples in a pickle: of some ten times as many, one in the other, Python cannot take a hash."""
_MOST_ITEMS = 10_000


class DamagedError(ValueError):
    """A file that does not hold what it says."""


class _Sealed:
    """What no pickle may change once it is made: its instruction BUILD would write past all checks."""

    def __setstate__(self, state: Any) -> None:
        raise DamagedError("it changes a tensor after making it")


@dataclasses.dataclass(frozen=True)
class _Stored(_Sealed):
    """The numbers of one or more tensors in a file."""

    dtype: np.dtype
    read: Callable[[], bytes]


class Tensor(_Sealed):
    """A tensor or array of a file, of which the numbers are read when they are asked for."""

    def __init__(self, storage: _Stored, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        """Take what a file says of a tensor; `offset` and `stride` count numbers, not bytes."""
        numbers = (offset, *shape, *stride)
        plain = all(isinstance(number, int) and 0 <= number < 2**48 for number in numbers)
        if not plain or len(shape) != len(stride) or len(shape) > _MOST_DIMS:
            raise DamagedError(f"a tensor has shape {shape}, strides {stride} and offset {offset}")
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers."""
        return self.storage.dtype

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """Read the numbers.

        Raises:
          DamagedError: if the file holds fewer than the tensor claims.
        """
        stored = np.frombuffer(self.storage.read(), np.uint8)
        flat = stored[: len(stored) // self.dtype.itemsize * self.dtype.itemsize].view(self.dtype)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        # One that claims more numbers than its file holds would only fill the memory.
        if self.size and (last >= len(flat) or self.size > len(flat)):
            raise DamagedError(
                f"a tensor claims {counted(self.size, 'number')}, but the file holds {len(flat)}; it is not a plain "
                "dense array"
            )
        steps = [step * self.dtype.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, steps, writeable=False)
        return np.array(view if self.size else np.zeros(self.shape, self.dtype), dtype or self.dtype)

    def item(self) -> Any:
        """Its only number."""
        return np.asarray(self).item()


class _Dictionary(dict[Any, Any]):
    """A dictionary of another kind, whatever it was made of."""

    def __init__(self, *parts: Any, **named: Any) -> None:
        super().__init__(next((part for part in parts if isinstance(part, Mapping)), {}))

    def __setstate__(self, state: Any) -> None:
        pass


class _Ordered(collections.OrderedDict[Any, Any]):
    """As PyTorch's state_dicts are, which also have attributes."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Numbers:
    """The type of a NumPy array's numbers, as it is pickled."""

    def __init__(self, code: Any = "", *parts: Any) -> None:
        self.code, self.big = code, False

    def __setstate__(self, state: Any) -> None:
        self.big = isinstance(state, tuple) and len(state) > 1 and state[1] == ">"

    @property
    def dtype(self) -> np.dtype:
        if not isinstance(self.code, str) or not re.fullmatch(r"[fiu][1248]|b1", self.code):
            raise DamagedError(f"an array is of the type {self.code!r}, which is not a plain number")
        return np.dtype(self.code).newbyteorder(">" if self.big else "<")


class _Array:
    """A NumPy array, as it is pickled: made empty, and then given its content."""

    tensor: Tensor | None = None

    def __init__(self, *parts: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, numbers, fortran, content = state
        # Of words or objects, it is nothing that a network needs.
        with contextlib.suppress(DamagedError):
            self.tensor = _array(content, numbers, shape, fortran=bool(fortran))

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """Read the numbers."""
        if self.tensor is None:
            raise DamagedError("an array has no content")
        return np.asarray(self.tensor, dtype)


def _array(content: Any, numbers: Any, shape: Any, *, fortran: bool) -> Tensor:
    if isinstance(content, str):
        content = content.encode("latin1")
    if not (isinstance(numbers, _Numbers) and isinstance(shape, tuple) and isinstance(content, bytes | bytearray)):
        raise DamagedError("an array does not consist of plain numbers")
    strides: list[int] = []
    for axis in range(len(shape)):
        inner = shape[:axis] if fortran else shape[axis + 1 :]
        strides.append(math.prod(inner))
    raw = bytes(content)
    return Tensor(_Stored(numbers.dtype, lambda: raw), 0, shape, tuple(strides))


def _from_buffer(content: Any, numbers: Any, shape: Any, order: Any = "C", *_: Any) -> Tensor:
    return _array(content, numbers, shape, fortran=order == "F")


def _scalar(numbers: Any, content: Any = b"") -> Any:
    try:
        return _array(content, numbers, (), fortran=False).item()
    except DamagedError:
        return Foreign()


def _rebuilt(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Any:
    if not isinstance(storage, _Stored):
        return Foreign()
    return Tensor(storage, offset, tuple(shape), tuple(stride))


def _retyped(storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, kind: Any, *_: Any) -> Any:
    if not isinstance(storage, _Stored) or not isinstance(kind, np.dtype):
        return Foreign()
    return Tensor(_Stored(kind, storage.read), offset, tuple(shape), tuple(stride))


def _same(value: Any, *_: Any) -> Any:
    return value


def _typed(function: Any, _type: Any, parts: Any, _state: Any) -> Any:
    """A tensor that has attributes, or is of a class of its own."""
    made_here = any(function is each for each in (_rebuilt, _retyped, _same))
    return function(*parts) if made_here and isinstance(parts, tuple) else Foreign()


def _encoded(text: Any, encoding: Any = "latin1") -> Any:
    return text.encode("latin1") if isinstance(text, str) and encoding == "latin1" else b""


def _names(items: Any = (), *_: Any) -> set[str]:
    """The names in a set; of what else may be in one nothing is needed."""
    short = isinstance(items, list | tuple) and len(items) < _MOST_ITEMS
    return {item for item in items if isinstance(item, str)} if short else set()


def _size(items: Any = (), *_: Any) -> Any:
    """A shape."""
    return tuple(items) if isinstance(items, list | tuple) and len(items) <= _MOST_DIMS else Foreign()


def _dictionary(*parts: Any) -> Any:
    return parts[0] if parts and isinstance(parts[0], dict) else {}


def _object_of(kind: Any, *_: Any) -> Any:
    return kind() if isinstance(kind, type) and issubclass(kind, Foreign) else Foreign()


_NAMES: dict[str, Any] = {
    "collections.OrderedDict": _Ordered,
    **{f"collections.{name}": _Dictionary for name in ("defaultdict", "Counter")},
    **{f"{module}.dict": _dictionary for module in ("builtins", "__builtin__")},
    **{f"{module}.{kind}": _names for module in ("builtins", "__builtin__") for kind in ("set", "frozenset")},
    **{
        f"{module}.{name}": _object_of
        for module in ("copyreg", "copy_reg")
        for name in ("_reconstructor", "__newobj__")
    },
    "_codecs.encode": _encoded,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _rebuilt,
    "torch._utils._rebuild_tensor_v2": _rebuilt,
    "torch._utils._rebuild_tensor_v3": _retyped,
    "torch._utils._rebuild_parameter": _same,
    "torch._utils._rebuild_parameter_with_state": _same,
    "torch._tensor._rebuild_from_type_v2": _typed,
    **{f"torch.{name}": np.dtype(name) for name in _SPELLED},
    "torch.bfloat16": np.dtype(ml_dtypes.bfloat16),
    **{f"torch.{name}": np.dtype(kind) for name, kind in _TYPES.items()},
    "torch.storage.UntypedStorage": np.dtype(np.uint8),
    "numpy.ndarray": _Array,
    "numpy.dtype": _Numbers,
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")
        for name, function in {
            "multiarray._reconstruct": lambda *_: _Array(),
            "multiarray.scalar": _scalar,
            "numeric._frombuffer": _from_buffer,
        }.items()
    },
    **modules.STAND_INS,
}
"""All that a name in a file may stand for; every other is `Foreign`."""


class _Reader(pickle.Unpickler):
    """Python's unpickler, to which a file's names mean what the list says."""

    def __init__(
        self, content: io.BytesIO, storage_of: Callable[[Any, np.dtype, int], _Stored], *, inside: bool = False
    ) -> None:
        _check(content)
        super().__init__(content, encoding="latin1")
        self._storage_of, self._inside = storage_of, inside
        self._foreign: dict[str, type[Foreign]] = {}
        self._storages: dict[int, tuple[bytes, Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full == "torch.storage._load_from_bytes":
            return self._unpickled_storage
        if full in _NAMES:
            return _NAMES[full]
        if full not in self._foreign:
            self._foreign[full] = type(full.rpartition(".")[2], (Foreign,), {"named": full})
        return self._foreign[full]

    def _unpickled_storage(self, content: Any = None) -> Any:
        """Storage inside a pickle that torch.save did not write, which is a file of torch.save by itself."""
        if not isinstance(content, bytes) or self._inside:
            return Foreign()
        if id(content) not in self._storages:  # kept with its bytes, so that no others get their place
            self._storages[id(content)] = content, _legacy(io.BytesIO(content), inside=True)
        return self._storages[id(content)][1]

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) == 2 and pid[0] == "module":
            return pid[1]
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[1], np.dtype)):
            return Foreign()
        storage = self._storage_of(pid[2], pid[1], pid[4])
        if len(pid) < 6 or pid[5] is None:
            return storage
        _, offset, count = pid[5]
        if not all(isinstance(number, int) and 0 <= number < 2**48 for number in (offset, count)):
            raise DamagedError("a view of its numbers has no place")
        size = storage.dtype.itemsize
        return _Stored(storage.dtype, lambda: storage.read()[offset * size : (offset + count) * size])


def _check(content: io.BytesIO) -> None:
    """Refuse a pickle that would exhaust the memory or the stack while it is read.

    Raises:
      DamagedError: for more instructions of a kind than any network needs, or entries of the memo out of turn.
    """
    start = content.tell()
    counts: collections.Counter[str] = collections.Counter()
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        counts[opcode.name] += 1
        if "PUT" in opcode.name and int(argument or 0) > number + 1:
            raise DamagedError("its memo has entries out of turn")
        if number > _MOST_STEPS:
            break
    content.seek(start)
    tuples = sum(counts[name] for name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"))
    names = sum(counts[name] for name in ("GLOBAL", "STACK_GLOBAL", "INST"))
    if sum(counts.values()) > _MOST_STEPS or tuples > _MOST_TUPLES or names > _MOST_ITEMS:
        raise DamagedError("it holds far more than a network and what training scripts save with it")


def load(path: Path) -> Any:
    """What is in a file of torch.save, of torch.jit.save or of pickle.dump.

    Tensors and arrays are `Tensor`s, of which the numbers are not read yet; known modules are stand-ins, and every
    other object is `Foreign`.

    Raises:
      InputError: if the file is missing, broken, or none of these.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; pass a PyTorch or safetensors file, or a folder of them")
    try:
        if zipfile.is_zipfile(path):
            return _archived(path)
        content = path.read_bytes()
        if content.startswith(b"PK"):
            raise DamagedError("its zip archive ends too early")
        try:
            return _legacy(io.BytesIO(content))
        except _NoMagicError:
            return _Reader(io.BytesIO(content), _no_storage).load()
    except InputError:
        raise
    except Exception as error:  # Whatever a file of unknown origin leads to is that file's fault.
        said = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(
            f"{path}: not a readable PyTorch file ({said}); nothing in it was executed; copy it again, or save it with "
            "torch.save(model.state_dict(), FILE)"
        ) from None


def array_of(value: Any) -> Tensor | None:
    """A value as a tensor; None if it is none."""
    if isinstance(value, _Array):
        return value.tensor
    return value if isinstance(value, Tensor) else None


class _NoMagicError(Exception):
    """A pickle that torch.save did not write."""


def _no_storage(key: Any, dtype: np.dtype, count: int) -> _Stored:
    raise DamagedError(f"numbers are missing: storage {key!r} of {count} {dtype}")


def _archived(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickled = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickled) != 1:
            raise DamagedError("a zip archive that holds no data.pkl, or several")
        root = pickled[0].removesuffix("data.pkl")
        order = _member(archive, f"{root}byteorder") if f"{root}byteorder" in names else b"little"
        if order.strip() != b"little":
            raise DamagedError("its numbers are written with the highest byte first")
        content = _member(archive, pickled[0])

    def storage(key: Any, dtype: np.dtype, _count: int) -> _Stored:
        def read() -> bytes:
            with zipfile.ZipFile(path) as archive:
                return _member(archive, f"{root}data/{key}")

        return _Stored(dtype, read)

    return _Reader(io.BytesIO(content), storage).load()


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:  # A small file could fill the memory.
        raise DamagedError(f"its part {name!r} is compressed, which torch.save does not do")
    return archive.read(name)


def _legacy(content: io.BytesIO, *, inside: bool = False) -> Any:
    """What torch.save wrote before its files were archives: four pickles, then each storage behind its length."""
    storages: dict[Any, bytes] = {}
    sizes: dict[Any, int] = {}

    def storage(key: Any, dtype: np.dtype, _count: int) -> _Stored:
        sizes[key] = dtype.itemsize
        return _Stored(dtype, lambda: storages[key])

    try:
        magic = _Reader(content, storage, inside=inside).load()
    except Exception:  # Of whatever kind, it does not begin as torch.save begins; another reader says what it is.
        raise _NoMagicError from None
    if not isinstance(magic, int) or magic != _LEGACY:
        raise _NoMagicError
    _version, system = (_Reader(content, storage, inside=inside).load() for _ in range(2))
    if not (isinstance(system, Mapping) and system.get("little_endian", True)):
        raise DamagedError("its numbers are written with the highest byte first")
    value, keys = (_Reader(content, storage, inside=inside).load() for _ in range(2))
    for key in keys:
        header = content.read(8)
        size = struct.unpack("<q", header)[0] * sizes[key] if len(header) == 8 else -1
        storages[key] = content.read(size) if size >= 0 else b""
        if size < 0 or len(storages[key]) != size:
            raise DamagedError("it ends before all of its numbers")
    return value

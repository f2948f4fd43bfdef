"""PyTorch files: tensors only, never a pickle that could run code. Torch is loaded when needed."""

import mmap
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from imp_rg.foreign.array_files import zip_members
from imp_rg.foreign.leaves import DTYPES, Leaf, UnreadableError, add_leaf, check_size, walk

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of what PyTorch wrote before version 1.6."""

_INTEGER_OPS = {"BININT", "BININT1", "BININT2", "LONG1"}
_TUPLE_OPS = {"MARK", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE"}
_FLAG_OPS = {"NEWTRUE", "NEWFALSE"}


def require_torch(path: Path) -> None:
    """Raises `ValueError` that says how to install torch unless it is there."""
    try:
        import torch as torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f"torch: must be installed to read {path}; pip install 'imp-rg[torch]'"
        ) from error


def read_torch(path: Path) -> dict[str, Leaf]:
    """Tensors of a file written by `torch.save`, mapped unless the file is of the old kind.

    Raises:
      UnreadableError: If the file holds other objects, or a tensor that has no plain values.
    """
    import torch  # pyright: ignore[reportMissingImports]

    with open(path, "rb") as file:
        is_zip = file.read(2) == b"PK"
    if is_zip:
        if any(m.compress_type != zipfile.ZIP_STORED for m in zip_members(path)):
            raise UnreadableError("must be as torch.save writes it, without compression")
    else:
        _check_legacy_sizes(path)
    try:
        tree = torch.load(path, weights_only=True, mmap=is_zip, map_location="cpu")
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        culprit = f" ({found[1]})" if found else ""
        raise UnreadableError(
            f"holds more than tensors{culprit} or is damaged, and reading objects could run code; "
            "save its state_dict() with torch.save"
        ) from error
    leaves: dict[str, Leaf] = {}
    for name, value in walk(tree):
        if isinstance(value, torch.Tensor):
            add_leaf(leaves, name, _leaf(name, value.detach(), path.stat().st_size))
    return leaves


def _leaf(name: str, tensor: Any, file_size: int) -> Leaf:
    """A tensor as array; values that only torch can hold in that form are refused."""
    import torch  # pyright: ignore[reportMissingImports]

    kind = str(tensor.dtype).removeprefix("torch.")
    is_plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not is_plain or tensor.is_quantized or tensor.is_nested or kind not in DTYPES:
        raise UnreadableError(
            f"tensor {name!r} must be dense and on the CPU, got {kind} with layout "
            f"{tensor.layout} on {tensor.device}; convert it before saving"
        )
    shape, dtype = tuple(map(int, tensor.shape)), DTYPES[kind]
    check_size(name, shape, dtype, limit=file_size)
    return Leaf(shape, dtype, lambda: _values(tensor))


def _values(tensor: Any) -> np.ndarray:
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()
    return tensor.resolve_conj().resolve_neg().numpy()


def _check_legacy_sizes(path: Path) -> None:
    """Refuses tensors of an old file that claim more than it holds, before torch allocates them.

    The file begins with five pickles, of which the fourth is the content. They are only looked
    through here; nothing in them runs.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for _ in range(5):
            ops: list[tuple[str, Any]] = []
            # A map reads like a file, and never hands out more than there is.
            for opcode, argument, _ in pickletools.genops(data):  # pyright: ignore[reportArgumentType]
                if "PUT" not in opcode.name or (ops and ops[-1][0] == "BINPERSID"):
                    ops.append((opcode.name, argument))
            for i, (name, _) in enumerate(ops):
                if name == "BINPERSID":
                    _check_legacy_tensor(ops, i, len(data))


def _check_legacy_tensor(ops: list[tuple[str, Any]], at: int, file_size: int) -> None:
    """Checks the storage named at one place and the tensor made of it.

    The storage is a tuple that ends in its length and None; offset, shape and strides of the tensor
    follow as plain integers, then a flag. What is built in any other way is refused, since it could
    hide its size.
    """
    before, after, integers = ops[max(at - 3, 0) : at], at + 1, []
    while after < len(ops) - 1 and ops[after][0] in _INTEGER_OPS | _TUPLE_OPS:
        if ops[after][0] in _INTEGER_OPS:
            integers.append(ops[after][1])
        after += 1
    is_usual = [name for name, _ in before][1:] == ["NONE", "TUPLE"] and len(integers) % 2 == 1
    if not is_usual or before[0][0] not in _INTEGER_OPS or ops[after][0] not in _FLAG_OPS:
        raise UnreadableError("must hold tensors as torch.save writes them")
    length, (offset, *sizes_and_strides) = before[0][1], integers
    num_dims = len(sizes_and_strides) // 2
    sizes, strides = sizes_and_strides[:num_dims], sizes_and_strides[num_dims:]
    end = offset + 1 + sum((n - 1) * stride for n, stride in zip(sizes, strides, strict=True))
    if min(length, *integers) < 0 or length > file_size or (0 not in sizes and end > length):
        raise UnreadableError(
            f"a tensor of shape {tuple(sizes)} in a storage of length {length} must fit into both "
            f"it and the {file_size} bytes of the file"
        )

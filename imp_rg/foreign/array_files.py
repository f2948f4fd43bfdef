"""Arrays in safetensors and npz files, mapped where they lie as plain bytes."""

import json
import struct
import zipfile
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from safetensors import safe_open

from imp_rg.foreign.leaves import (
    DTYPES,
    MAX_INFLATED,
    Leaf,
    UnreadableError,
    add_leaf,
    check_size,
    map_file,
    mapped_leaf,
)

MAX_HEADER = 100_000_000
"""Bytes of the longest safetensors header, as its own library has it."""

MAX_DEFLATE_RATIO = 1100
"""Deflate expands at most 1032 times (an all-True mask nearly so): a larger claim is false."""

_SAFETENSORS_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
}


def is_safetensors(head: bytes, size: int) -> bool:
    """Whether the first 9 bytes are those of a safetensors file of `size` bytes."""
    if len(head) < 9 or head[8:9] != b"{":
        return False
    return struct.unpack("<Q", head[:8])[0] <= min(size - 8, MAX_HEADER)


def read_safetensors(path: Path) -> tuple[dict[str, Leaf], dict[str, str]]:
    """Arrays and metadata of a safetensors file.

    Raises:
      UnreadableError: If a tensor is of a type that NumPy cannot hold.
      SafetensorError: If the header does not describe the file.
    """
    # The library checks the header (offsets without gaps or overlaps that fit shape and type),
    # but gives copies, and bfloat16 not at all.
    with safe_open(path, "numpy") as file:
        metadata = file.metadata() or {}
    data = map_file(path)
    length = struct.unpack("<Q", data[:8].tobytes())[0]
    header = json.loads(data[8 : 8 + length].tobytes())
    leaves: dict[str, Leaf] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            raise UnreadableError(f"tensor {name!r} is of type {entry['dtype']}; save it as F32")
        dtype = DTYPES[_SAFETENSORS_DTYPES[entry["dtype"]]]
        start = 8 + length + entry["data_offsets"][0]
        add_leaf(leaves, name, mapped_leaf(name, data, start, tuple(entry["shape"]), dtype))
    return leaves, metadata


def zip_members(path: Path) -> list[zipfile.ZipInfo]:
    """Members of a zip archive whose declared sizes can be true.

    Raises:
      UnreadableError: If members are encrypted, packed in a rare way, twice there, or overlap, or
        if one claims to expand to more than it can.
      BadZipFile: If it is no zip archive.
    """
    with zipfile.ZipFile(path) as archive:
        members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    end = 0
    for member in members:
        name = member.filename
        if member.flag_bits & 1 or member.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise UnreadableError(f"member {name!r} must be stored or deflated and not encrypted")
        if member.header_offset < end:
            raise UnreadableError(f"member {name!r} must not overlap another one")
        _check_expansion(member)
        end = member.header_offset + 30 + member.compress_size
    if end > path.stat().st_size:
        raise UnreadableError("must hold all its members; the file is truncated")
    if len({member.filename for member in members}) < len(members):
        raise UnreadableError("must not hold two members of one name")
    return members


def _check_expansion(member: zipfile.ZipInfo) -> None:
    size, packed = member.file_size, member.compress_size
    is_stored = member.compress_type == zipfile.ZIP_STORED
    if is_stored and size != packed or size > MAX_DEFLATE_RATIO * packed + 64:
        raise UnreadableError(f"member {member.filename!r} claims {size} bytes in {packed}")
    if not is_stored and size > MAX_INFLATED:
        raise UnreadableError(
            f"member {member.filename!r} must expand to at most {MAX_INFLATED} bytes, got {size}; "
            "save it uncompressed"
        )


def read_npz(path: Path) -> dict[str, Leaf]:
    """Numeric arrays of an npz file; text and dates are left out.

    Uncompressed members are mapped, compressed ones are read whole when asked for.

    Raises:
      UnreadableError: If a member is a pickled object, or not what its header says.
    """
    data = map_file(path)
    leaves: dict[str, Leaf] = {}
    members = zip_members(path)
    with zipfile.ZipFile(path) as archive:
        for member in members:
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                shape, is_fortran, dtype = _npy_header(name, file)
                header_size = file.tell()
            if dtype.kind in "SUMm":
                continue
            num_bytes = check_size(name, shape, dtype, limit=member.file_size - header_size)
            if header_size + num_bytes != member.file_size:
                raise UnreadableError(f"tensor {name!r} must fill its member; {shape} does not")
            if member.compress_type == zipfile.ZIP_STORED:
                start = _data_start(data, member) + header_size
                leaf = mapped_leaf(name, data, start, shape[::-1] if is_fortran else shape, dtype)
                leaf = _transposed(leaf) if is_fortran else leaf
            else:
                leaf = Leaf(shape, dtype, partial(_inflate, path, member))
            add_leaf(leaves, name, leaf)
    return leaves


def _npy_header(name: str, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise UnreadableError(f"tensor {name!r} must be plain numbers, got npy version {version}")
    if dtype.hasobject:
        raise UnreadableError(
            f"tensor {name!r} is a pickled Python object, and reading those could run code; "
            "save arrays of numbers only"
        )
    if dtype.kind not in "biufcSUMm":
        raise UnreadableError(
            f"tensor {name!r} must be plain numbers, got {dtype}; save bfloat16 as float32"
        )
    return tuple(map(int, shape)), is_fortran, dtype


def _data_start(data: np.ndarray, member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: after its own header, whose length only it knows."""
    start = member.header_offset
    name_size, extra_size = struct.unpack("<HH", data[start + 26 : start + 30].tobytes())
    return start + 30 + name_size + extra_size


def _transposed(leaf: Leaf) -> Leaf:
    return Leaf(leaf.shape[::-1], leaf.dtype, lambda: leaf.read().T)


def _inflate(path: Path, member: zipfile.ZipInfo) -> np.ndarray:
    with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        file.read(1)  # the checksum is compared at the end of the member
    return array

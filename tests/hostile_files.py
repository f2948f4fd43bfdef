"""Checkpoint files for tests: sound ones by the libraries that own the formats; hostile ones."""

import importlib
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import flax.serialization
import msgpack
import numpy as np
import orbax.checkpoint as ocp
import safetensors.numpy

LEGACY = {"_use_new_zipfile_serialization": False}


def write_safetensors(path, tree):
    safetensors.numpy.save_file(flatten(tree), path, metadata={"made": "by a test"})


def write_npz(path, tree):
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, **flatten(tree))


def write_compressed_npz(path, tree):
    with open(path, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **flatten(tree))


def write_msgpack(path, tree):
    path.write_bytes(flax.serialization.msgpack_serialize(tree))


def write_orbax(path, tree):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), tree)


def write_torch(path, tree, **how):
    import torch  # pyright: ignore[reportMissingImports]

    def to_torch(node):
        if isinstance(node, dict):
            return {key: to_torch(child) for key, child in node.items()}
        return torch.from_numpy(np.array(node))

    torch.save(to_torch(tree), path, **how)


def write_legacy_torch(path, tree):
    write_torch(path, tree, **LEGACY)


WRITERS = {
    "safetensors": write_safetensors,
    "npz": write_npz,
    "compressed npz": write_compressed_npz,
    "msgpack": write_msgpack,
    "orbax": write_orbax,
    "torch": write_torch,
    "legacy torch": write_legacy_torch,
}


def flatten(tree, prefix=""):
    flat = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}/") if isinstance(value, dict) else {name: value}
    return flat


def small_tree():
    rng = np.random.default_rng(0)
    return {
        "params": {
            "stage1": {"kernel": rng.normal(size=(3, 3, 2, 4)).astype(np.float32)},
            "head": {
                "kernel": rng.normal(size=(4, 5)),
                "bias": np.linspace(0.1, 0.5, 5, dtype=np.float32),
            },
        },
        "masks": {"head": rng.random((4, 5)) < 0.5},
        "counts": np.arange(7),
    }


class RunsCode:
    """Pickles to a call that makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return (os.mkdir, (self.folder,))


def malicious_pickle(folder, protocol=2):
    return pickle.dumps({"w": RunsCode(folder)}, protocol=protocol)


def malicious_npz(path, folder):
    with open(path, "wb") as file:
        np.savez(file, a=np.ones(3), w=np.array([RunsCode(folder)], object))


def malicious_msgpack(path, folder, code):
    ext = msgpack.ExtType(code, malicious_pickle(folder))
    path.write_bytes(msgpack.packb({"a": 1, "w": ext}))


def malicious_torch(path, folder, **how):
    import torch  # pyright: ignore[reportMissingImports]

    torch.save({"a": torch.ones(3), "w": RunsCode(folder)}, path, **how)


class BuildsTensor:
    """Pickles to a tensor of any shape over a small storage."""

    def __init__(self, shape, offset=0):
        self.shape, self.offset = tuple(shape), offset

    def __reduce__(self):
        import torch  # pyright: ignore[reportMissingImports]

        storage = torch.storage.TypedStorage(
            wrap_storage=torch.ones(4).untyped_storage(), dtype=torch.float32, _internal=True
        )
        strides = tuple(np.cumprod([1, *self.shape[:0:-1]], dtype=object)[::-1])
        args = (storage, self.offset, self.shape, strides, False, {})
        return (importlib.import_module("torch._utils")._rebuild_tensor_v2, args)


def safetensors_file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def npy_bytes(shape, *, descr: object = "<f4", data=b"", is_fortran=False, version=b"\x01\x00"):
    header = f"{{'descr': {descr!r}, 'fortran_order': {is_fortran}, 'shape': {shape}}}"
    return raw_npy(header, data, version)


def raw_npy(header, data=b"", version=b"\x01\x00"):
    text = header.encode("latin1", "replace") + b"\n"
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + size + text + data


def zip_file(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def zip_bomb(path, num_bytes):
    """A member that inflates to zeros, whose header says as much."""
    header = npy_bytes((num_bytes // 4,))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("bomb.npy", "w", force_zip64=True) as member:
            member.write(header)
            zeros = bytes(1 << 24)
            for _ in range(num_bytes >> 24):
                member.write(zeros)


def lying_zip(path, claimed):
    """A deflated member whose directory claims a size that it does not have."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", npy_bytes((claimed // 4,), data=bytes(400)))
    content = bytearray(buffer.getvalue())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = struct.pack("<I", claimed)
    Path(path).write_bytes(content)


def overlapping_zip(path):
    """Two directory entries for the bytes of one member."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", npy_bytes((2,), data=bytes(8)))
        archive.writestr("b.npy", npy_bytes((2,), data=bytes(8)))
    content = bytearray(buffer.getvalue())
    second = content.rindex(b"PK\x01\x02")
    content[second + 42 : second + 46] = struct.pack("<I", 0)
    Path(path).write_bytes(content)


def flax_array(shape, name="float32", data=b"", code=1):
    return msgpack.ExtType(code, msgpack.packb((shape, name, data)))

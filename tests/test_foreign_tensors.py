"""Files of the real libraries come back as they were; hostile ones give one line."""

import os
import subprocess
import sys
import warnings
import zipfile

import flax.serialization
import hostile_files as hostile
import jax.numpy as jnp
import ml_dtypes
import msgpack
import numpy as np
import orbax.checkpoint as ocp
import pytest

from imp_rg.foreign import leaves as limits
from imp_rg.foreign import tensors
from imp_rg.foreign.tensors import is_tensor_file, open_tensors

FORMATS = list(hostile.WRITERS)


def write(kind, path, tree):
    if "torch" in kind:
        pytest.importorskip("torch")
    hostile.WRITERS[kind](path, tree)
    return path


def refusal(path):
    """The one line that says why a file is not read."""
    with pytest.raises(ValueError) as error:
        dict(open_tensors(path))
    line = str(error.value)
    assert "\n" not in line and line.startswith(f"{path}: ") and len(line) < len(str(path)) + 400
    return line


@pytest.mark.parametrize("kind", FORMATS)
def test_real_files_come_back(tmp_path, kind):
    path = write(kind, tmp_path / "file.of_no_ending", hostile.small_tree())
    expected = hostile.flatten(hostile.small_tree())
    assert is_tensor_file(path)
    file = open_tensors(path)
    assert file.format == kind.split()[-1] and file.path == path
    assert set(file) == set(expected) and len(file) == len(expected)
    assert file.shapes == {name: value.shape for name, value in expected.items()}
    for name, value in expected.items():
        np.testing.assert_array_equal(file[name], value, strict=True)
        assert file[name].dtype == file.dtypes[name]
        assert not file[name].flags.writeable
    with pytest.raises(KeyError):
        file["absent"]


@pytest.mark.parametrize("kind", FORMATS)
def test_names_are_known_without_values(tmp_path, kind, monkeypatch):
    path = write(kind, tmp_path / "w", hostile.small_tree())
    file = open_tensors(path)
    reads = []
    spied = {
        name: leaf._replace(read=lambda name=name, leaf=leaf: reads.append(name) or leaf.read())
        for name, leaf in file.leaves.items()
    }
    file = tensors.TensorFile(file.path, file.format, spied, {})
    assert file.shapes and file.dtypes and "counts" in file and not reads
    file["counts"]
    assert reads == ["counts"]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
@pytest.mark.parametrize("kind", ["safetensors", "msgpack", "orbax"])
def test_narrow_floats_come_as_float32(tmp_path, kind, dtype):
    values = np.array([[0.5, -2.0], [1.75, 0.0]]).astype(dtype)
    if kind == "orbax" and dtype == ml_dtypes.float8_e4m3fn:
        values = jnp.asarray(values)
    file = open_tensors(write(kind, tmp_path / "w", {"w": values}))
    assert file.dtypes == {"w": np.float32}
    np.testing.assert_array_equal(file["w"], np.asarray(values).astype(np.float32), strict=True)


def test_safetensors_metadata(tmp_path):
    path = write("safetensors", tmp_path / "w", {"w": np.ones(2)})
    assert open_tensors(path).metadata == {"made": "by a test"}


def test_npz_keeps_order_and_bytes(tmp_path):
    """Fortran order, big-endian numbers, no dimensions and no elements; text is left out."""
    arrays = {
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(4, dtype=">f4"),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3), np.int8),
    }
    for save in (np.savez, np.savez_compressed):
        with open(tmp_path / "w", "wb") as out:
            save(out, text=np.array(["a"]), **arrays)  # pyright: ignore[reportArgumentType]
        file = open_tensors(tmp_path / "w")
        assert set(file) == set(arrays)
        for name, value in arrays.items():
            np.testing.assert_array_equal(file[name], value)
            assert file[name].dtype == file.dtypes[name] == value.dtype.newbyteorder("=")


@pytest.mark.parametrize("kind", ["safetensors", "npz", "msgpack"])
def test_plain_bytes_are_mapped(tmp_path, kind):
    """Arrays are windows into the file: none owns its values."""
    file = open_tensors(write(kind, tmp_path / "w", hostile.small_tree()))
    for name in file:
        base = file[name]
        while isinstance(base.base, np.ndarray):
            base = base.base
        assert isinstance(base, np.memmap), name


def test_orbax_folders_of_all_writers(tmp_path):
    tree = {"params": {"layers": [jnp.ones(2), jnp.arange(3)]}, "step": 3}
    expected = {"params/layers/0": np.ones(2), "params/layers/1": np.arange(3)}
    hostile.write_orbax(tmp_path / "standard", tree)
    for use_ocdbt in (True, False):
        with ocp.PyTreeCheckpointer(use_ocdbt=use_ocdbt) as checkpointer:
            checkpointer.save(tmp_path / f"pytree{use_ocdbt}", tree | {"name": "text"})
    with ocp.CheckpointManager(tmp_path / "manager") as manager:
        manager.save(0, args=ocp.args.StandardSave(tree))
    with ocp.CheckpointManager(tmp_path / "items") as manager:
        items = {"a": ocp.args.StandardSave(tree), "b": ocp.args.StandardSave(tree)}
        manager.save(0, args=ocp.args.Composite(**items, note=ocp.args.JsonSave({"x": 1})))
    for name in ("standard", "pytreeTrue", "pytreeFalse", "manager/0", "manager/0/default"):
        file = open_tensors(tmp_path / name)
        assert set(file) == set(expected), name
        for leaf, value in expected.items():
            np.testing.assert_array_equal(file[leaf], value)
    assert set(open_tensors(tmp_path / "items/0")) == {f"{i}/{n}" for i in "ab" for n in expected}
    assert not is_tensor_file(tmp_path) and not is_tensor_file(tmp_path / "manager")


def test_flax_chunks_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 40)
    value = np.arange(35, dtype=np.float32).reshape(5, 7)
    path = write("msgpack", tmp_path / "w", {"a": {"w": value, "n": 3, "s": np.float32(2)}})
    assert b"__msgpack_chunked_array__" in path.read_bytes()
    file = open_tensors(path)
    assert set(file) == {"a/w"}
    np.testing.assert_array_equal(file["a/w"], value, strict=True)


def torch_state(torch):
    base = torch.arange(12.0).reshape(3, 4)
    return {
        "epoch": 3,
        "arch": "resnet20",
        "best": 91.5,
        "state_dict": {
            "module.conv.weight": base.t(),  # not contiguous
            "module.tied.weight": base,  # the same storage
            "module.half.weight": torch.tensor([0.5, 2.0], dtype=torch.bfloat16),
            "module.mask": torch.tensor([True, False]),
            "module.count": torch.tensor(7),
            "module.part": base[1:2],
            "module.parameter": torch.nn.Parameter(torch.ones(2)),
        },
        "optimizer": {
            "state": {0: {"momentum_buffer": torch.zeros(2)}},
            "param_groups": [{"lr": 1}],
        },
    }


@pytest.mark.parametrize("is_zip", [True, False])
def test_torch_checkpoint_dicts(tmp_path, is_zip):
    torch = pytest.importorskip("torch")
    torch.save(torch_state(torch), tmp_path / "w", _use_new_zipfile_serialization=is_zip)
    file = open_tensors(tmp_path / "w")
    expected = {f"state_dict/{k}": v for k, v in torch_state(torch)["state_dict"].items()}
    expected["optimizer/state/0/momentum_buffer"] = torch.zeros(2)
    assert list(file) == list(expected)
    for name, value in expected.items():
        value = value.detach().float() if value.dtype == torch.bfloat16 else value.detach()
        np.testing.assert_array_equal(file[name], value.numpy(), strict=True)


@pytest.mark.parametrize("make", ["sparse", "quantized", "expanded", "meta"])
def test_torch_tensors_without_plain_values(tmp_path, make):
    torch = pytest.importorskip("torch")
    tensor = {
        "sparse": lambda: torch.eye(3).to_sparse(),
        "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "expanded": lambda: torch.ones(1).expand(100_000, 100_000),
        "meta": lambda: torch.ones(3, device="meta"),
    }[make]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch while it saves
        torch.save({"layer.weight": tensor()}, tmp_path / "w")
    assert "tensor 'layer.weight'" in refusal(tmp_path / "w")


def test_torch_missing(tmp_path, monkeypatch):
    hostile.zip_file(tmp_path / "w", {"archive/data.pkl": b""})
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError) as error:
        open_tensors(tmp_path / "w")
    assert str(error.value) == (
        f"torch: must be installed to read {tmp_path / 'w'}; pip install 'imp-rg[torch]'"
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated(tmp_path, kind):
    path = write(kind, tmp_path / "w", hostile.small_tree())
    if kind == "orbax":
        for file in path.rglob("d/*"):
            file.write_bytes(file.read_bytes()[:-9])
    else:
        path.write_bytes(path.read_bytes()[:-9])
    assert is_tensor_file(path)  # or else a damaged level would be passed over
    refusal(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"PK\x03\x04 and no more", "a zip archive of other things"),
        (b"nothing of the kind", "something else"),
        (np.random.default_rng(0).bytes(1000), "something else"),
        (b"\x80\x04\x95K.", "a plain pickle"),
    ],
)
def test_what_is_no_checkpoint(tmp_path, content, reason):
    (tmp_path / "w").write_bytes(content)
    assert not is_tensor_file(tmp_path / "w")
    line = refusal(tmp_path / "w")
    assert reason in line and tensors.EXPECTED in line


def test_paths_that_are_no_checkpoint(tmp_path):
    assert "another folder" in refusal(tmp_path)
    assert "not there" in refusal(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for a writer
    assert not is_tensor_file(tmp_path / "pipe") and "no plain file" in refusal(tmp_path / "pipe")
    assert not is_tensor_file(tmp_path / "absent") and not is_tensor_file(tmp_path)
    hostile.zip_file(tmp_path / "zip", {"readme.txt": b"hello"})
    assert not is_tensor_file(tmp_path / "zip") and "other things" in refusal(tmp_path / "zip")
    write("msgpack", tmp_path / "numbers", {"epoch": 3})
    assert "must hold arrays" in refusal(tmp_path / "numbers")


def test_pickles_do_not_run(tmp_path):
    """As themselves, in object arrays of an npz file, and in extensions of msgpack."""
    target = tmp_path / "proof"
    files = [tmp_path / "pickle2", tmp_path / "pickle4", tmp_path / "npz"]
    files[0].write_bytes(hostile.malicious_pickle(target, protocol=2))
    files[1].write_bytes(hostile.malicious_pickle(target, protocol=4))
    hostile.malicious_npz(files[2], target)
    for code in (1, 2, 5):
        files.append(tmp_path / f"msgpack{code}")
        hostile.malicious_msgpack(files[-1], target, code)
    lines = [refusal(path) for path in files]
    assert not target.exists()
    assert all("could run code" in line for line in lines[:3])
    np.load(files[2], allow_pickle=True)["w"]
    assert target.exists()  # it does run where it is unpickled


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_torch_pickles_do_not_run(tmp_path, is_zip, protocol):
    torch = pytest.importorskip("torch")
    path, target = tmp_path / "w", tmp_path / "proof"
    how = {"_use_new_zipfile_serialization": is_zip, "pickle_protocol": protocol}
    hostile.malicious_torch(path, target, **how)
    assert "could run code" in refusal(path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists()


def test_torch_modules_are_named(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w")
    assert "torch.nn.modules.linear.Linear" in refusal(tmp_path / "w")


@pytest.mark.parametrize("is_zip", [True, False])
def test_torch_shapes_over_small_storages(tmp_path, is_zip):
    torch = pytest.importorskip("torch")
    how = {"_use_new_zipfile_serialization": is_zip}
    for shape, offset in [((10**6, 10**6), 0), ((3,), 10**9), ((2**62, 4), 0), ((-1,), 0)]:
        torch.save({"w": hostile.BuildsTensor(shape, offset)}, tmp_path / "w", **how)
        line = refusal(tmp_path / "w")
        assert is_zip or "must fit" in line  # torch would try to allocate


def test_torch_storage_longer_than_the_file(tmp_path):
    """Of an old file, where torch allocates before it reads."""
    path = write("legacy torch", tmp_path / "w", {"w": np.ones(300)})
    content = path.read_bytes()
    length = b"M" + (300).to_bytes(2, "little") + b"Nt"
    assert content.count(length) == 1
    path.write_bytes(content.replace(length, b"J" + (2**31 - 1).to_bytes(4, "little") + b"Nt"))
    assert "in a storage of length 2147483647 must fit" in refusal(path)
    remembered = content.replace(b"QK\x00", b"QK\x00h\x00")  # a shape from the memo
    assert remembered != content
    path.write_bytes(remembered)
    assert "as torch.save writes them" in refusal(path)
    hidden = b"J" + (2**31 - 1).to_bytes(4, "little") + b"K\x000Nt"  # a number pushed and dropped
    path.write_bytes(content.replace(length, hidden))
    assert "as torch.save writes them" in refusal(path)


HOSTILE_SAFETENSORS = {
    "longer than the file": {
        "w": {"dtype": "F32", "shape": [10**6], "data_offsets": [0, 4 * 10**6]}
    },
    "overflow": {"w": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 16]}},
    "negative": {"w": {"dtype": "F32", "shape": [-1, 4], "data_offsets": [0, 16]}},
    "overlap": {
        "a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
        "b": {"dtype": "F32", "shape": [3], "data_offsets": [4, 16]},
    },
    "gap": {"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}},
    "backwards": {"w": {"dtype": "F32", "shape": [2], "data_offsets": [16, 8]}},
    "unknown type": {"w": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}},
    "type without NumPy": {"w": {"dtype": "F8_E8M0", "shape": [16], "data_offsets": [0, 16]}},
    "outward name": {"../w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}},
    "newline": {"a\nb": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}},
    "nested": b"[" * 100_000,
    "no dict": b"{}",
}


@pytest.mark.parametrize("header", HOSTILE_SAFETENSORS.values(), ids=HOSTILE_SAFETENSORS)
def test_hostile_safetensors(tmp_path, header):
    (tmp_path / "w").write_bytes(hostile.safetensors_file(header, bytes(16)))
    refusal(tmp_path / "w")


HOSTILE_NPY = {
    "absurd": hostile.npy_bytes((10**12, 10**6), data=bytes(8)),
    "overflow": hostile.npy_bytes((2**62, 4), data=bytes(8)),
    "negative": hostile.npy_bytes((-1, -2), data=bytes(8)),
    "short": hostile.npy_bytes((3,), data=bytes(8)),
    "long": hostile.npy_bytes((1,), data=bytes(8)),
    "object": hostile.npy_bytes((1,), descr="|O", data=bytes(8)),
    "record": hostile.npy_bytes((1,), descr=[("a", "<f4"), ("b", "<f4")], data=bytes(8)),
    "bfloat16": hostile.npy_bytes((4,), descr="<V2", data=bytes(8)),
    "version 3": hostile.npy_bytes((2,), data=bytes(8), version=b"\x03\x00"),
    "code": hostile.raw_npy("{'descr': exit(), 'fortran_order': False, 'shape': ()}"),
    "nested": hostile.raw_npy("(" * 5000),
    "no npy": b"hello",
}


@pytest.mark.parametrize("member", HOSTILE_NPY.values(), ids=HOSTILE_NPY)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_hostile_npz_members(tmp_path, member, compression):
    hostile.zip_file(tmp_path / "w", {"w.npy": member}, compression)
    refusal(tmp_path / "w")


def test_hostile_zip_archives(tmp_path, monkeypatch):
    path, good = tmp_path / "w", hostile.npy_bytes((2,), data=bytes(8))
    for name in ("../w.npy", "/w.npy", "a/../../w.npy", ".npy"):
        hostile.zip_file(path, {name: good})
        assert "printable name" in refusal(path)
    hostile.overlapping_zip(path)
    assert "overlap" in refusal(path)
    hostile.lying_zip(path, 2**31)
    assert "claims 2147483648 bytes" in refusal(path)
    hostile.zip_file(path, {"w.npy": good}, zipfile.ZIP_BZIP2)
    assert "stored or deflated" in refusal(path)
    hostile.zip_bomb(path, 1 << 26)
    assert (
        dict(open_tensors(path))["bomb"].sum() == 0
    )  # zeros compress like a mask that is all True
    monkeypatch.setattr("imp_rg.foreign.array_files.MAX_INFLATED", 1 << 25)
    assert "save it uncompressed" in refusal(path)


def chunked(shape, *chunks):
    pieces = {str(i): chunk for i, chunk in enumerate(chunks)}
    return {"w": {"__msgpack_chunked_array__": True, "shape": shape, "chunks": pieces}}


HOSTILE_MSGPACK = {
    "absurd": ({"w": hostile.flax_array((10**12, 10**6), data=bytes(8))}, "tensor 'w' declares"),
    "overflow": ({"w": hostile.flax_array((2**62, 2**62), data=bytes(8))}, "tensor 'w' declares"),
    "negative": ({"w": hostile.flax_array((-1, -2), data=bytes(8))}, "tensor 'w' must hold"),
    "short": ({"w": hostile.flax_array((3,), data=bytes(8))}, "lie inside the file"),
    "long": ({"w": hostile.flax_array((1,), data=bytes(8))}, "must fill its bytes"),
    "objects": ({"w": hostile.flax_array((1,), "object", bytes(8))}, "got type 'object'"),
    "extension": ({"a": {"w": msgpack.ExtType(5, b"abc")}}, "'a/w' must be what Flax writes"),
    "no array": ({"w": msgpack.ExtType(1, b"abc")}, "tensor 'w' must be as Flax writes it"),
    "outward": ({"..": {"w": hostile.flax_array((2,), data=bytes(8))}}, "printable name"),
    "chunks": (chunked({"0": 9}), "must be as Flax writes it"),
    "few chunks": (chunked({"0": 1}, hostile.flax_array((2,), data=bytes(8))), "hold 2 values"),
    "deep chunks": (chunked({"0": 2}, hostile.flax_array((2, 1), data=bytes(8))), "flat pieces"),
    "more": (b"\x81\xa1a\x01\x01", "must end where"),
    "twice": (b"\x82\xa1a\x01\xa1a\x01", "keys must be text and there once"),
    "nested": (b"\x81\xa1a" * 100_000 + b"\x01", "nested at most 64 deep"),
    "count": (b"\x81\xa1a\xdd\xff\xff\xff\xff", "must hold all that it declares"),
    "text": (b"\x81\xa1a\xdb\xff\xff\xff\xff", "must hold all that it declares"),
    "unused byte": (b"\x81\xa1a\xc1", "got byte 0xc1"),
}


@pytest.mark.parametrize(("content", "reason"), HOSTILE_MSGPACK.values(), ids=HOSTILE_MSGPACK)
def test_hostile_msgpack(tmp_path, content, reason):
    packed = content if isinstance(content, bytes) else msgpack.packb(content)
    (tmp_path / "w").write_bytes(packed)
    assert reason in refusal(tmp_path / "w")


def test_hostile_orbax(tmp_path):
    path = write("orbax", tmp_path / "w", {"a": np.ones(3)})
    content = (path / "_METADATA").read_text()
    for key in ("../a", "/etc/a", "a/../../b"):
        (path / "_METADATA").write_text(content.replace('"key": "a"', f'"key": "{key}"'))
        assert "no path" in refusal(path)
    entry = content[content.index('[{"key"') + 1 : content.index("}]") + 1]
    (path / "_METADATA").write_text(content.replace(entry, ", ".join([entry] * 10_000)))
    assert "nested at most" in refusal(path)
    (path / "_METADATA").write_text("{")
    refusal(path)


def test_absurd_orbax_shape(tmp_path):
    """Chunks that are not there are filled in, so a shape of terabytes would be too."""
    with ocp.PyTreeCheckpointer(use_ocdbt=False) as checkpointer:
        checkpointer.save(tmp_path / "w", {"a": np.ones(3)})
    zarr = tmp_path / "w/a/.zarray"
    zarr.write_text(zarr.read_text().replace('"shape":[3]', '"shape":[3000000000000]'))
    assert "tensor 'a' declares shape (3000000000000,)" in refusal(tmp_path / "w")


def test_depth_and_number_of_entries_are_bounded(tmp_path, monkeypatch):
    node = [1, 2]
    for _ in range(40):
        node = [node, node]  # 2^40 entries when unfolded
    monkeypatch.setattr(limits, "MAX_ITEMS", 10_000)
    with pytest.raises(limits.UnreadableError, match="at most 10000 entries"):
        list(limits.walk(node))
    loop = []
    loop.append(loop)
    with pytest.raises(limits.UnreadableError, match="at most 64 deep"):
        list(limits.walk(loop))


MEMORY_CODE = """
import resource, sys
from pathlib import Path
from imp_rg.foreign.tensors import open_tensors
file = open_tensors(Path(sys.argv[2]))
file["small"].sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
file = open_tensors(Path(sys.argv[1]))
assert len(file) == 5 and file["0"].sum() == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.long
@pytest.mark.parametrize("kind", FORMATS)
def test_one_tensor_costs_the_memory_of_one(tmp_path, kind):
    """The file has 200 MB, the array that is read 40; torch takes old files in whole."""
    if kind == "legacy torch":
        pytest.skip("files of the old kind are read in whole")
    small = write(kind, tmp_path / "small", {"small": np.ones(3, np.float32)})
    rng = np.random.default_rng(0)
    arrays = {str(i): rng.random(10_000_000, np.float32) for i in range(1, 5)}
    large = write(kind, tmp_path / "large", arrays | {"0": np.zeros(10_000_000, np.float32)})
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_CODE, large, small], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100_000, f"{done.stdout} KiB"

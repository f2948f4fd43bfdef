"""Damaged and made-up files: the one-line error or a right answer, in bounded time and memory."""

import itertools
import json
import pickletools
import resource
import shutil
import warnings
import zipfile

import hostile_files as hostile
import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imp_rg.foreign.tensors import is_tensor_file, open_tensors

FILES = [kind for kind in hostile.WRITERS if kind != "orbax"]
PLAIN = [kind for kind in FILES if kind != "compressed npz"]
MAX_GROWTH = 1_000_000
"""KiB that all cases of one test may add to the peak of the process."""


def fuzzing(num_cases):
    return settings(
        max_examples=num_cases,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


def in_both_lengths(short, long):
    """A test of few cases, and the same test of many among the long ones."""
    return pytest.mark.parametrize(
        "num_cases", [short, pytest.param(long, marks=pytest.mark.long)], ids=["short", "long"]
    )


def read_all(path):
    """All arrays of a file, or None if it is refused as it should be."""
    assert is_tensor_file(path) in (True, False)
    try:
        file = open_tensors(path)
        arrays = dict(file)
    except ValueError as error:
        line = str(error)
        assert line.startswith(f"{path}: ") and line.isprintable(), line
        assert len(line) < len(str(path)) + 400
        return None
    assert {name: array.shape for name, array in arrays.items()} == file.shapes
    assert {name: array.dtype for name, array in arrays.items()} == file.dtypes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sums of made-up numbers overflow
        for array in arrays.values():
            array.sum()
    return arrays


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory):
    """Bytes of one small file of each format."""

    def content(kind):
        if "torch" in kind:
            pytest.importorskip("torch")
        path = tmp_path_factory.mktemp("sound") / "file"
        hostile.WRITERS[kind](path, hostile.small_tree())
        return path.read_bytes()

    return content


@pytest.fixture
def new_path(tmp_path):
    """Gives fresh paths: arrays of an earlier case may still be mapped from theirs."""
    numbers = itertools.count()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield lambda: tmp_path / f"case{next(numbers)}"
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert growth < MAX_GROWTH, f"{growth} KiB"


POSITIONS = st.one_of(st.floats(0, 1), st.integers(0, 400), st.integers(-400, -1))
EDITS = st.one_of(
    st.tuples(st.just("set"), POSITIONS, st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("set"), POSITIONS, st.sampled_from([b"\xff" * 8, bytes(8), b"9" * 9, b"-"])),
    st.tuples(st.just("flip"), POSITIONS, st.integers(0, 7)),
    st.tuples(st.just("insert"), POSITIONS, st.binary(min_size=1, max_size=9)),
    st.tuples(st.just("delete"), POSITIONS, st.integers(1, 64)),
    st.tuples(st.just("truncate"), POSITIONS, st.none()),
)


def damaged(content, edits):
    """Bytes after edits; a position is a fraction of the whole or counts from one end."""
    data = bytearray(content)
    for kind, position, value in edits:
        at = (
            int(position * len(data)) if isinstance(position, float) else position % (len(data) + 1)
        )
        if kind == "set":
            data[at : at + len(value)] = value
        elif kind == "flip" and at < len(data):
            data[at] ^= 1 << value
        elif kind == "insert":
            data[at:at] = value
        elif kind == "delete":
            del data[at : at + value]
        elif kind == "truncate":
            del data[at:]
    return bytes(data)


@pytest.mark.parametrize("kind", FILES)
@in_both_lengths(12, 1000)
def test_damaged_files(sound_files, new_path, kind, num_cases):
    content = sound_files(kind)

    @fuzzing(num_cases)
    @given(edits=st.lists(EDITS, min_size=1, max_size=4))
    def check(edits):
        path = new_path()
        path.write_bytes(damaged(content, edits))
        read_all(path)
        path.unlink()

    check()


@pytest.mark.parametrize("kind", PLAIN)
@in_both_lengths(8, 300)
def test_damage_stays_where_it_is(sound_files, new_path, kind, num_cases):
    """A byte changed inside one array changes that array and no other."""
    content = sound_files(kind)
    arrays = hostile.flatten(hostile.small_tree())
    spans = {name: content.find(value.tobytes()) for name, value in arrays.items()}
    assert min(spans.values()) > 0

    @fuzzing(num_cases)
    @given(st.sampled_from(sorted(arrays)), st.integers(0), st.integers(1, 255))
    def check(name, index, change):
        data = bytearray(content)
        at = spans[name] + index % arrays[name].nbytes
        data[at] = data[at] ^ change if arrays[name].dtype != bool else 1 - data[at]
        expected = arrays[name].tobytes()
        path = new_path()
        path.write_bytes(data)
        read = read_all(path)
        path.unlink()
        if kind == "npz":  # the checksum of a member as small as here is compared
            assert read is None
            return
        assert read is not None
        assert read[name].tobytes() != expected
        for other in arrays.keys() - {name}:
            np.testing.assert_array_equal(read[other], arrays[other], strict=True)

    check()


@in_both_lengths(12, 600)
def test_damaged_orbax_folders(tmp_path, new_path, num_cases):
    sound = tmp_path / "sound"
    hostile.write_orbax(sound, hostile.small_tree())
    files = sorted(path.relative_to(sound) for path in sound.rglob("*") if path.is_file())

    @fuzzing(num_cases)
    @given(st.sampled_from(files), st.lists(EDITS, min_size=1, max_size=3))
    def check(file, edits):
        path = new_path()
        shutil.copytree(sound, path)
        (path / file).write_bytes(damaged((path / file).read_bytes(), edits))
        read_all(path)
        shutil.rmtree(path)

    check()


SIZES = st.one_of(
    st.integers(0, 5), st.integers(-3, -1), st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64 - 1])
)
SHAPES = st.lists(SIZES, max_size=4)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "BOOL", "I64", "F8_E5M2", "F4", "X", ""]),
        "shape": SHAPES,
        "data_offsets": st.lists(st.one_of(st.integers(0, 64), SIZES), min_size=1, max_size=3),
    }
)
HEADERS = st.dictionaries(
    st.text(max_size=6) | st.just("__metadata__"), ENTRIES | st.none() | st.integers(), max_size=4
)


@in_both_lengths(20, 500)
def test_made_up_safetensors(new_path, num_cases):
    @fuzzing(num_cases)
    @given(HEADERS, st.integers(0, 64))
    def check(header, size):
        path = new_path()
        path.write_bytes(hostile.safetensors_file(header, bytes(size)))
        read = read_all(path)
        if read is not None:
            assert sum(array.nbytes for array in read.values()) <= 4 * size

    check()


@in_both_lengths(20, 500)
def test_sound_safetensors_headers_are_read(new_path, num_cases):
    """The other half of the claim: what is right is not refused."""

    @fuzzing(num_cases)
    @given(
        st.dictionaries(
            st.from_regex(r"[a-z]+(\.[a-z]+)?", fullmatch=True),
            st.lists(st.integers(0, 4), max_size=3),
            min_size=1,
            max_size=4,
        )
    )
    def check(shapes):
        header, end = {}, 0
        for name, shape in shapes.items():
            start, end = end, end + 4 * int(np.prod(shape))
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
        values = np.arange(end // 4, dtype=np.float32)
        path = new_path()
        path.write_bytes(hostile.safetensors_file(header, values.tobytes()))
        read = read_all(path)
        assert read is not None
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            expected = values[start // 4 : end // 4].reshape(entry["shape"])
            np.testing.assert_array_equal(read[name], expected, strict=True)

    check()


NPY_TEXT = st.one_of(
    st.text(max_size=40),
    st.builds(
        "{{'descr': {!r}, 'fortran_order': {!r}, 'shape': {!r}{}".format,
        st.sampled_from(["<f4", ">f8", "|O", "|b1", "<V2", "<U3", "<M8[s]", "f", "", ("<f4", (3,))])
        | st.text(max_size=4),
        st.booleans() | st.none(),
        SHAPES.map(tuple) | SHAPES,
        st.sampled_from(["}", ", }", "", ", 'extra': 1}"]),
    ),
)


MEMBER_NAMES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=5).map(
    "{}.npy".format  # zipfile itself ends a name at the first null
)


@in_both_lengths(20, 700)
def test_made_up_npz(new_path, num_cases):
    @fuzzing(num_cases)
    @given(
        st.dictionaries(MEMBER_NAMES, NPY_TEXT, min_size=1, max_size=3),
        st.sampled_from([b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x09"]),
        st.integers(0, 64),
        st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    )
    def check(members, version, size, compression):
        path = new_path()
        packed = {
            name: hostile.raw_npy(text, bytes(size), version) for name, text in members.items()
        }
        hostile.zip_file(path, packed, compression)
        read = read_all(path)
        if read is not None:
            assert all(array.nbytes <= 2 * size for array in read.values())

    check()


FLAX_LEAVES = st.one_of(
    st.none(), st.integers(-(2**63), 2**64 - 1), st.floats(),
    st.text(max_size=4), st.binary(max_size=9),
    st.builds(
        hostile.flax_array,
        st.lists(st.integers(-1, 3) | st.just(2**62), max_size=3),
        st.sampled_from(["float32", "bfloat16", "bool", "object", "<U3", ""]),
        st.binary(max_size=24) | st.integers(0, 6).map(lambda n: bytes(4 * n)),
        st.sampled_from([1, 1, 1, 2, 3, 4]),
    ),
    st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=16)),
)  # fmt: skip
FLAX_KEYS = st.sampled_from(["a", "b", "0", "1", "__msgpack_chunked_array__", "shape", "chunks"])
FLAX_TREES = st.recursive(
    FLAX_LEAVES,
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(FLAX_KEYS | st.text(max_size=3), children, max_size=4)
    ),
    max_leaves=8,
)


@in_both_lengths(30, 900)
def test_made_up_msgpack(new_path, num_cases):
    @fuzzing(num_cases)
    @given(st.dictionaries(FLAX_KEYS, FLAX_TREES, min_size=1, max_size=4))
    def check(tree):
        path = new_path()
        path.write_bytes(msgpack.packb(tree))
        read = read_all(path)
        if read is not None:
            assert sum(array.nbytes for array in read.values()) <= 4 * path.stat().st_size

    check()


@pytest.mark.parametrize("is_zip", [True, False])
@in_both_lengths(8, 300)
def test_made_up_torch_shapes(new_path, is_zip, num_cases):
    torch = pytest.importorskip("torch")

    @fuzzing(num_cases)
    @given(SHAPES, SIZES)
    def check(shape, offset):
        path = new_path()
        made_up = {"w": hostile.BuildsTensor(shape, offset)}
        torch.save(made_up, path, _use_new_zipfile_serialization=is_zip)
        read = read_all(path)
        if read is not None:
            assert read["w"].shape == tuple(shape) and (read["w"] == 1).all()

    check()


def pickle_spans(content):
    """Where the five pickles of an old PyTorch file lie."""
    spans, at = [], 0
    for _ in range(5):
        *_, (_, _, last) = pickletools.genops(content[at:])
        end = (last or 0) + 1
        spans.append((at, at + end))
        at += end
    return spans


@pytest.mark.parametrize("kind", ["torch", "legacy torch"])
@in_both_lengths(12, 500)
def test_damaged_torch_pickles(sound_files, new_path, kind, num_cases):
    """Opcodes and lengths, not only bytes anywhere; a zip archive gets fresh checksums."""
    content = sound_files(kind)
    path = new_path()
    path.write_bytes(content)
    if kind == "torch":
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        pickle_name = next(name for name in members if name.endswith("data.pkl"))
        parts = [b"", members[pickle_name], b""]
    else:
        start, end = pickle_spans(content)[3]
        parts = [content[:start], content[start:end], content[end:]]

    @fuzzing(num_cases)
    @given(st.lists(EDITS, min_size=1, max_size=2))
    def check(edits):
        path, edited = new_path(), damaged(parts[1], edits)
        if kind == "torch":
            hostile.zip_file(path, members | {pickle_name: edited})
        else:
            path.write_bytes(parts[0] + edited + parts[2])
        read_all(path)

    check()


def test_json_of_headers_is_what_is_fuzzed():
    """The maker writes what the format says: eight bytes of length, then JSON."""
    content = hostile.safetensors_file({"w": 1}, b"xy")
    assert content[:8] == (8).to_bytes(8, "little") and json.loads(content[8:16]) == {"w": 1}

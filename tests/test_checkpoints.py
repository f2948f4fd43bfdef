"""Damaged checkpoints: the exact content, or the one before; never something in between."""

import shutil

import numpy as np
import pytest

from imp_rg.runs.checkpoints import KEEP, Checkpoints, digest

# Orbax, on its way out of a damaged checkpoint, leaves coroutines behind.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def state_of(level):
    rng = np.random.default_rng(level)
    return {
        "imp/variables/params/dense0/kernel": rng.standard_normal((2, 64, 32)).astype(np.float32),
        "imp/masks/dense0/kernel": rng.random((2, 64, 32)) > 0.3,
        "imp/level": np.full(2, level, np.int32),
        "record/seconds": np.array([1.5, np.nan]),
    }


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoints = Checkpoints(folder)
    for level in range(5):
        checkpoints.save(level, state_of(level))
    checkpoints.close()
    return folder


@pytest.fixture
def damaged(pristine, tmp_path):
    """A copy to do damage to."""
    return shutil.copytree(pristine, tmp_path / "checkpoints")


def assert_sound(folder, *, falls_back=None):
    """Whatever comes back is exact, what is passed over is named, and saving goes on."""
    checkpoints = Checkpoints(folder)
    restored = checkpoints.restore()
    assert restored is not None
    level, state = restored
    assert digest(state) == digest(state_of(level))
    assert level == 4 - len(checkpoints.problems)
    if falls_back is not None:
        assert (level < 4) == falls_back
        assert all("is damaged" in problem for problem in checkpoints.problems)
    checkpoints.save(level + 1, state_of(level + 1))
    again = checkpoints.restore()
    assert again is not None and again[0] == level + 1
    assert digest(again[1]) == digest(state_of(level + 1))
    checkpoints.close()


def newest_files(folder):
    return sorted(path for path in (folder / "4").rglob("*") if path.is_file())


def test_round_trip_keeps_every_bit(pristine):
    checkpoints = Checkpoints(pristine)
    restored = checkpoints.restore()
    assert restored is not None and restored[0] == 4 and checkpoints.problems == []
    for name, leaf in state_of(4).items():
        assert restored[1][name].dtype == leaf.dtype
        assert restored[1][name].tobytes() == leaf.tobytes()


def test_keeps_some_to_fall_back_on(pristine):
    levels = sorted(int(path.name) for path in pristine.iterdir())
    assert levels == list(range(5 - KEEP, 5)) and KEEP >= 2


@pytest.mark.parametrize("damage", ["delete", "truncate", "empty"])
def test_damaged_files(pristine, tmp_path, damage):
    for i, original in enumerate(newest_files(pristine)):
        folder = shutil.copytree(pristine, tmp_path / f"{damage}{i}")
        path = folder / original.relative_to(pristine)
        if damage == "delete":
            path.unlink()
        else:
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"")
        assert_sound(folder)


def test_flipped_bits(pristine, tmp_path):
    """Two flips in every file, and ten more in the largest, where the weights are."""
    rng = np.random.default_rng(1)
    files = newest_files(pristine)
    largest = max(files, key=lambda path: path.stat().st_size)
    for i, original in enumerate(2 * files + 10 * [largest]):
        folder = shutil.copytree(pristine, tmp_path / str(i))
        path = folder / original.relative_to(pristine)
        content = bytearray(path.read_bytes())
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        assert_sound(folder)


def test_content_that_orbax_accepts_is_checked_against_its_digest(damaged):
    """Orbax itself is content with a seal that belongs to another state."""
    shutil.copy(damaged / "3" / "seal" / "metadata", damaged / "4" / "seal" / "metadata")
    assert_sound(damaged, falls_back=True)


def test_two_damaged_in_a_row(damaged):
    for level in ("3", "4"):
        (damaged / level / "seal" / "metadata").unlink()
    assert_sound(damaged, falls_back=True)


def test_all_damaged_restores_nothing(damaged):
    for folder in damaged.iterdir():
        (folder / "seal" / "metadata").unlink()
    checkpoints = Checkpoints(damaged)
    assert checkpoints.restore() is None
    assert len(checkpoints.problems) == KEEP
    checkpoints.save(0, state_of(0))
    restored = checkpoints.restore()
    assert restored is not None and restored[0] == 0


def test_leftover_of_a_killed_save(damaged):
    leftover = shutil.copytree(damaged / "4", damaged / "5.orbax-checkpoint-tmp")
    shutil.rmtree(leftover / "seal")
    assert_sound(damaged, falls_back=False)
    assert not leftover.exists()


def test_save_that_fails_leaves_the_others(damaged, monkeypatch):
    checkpoints = Checkpoints(damaged)

    def full(*args, **kwargs):
        raise ValueError("INTERNAL: at x.cc:\n Failed to write 9 bytes:  No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(OSError, match="level 5 cannot be written: Failed .*: No space"):
        checkpoints.save(5, state_of(5))
    assert_sound(damaged, falls_back=False)


def test_digest_sees_every_difference():
    flat = {"a": np.arange(6, dtype=np.int32), "b": np.zeros(2)}
    same = {"b": np.zeros(2), "a": np.arange(6, dtype=np.int32)}
    assert digest(flat) == digest(same)
    others = [
        flat | {"a": flat["a"].view(np.float32)},
        flat | {"a": flat["a"].reshape(2, 3)},
        flat | {"a": flat["a"][::-1]},
        {"a": flat["a"], "c": flat["b"]},
        flat | {"b": np.array([0.0, -0.0])},
        {"a": flat["a"]},
    ]
    assert len({digest(other) for other in [flat, *others]}) == 1 + len(others)

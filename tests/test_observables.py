"""Observables equal plain formulas on whole blocks; the chance level equals a simulation."""

import numpy as np
import pytest
from scipy.stats import kurtosis

from imp_rg.imp import observables
from imp_rg.imp.observables import OBSERVABLES, LevelWeights, observe_level
from imp_rg.imp.overlap import mask_overlap

SHAPES = {"a": (3, 3, 4, 6), "b": (40, 7), "c": (500, 9), "norm": (9,), "head": (9, 10)}
BLOCK_OF = (0, 0, 1, -1, 2)


@pytest.fixture
def level():
    """Weights far from mean 0 and of different scales, rewind weights, masks of three densities."""
    rng = np.random.default_rng(0)

    def draw(scale, shift):
        sizes = enumerate(SHAPES.items())
        return {n: (shift * i + scale * rng.standard_normal(s)).astype("f") for i, (n, s) in sizes}

    def masks(density):
        return {name: rng.random(shape) < density for name, shape in SHAPES.items()}

    return {
        "weight": draw(0.7, 0.5),
        "rewind": draw(0.5, 0.4),
        "mask": masks(0.5),
        "previous": masks(0.7),
        "seed": masks(0.3),
    }


def observe(level, *, unit_axis=-1, references=("rewind", "previous", "seed")):
    current = LevelWeights(weight=level["weight"].__getitem__, mask=level["mask"].__getitem__)
    rewind, previous, seed = (
        level[name].__getitem__ if name in references else None
        for name in ("rewind", "previous", "seed")
    )
    return observe_level(
        tuple(SHAPES),
        BLOCK_OF,
        3,
        current,
        rewind=rewind,
        previous=previous,
        other_seed=seed,
        unit_axis=unit_axis,
    )


def survivors(level, which, block):
    names = [name for name, i in zip(SHAPES, BLOCK_OF, strict=True) if i == block]
    return np.concatenate([level[which][n][level["mask"][n]].astype(float) for n in names])


def test_every_observable_equals_its_formula_on_the_concatenated_block(level, monkeypatch):
    monkeypatch.setattr(observables, "CHUNK", 97)  # tensors of several uneven chunks
    found = observe(level)
    assert list(found) == list(OBSERVABLES)
    for block, names in enumerate((("a", "b"), ("c",), ("head",))):
        w, r = survivors(level, "weight", block), survivors(level, "rewind", block)
        mask, previous, seed = (
            np.concatenate([level[which][n].ravel() for n in names])
            for which in ("mask", "previous", "seed")
        )
        expected = {
            "sign_flip_share": np.mean(np.sign(w) != np.sign(r)),
            "jaccard_previous": (mask & previous).sum() / (mask | previous).sum(),
            "jaccard_seed": (mask & seed).sum() / (mask | seed).sum(),
            "kurtosis": kurtosis(w),
            "mean_magnitude": np.abs(w).mean(),
            "distance": np.linalg.norm(w - r),
            "relative_distance": np.linalg.norm(w - r) / np.linalg.norm(r),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][block], value, rtol=1e-12, err_msg=name)


def test_moments_survive_a_mean_far_from_zero(level):
    for weights in level["weight"].values():
        weights += np.float32(300)
    expected = [kurtosis(survivors(level, "weight", block)) for block in range(3)]
    np.testing.assert_allclose(observe(level)["kurtosis"], expected, rtol=1e-9)


@pytest.mark.parametrize("unit_axis", [0, -1])
def test_dead_units_keep_no_incoming_weight(level, unit_axis):
    for mask in level["mask"].values():
        mask[:] = True
        np.moveaxis(mask, unit_axis, 0)[:2] = False
    units = {name: shape[unit_axis] for name, shape in SHAPES.items()}
    expected = [4 / (units["a"] + units["b"]), 2 / units["c"], 2 / units["head"]]
    found = observe(level, unit_axis=unit_axis)["dead_unit_share"]
    np.testing.assert_allclose(found, expected)


def test_a_missing_reference_gives_nan_in_its_columns_only(level):
    full, alone = observe(level), observe(level, references=())
    missing = {name for name in OBSERVABLES if np.isnan(alone[name]).all()}
    assert set(OBSERVABLES) - missing == {"kurtosis", "mean_magnitude", "dead_unit_share"}
    for name in set(OBSERVABLES) - missing:
        np.testing.assert_array_equal(alone[name], full[name])
    only = observe(level, references=("previous",))
    assert np.isnan(only["jaccard_seed"]).all()
    np.testing.assert_array_equal(only["chance_previous"], full["chance_previous"])


def test_a_collapsed_block_is_nan_and_dead(level):
    level["mask"]["c"][:] = False
    found = observe(level)
    assert found["dead_unit_share"][1] == 1
    for name in ("sign_flip_share", "kurtosis", "mean_magnitude", "distance", "relative_distance"):
        assert np.isnan(found[name][1]) and np.isfinite(found[name][0]), name
    assert found["jaccard_previous"][1] == found["chance_previous"][1] == 0


def test_half_precision_signs_and_distances_do_not_underflow():
    tiny = np.array([2e-4, -2e-4], np.float16)
    current = LevelWeights(weight=lambda _: tiny, mask=lambda _: np.ones(2, bool))
    found = observe_level(["w"], [0], 1, current, rewind=lambda _: -tiny, unit_axis=0)
    assert found["sign_flip_share"] == 1
    assert found["relative_distance"] == pytest.approx(2)


def test_left_out_tensors_are_never_read(level):
    for part in level.values():
        del part["norm"]
    observe(level)


# Overlap


def draw_masks(rng, sizes, counts):
    return [rng.permutation(np.arange(n) < k) for n, k in zip(sizes, counts, strict=True)]


def test_chance_equals_the_mean_over_random_masks():
    """Densities differ between tensors: one pooled density would expect 0.16, not 0.35."""
    rng = np.random.default_rng(0)
    sizes, a, b = (60, 200, 400), (50, 100, 20), (40, 120, 40)
    overlaps = [
        mask_overlap(draw_masks(rng, sizes, a), draw_masks(rng, sizes, b)) for _ in range(1500)
    ]
    jaccard = np.array([o.jaccard for o in overlaps])
    standard_error = jaccard.std() / np.sqrt(len(jaccard))
    assert standard_error < 5e-4
    assert abs(jaccard.mean() - overlaps[0].chance) < 4 * standard_error
    pooled = 170 * 200 / 660
    assert jaccard.mean() - pooled / (370 - pooled) > 0.1


def test_known_overlaps():
    half = np.array([True, True, False, False])
    assert mask_overlap([half], [half]) == (1, pytest.approx(1 / 3))
    assert mask_overlap([half], [~half]) == (0, pytest.approx(1 / 3))
    assert mask_overlap([half], [half]).above_chance == pytest.approx(2 / 3)
    nested = np.array([True, False, False, False])
    assert mask_overlap([half], [nested]).jaccard == 0.5
    assert np.isnan(mask_overlap([half & ~half], [half & ~half]).jaccard)


def test_two_tensors_count_by_size(level):
    masks = (level[which].values() for which in ("mask", "seed"))
    overlap = mask_overlap(*masks)
    both, either = 0, 0
    for name in SHAPES:
        both += (level["mask"][name] & level["seed"][name]).sum()
        either += (level["mask"][name] | level["seed"][name]).sum()
    assert overlap.jaccard == both / either


@pytest.mark.parametrize(
    "a, b, match",
    [
        ([np.ones(3, bool)], [], "masks: must be as many in a as in b, one ends after 0"),
        ([np.ones(3, bool)], [np.ones(4, bool)], r"mask 0 of b: must be bool of shape \(3,\)"),
        ([np.ones(3)], [np.ones(3, bool)], r"mask 0 of a: must be bool .* got float64 \(3,\)"),
    ],
)
def test_masks_that_do_not_fit_get_one_line(a, b, match):
    with pytest.raises(ValueError, match=match):
        mask_overlap(a, b)


@pytest.mark.parametrize(
    "change, match",
    [
        ({"num_blocks": 1}, r"block_of: must lie below num_blocks = 1, got 1"),
        ({"num_blocks": 0}, r"num_blocks: must be at least 1, got 0"),
        ({"block_of": [0]}, r"block_of: must give one block for each of the 2 names, got 1"),
        ({"unit_axis": 1}, r"unit_axis: must be 0 \(PyTorch\) or -1 \(Flax\), got 1"),
        ({"rewind": lambda _: np.ones(2)}, r"rewind weight of a: must be of shape \(3,\), got"),
        ({"previous": lambda _: np.ones(3)}, r"other mask of a: must be bool of shape \(3,\)"),
    ],
)
def test_bad_input_gets_one_line(change, match):
    current = LevelWeights(weight=lambda _: np.ones(3), mask=lambda _: np.ones(3, bool))
    good = {"names": ["a", "b"], "block_of": [0, 1], "num_blocks": 2, "unit_axis": 0}
    with pytest.raises(ValueError, match=match) as error:
        observe_level(current=current, **(good | change))
    assert "\n" not in str(error.value)

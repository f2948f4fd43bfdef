import numpy as np
import pytest
from oracles import resnet50_tensors, simulate_gaussian_null
from scipy.special import erfc

from imp_rg.rg import excess, gaussian_null, gaussian_null_flow, measure_spectrum

LEVELS = 0.8 ** np.arange(18)


def two_tensors(scales, block_of, densities):
    return gaussian_null_flow(
        np.array([100, 300]), np.array(scales), np.array(block_of), np.array(densities)
    )


def stage_sigmas(shares, densities):
    return measure_spectrum(shares[None], densities[:-1] / densities[1:]).sigma["paper"]


def test_resnet50_shapes():
    sizes, _, stages = resnet50_tensors()
    counts = np.bincount(stages, weights=sizes)
    assert counts.tolist() == [212_992, 1_212_416, 7_077_888, 14_942_208]
    assert len(sizes) == 52


def test_kaiming_resnet50_has_the_papers_signs_without_training():
    shares = gaussian_null(*resnet50_tensors(), LEVELS)
    sigma = stage_sigmas(shares, LEVELS)
    np.testing.assert_allclose(sigma, [0.341, 0.227, 0.077, -0.216], atol=0.002)


def test_simulation_agrees_with_the_closed_form():
    tensors = resnet50_tensors()
    densities = np.array([1.0, 0.8**8, 0.8**17])
    simulated = simulate_gaussian_null(*tensors, densities, seed=0)
    closed = gaussian_null(*tensors, densities)
    difference = stage_sigmas(simulated, densities) - stage_sigmas(closed, densities)
    assert np.abs(difference).max() < 0.005
    np.testing.assert_allclose(simulated, closed, rtol=0.01)


@pytest.mark.parametrize("density", [1.0, 1 - 1e-9, 0.999, 0.5, 0.0225, 1e-4, 1e-8])
def test_survivors_meet_the_density(density):
    sizes, scales, stages = resnet50_tensors()
    flow = gaussian_null_flow(sizes, scales, stages, np.array([density]))
    assert flow.surviving.sum() / sizes.sum() == pytest.approx(density, rel=1e-12)
    np.testing.assert_allclose(flow.magnitude_share.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(flow.param_share.sum(axis=1), 1, rtol=1e-12)


def test_dense_level_is_size_times_mean_magnitude():
    flow = two_tensors([1.0, 0.5], [0, 1], [1.0])
    np.testing.assert_allclose(flow.magnitude[0], np.sqrt(2 / np.pi) * np.array([100, 150]))
    np.testing.assert_allclose(flow.param_share[0], [0.25, 0.75])


def test_one_scale_has_a_threshold_in_closed_form():
    # Equal scales: every block keeps the same fraction, and t = 1 keeps erfc(1/sqrt 2).
    density = erfc(1 / np.sqrt(2))
    flow = two_tensors([1.0, 1.0], [0, 1], [density])
    np.testing.assert_allclose(flow.surviving[0], np.array([100, 300]) * density, rtol=1e-12)
    want = np.array([100, 300]) * np.sqrt(2 / np.pi) * np.exp(-0.5)
    np.testing.assert_allclose(flow.magnitude[0], want, rtol=1e-9)
    np.testing.assert_allclose(flow.magnitude_share[0], [0.25, 0.75], rtol=1e-12)


def test_scales_matter_only_relative_to_each_other():
    sizes, scales, stages = resnet50_tensors()
    small = gaussian_null(sizes, scales * 1e-6, stages, LEVELS)
    np.testing.assert_allclose(small, gaussian_null(sizes, scales, stages, LEVELS), rtol=1e-9)


def test_unlisted_tensors_count_in_the_denominator():
    sizes, scales, stages = resnet50_tensors()
    with_rest = gaussian_null_flow(sizes, scales, stages, LEVELS)
    without = gaussian_null_flow(sizes, scales, np.where(stages == 3, -1, stages), LEVELS)
    np.testing.assert_allclose(without.magnitude_share, with_rest.magnitude_share[:, :3])
    np.testing.assert_allclose(without.param_share, with_rest.param_share[:, :3])


def test_excess_is_the_interval_of_differences():
    sigma = np.array([[0.3, -0.1], [0.5, 0.1], [0.4, 0.0]])
    paired = excess(sigma, sigma - 0.2)
    np.testing.assert_allclose(paired.value, 0.2)
    np.testing.assert_allclose(paired.low, paired.high)
    fixed = excess(sigma, np.array([0.1, 0.0]))
    np.testing.assert_allclose(fixed.value, [0.3, 0.0], atol=1e-12)
    half_width = 4.302653 * 0.1 / np.sqrt(3)
    np.testing.assert_allclose(fixed.high - fixed.value, half_width, rtol=1e-6)
    assert np.isnan(excess(sigma[:1], sigma[0]).low).all()


def test_excess_takes_no_other_shapes():
    with pytest.raises(
        ValueError, match=r"sigma_null_per_seed must be .* got \(2, 2\) and \(3, 2\)"
    ):
        excess(np.ones((3, 2)), np.ones((2, 2)))


@pytest.mark.parametrize(
    "change, match",
    [
        ({"scales": [1.0]}, r"\[tensor\] of one length, got shapes \(2,\), \(1,\), \(2,\)"),
        ({"sizes": [0, 5]}, "sizes must be positive and finite, got 0"),
        ({"scales": [1.0, np.nan]}, "scales must be positive and finite, got nan"),
        ({"densities": [1.0, 0.0]}, r"densities must be \[level\] in \(0, 1\]"),
        ({"densities": 0.5}, r"densities must be \[level\]"),
        ({"block_of": [0, 2]}, r"block_of must use every index from 0 on, or -1"),
        ({"block_of": [-1, -1]}, r"block_of must use every index from 0 on, or -1"),
        ({"block_of": [-2, 0]}, r"block_of must use every index from 0 on, or -1"),
        ({"block_of": [0.0, 0.5]}, r"block_of must use every index from 0 on, or -1"),
    ],
)
def test_bad_input_gets_one_line(change, match):
    good = {"sizes": [5, 5], "scales": [1.0, 2.0], "block_of": [0, 1], "densities": [1.0, 0.5]}
    with pytest.raises(ValueError, match=match) as error:
        gaussian_null(**{name: np.array(value) for name, value in (good | change).items()})
    assert "\n" not in str(error.value)

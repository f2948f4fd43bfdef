"""Curvature equals the dense Hessian of a small network; products work through convolutions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from small_network import draw, one_block

from imp_rg.data.digits import load_digits
from imp_rg.imp.hessian import (
    data_slices,
    flat_mask,
    gradient_energy,
    hessian_trace,
    make_curvature,
    surviving_prunable,
    top_eigenpairs,
)
from imp_rg.models import make_model
from imp_rg.pytree import apply_masks, ones_masks
from imp_rg.types import ApplyFn, Batch, Masks, Variables

NUM_EXAMPLES = 150
STATISTICS = (np.array([5.0], np.float32), np.array([4.0], np.float32))  # exact in float32
MLP = make_model("lenet16", num_classes=10)


def digits():
    splits = load_digits()
    return Batch(
        x=jnp.asarray(splits.x_train[:NUM_EXAMPLES, ::2, ::2]),
        y=jnp.asarray(splits.y_train[:NUM_EXAMPLES]),
    )


def half_masks(params, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray((rng.random(p.shape) < 0.5) | (p.ndim == 1)), params)


class Case(NamedTuple):
    """A network of 442 weights on 4x4 digits, with its gradient and Hessian by brute force."""

    apply_fn: ApplyFn
    variables: Variables
    data: Batch
    gradient: np.ndarray
    hessian: np.ndarray
    kept: Masks

    def curvature(self, mask):
        return make_curvature(self.apply_fn, self.variables, self.data, mask, max_batch=64)


def mlp_variables(dtype):
    params = MLP.init(jax.random.key(0), (4, 4, 1)).params
    return Variables(jax.tree.map(lambda p: jnp.asarray(p, dtype), params), {})


def dense_case(dtype):
    variables, apply_fn, data = mlp_variables(dtype), MLP.make_apply_fn(*STATISTICS), digits()
    flat, unravel = ravel_pytree(variables.params)

    def loss(flat):
        logits, _ = apply_fn(Variables(unravel(flat), {}), data.x, is_training=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, data.y).mean()

    dense = jax.jit(lambda w: (jax.grad(loss)(w), jax.hessian(loss)(w)))(flat)
    gradient, hessian = (np.asarray(x, float) for x in dense)
    return Case(apply_fn, variables, data, gradient, hessian, half_masks(variables.params))


@pytest.fixture(scope="module")
def shared():
    with jax.enable_x64(True):
        case = dense_case("float64")
        return case, case.curvature(ones_masks(case.kept))


@pytest.fixture
def exact(shared):
    """In float64, so that only the method is tested: the case and its curvature."""
    with jax.enable_x64(True):
        yield shared


def largest(matrix, k):
    values, vectors = np.linalg.eigh(matrix)
    return values[::-1][:k], vectors[:, ::-1][:, :k]


def test_slices_cover_each_example_once():
    slices = list(data_slices(150, 64))
    assert {len(rows) for rows, _ in slices} == {50} and len(slices) == 3
    rows, weights = map(np.concatenate, zip(*data_slices(101, 50), strict=True))
    assert weights.sum() == 101 and (rows[weights == 0] == 0).all()
    np.testing.assert_array_equal(np.sort(rows[weights > 0]), np.arange(101))


def test_products_equal_the_dense_hessian(exact):
    case, curvature = exact
    vector = np.random.default_rng(0).standard_normal(case.gradient.size)
    np.testing.assert_allclose(
        curvature.product(vector), case.hessian @ vector, rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(curvature.gradient, case.gradient, rtol=1e-9, atol=1e-12)
    norm = np.linalg.norm(case.gradient)
    assert curvature.gradient_norm == pytest.approx(norm, rel=1e-12)


def test_top_eigenpairs_equal_the_dense_ones(exact):
    case, curvature = exact
    values, vectors = largest(case.hessian, 8)
    top = top_eigenpairs(curvature, 8)
    np.testing.assert_allclose(top.eigenvalues, values, rtol=1e-10)
    overlap = np.abs(np.sum(vectors * top.eigenvectors, axis=0))
    np.testing.assert_allclose(overlap, 1, rtol=1e-10)
    assert (top.residuals < 1e-7 * values).all()


def test_single_precision_is_good_to_four_digits():
    case = dense_case("float32")
    curvature = case.curvature(ones_masks(case.kept))
    values, _ = largest(case.hessian, 5)
    top = top_eigenpairs(curvature, 5)
    np.testing.assert_allclose(top.eigenvalues, values, rtol=1e-4)
    assert (top.residuals < 1e-3 * values).all()


def test_trace_lies_within_its_error(exact):
    case, curvature = exact
    estimate = hessian_trace(jax.random.key(1), curvature, num_probes=60)
    trace = np.trace(case.hessian)
    assert abs(estimate.trace - trace) < 4 * estimate.standard_error
    # Variance of a probe of signs: twice the sum of squares off the diagonal.
    off_diagonal = case.hessian - np.diag(np.diag(case.hessian))
    expected = np.sqrt(2 * (off_diagonal**2).sum() / 60)
    assert estimate.standard_error == pytest.approx(expected, rel=0.4)
    assert estimate.standard_error < 0.1 * trace
    assert estimate.num_probes == 60


def test_energy_shares_equal_dense_projections(exact):
    case, curvature = exact
    k = 5
    _, vectors = largest(case.hessian, k)
    is_kept, g = flat_mask(case.kept), case.gradient
    projector = vectors @ vectors.T
    energy = gradient_energy(curvature, top_eigenpairs(curvature, k), case.kept)
    total, top_total = (g**2).sum(), ((projector @ g) ** 2).sum()
    assert energy.in_top == pytest.approx(top_total / total, abs=1e-5)
    assert energy.gradient_norm == pytest.approx(np.sqrt(total), rel=1e-10)
    for part, chosen in ((energy.kept, is_kept), (energy.pruned, ~is_kept)):
        alone = np.where(chosen, g, 0)
        expected = [
            chosen.mean(),
            (alone**2).sum() / total,
            ((projector @ g)[chosen] ** 2).sum() / top_total,
            ((projector @ alone) ** 2).sum() / (alone**2).sum(),
        ]
        np.testing.assert_allclose(part, expected, rtol=0, atol=1e-5)
    assert 0.02 < energy.in_top < 0.98  # else the numbers above could not tell parts apart


def test_no_pruned_weights_no_share(exact):
    case, curvature = exact
    top = top_eigenpairs(curvature, 3)
    energy = gradient_energy(curvature, top, ones_masks(case.kept))
    assert energy.kept[:3] == (1, pytest.approx(1), pytest.approx(1))
    assert np.isnan(energy.pruned.in_top) and energy.pruned.of_top == 0


def test_a_mask_cuts_the_hessian_to_its_rows_and_columns(exact):
    case, _ = exact
    mask = surviving_prunable(case.kept, (False, True, False, True))  # biases come first
    chosen = flat_mask(mask)
    curvature = case.curvature(mask)
    top = top_eigenpairs(curvature, 4)
    assert 150 < chosen.sum() == len(curvature.gradient) < 270
    small = case.hessian[np.ix_(chosen, chosen)]
    np.testing.assert_allclose(top.eigenvalues, largest(small, 4)[0], rtol=1e-9)
    np.testing.assert_allclose(curvature.gradient, case.gradient[chosen], rtol=1e-9)
    assert gradient_energy(curvature, top, case.kept).kept.of_weights == 1


def test_products_through_convolutions_equal_differences_of_gradients(tiny_batch):
    """In float64: the network's own convolution has reverse-mode derivatives only."""
    model = one_block(channels=4)
    apply_fn = model.make_apply_fn(*STATISTICS)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        # Norm biases of 0 put pixels on the kink of the ReLU, where differences fail.
        variables = jax.tree.map(
            lambda p: jnp.asarray(p + 0.1 * rng.standard_normal(p.shape) ** 2, "float64"),
            draw(model, 3, (8, 8, 1)),
        )
        masks = half_masks(variables.params)
        variables = variables._replace(params=apply_masks(variables.params, masks))
        flat, unravel = ravel_pytree(variables.params)
        here = make_curvature(apply_fn, variables, tiny_batch, masks)

        @jax.jit
        @jax.grad
        def gradient(weights):
            point = Variables(unravel(weights), variables.batch_stats)
            logits, _ = apply_fn(point, tiny_batch.x, is_training=False)
            return optax.softmax_cross_entropy_with_integer_labels(logits, tiny_batch.y).mean()

        direction = rng.standard_normal(here.gradient.size)
        step = np.zeros(flat.size)
        step[here.is_chosen] = 1e-6 * direction
        ahead, at, behind = (np.asarray(gradient(flat + t * step)) for t in (1, 0, -1))
        product = here.product(direction)
    differences = (ahead - behind)[here.is_chosen] / 2e-6
    np.testing.assert_allclose(here.gradient, at[here.is_chosen], rtol=1e-9, atol=1e-12)
    error = np.linalg.norm(product - differences) / np.linalg.norm(product)
    assert error < 1e-6


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda c, m: top_eigenpairs(c, 0), r"k: must lie in \[1, 442\).* got 0"),
        (lambda c, m: top_eigenpairs(c, 442), r"k: must lie in \[1, 442\).* got 442"),
        (lambda c, m: hessian_trace(jax.random.key(0), c, num_probes=1), "num_probes: must be"),
        (
            lambda c, m: gradient_energy(c, top_eigenpairs(c, 1), {"w": m["head"]}),
            "kept: must mirror the 442 weights of the network, got 170",
        ),
    ],
)
def test_bad_input_gets_one_line(exact, call, match):
    with pytest.raises(ValueError, match=match) as error:
        call(exact[1], exact[0].kept)
    assert "\n" not in str(error.value)


def test_an_empty_mask_is_named():
    variables = mlp_variables("float32")
    empty = jax.tree.map(lambda p: jnp.zeros(p.shape, bool), variables.params)
    with pytest.raises(ValueError, match="mask: must keep a weight, got 'none'"):
        make_curvature(MLP.make_apply_fn(*STATISTICS), variables, digits(), empty)

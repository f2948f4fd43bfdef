"""The Ising model against enumeration, closed forms and planted answers."""

import dataclasses
import html
import re
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import ising as experiment
from experiments.studies.ising.page import CAPTIONS, TABLES, error_text, exponent_table, make_page
from imp_rg.rg import ising
from imp_rg.rg.monte_carlo_rg import (
    binder_crossing,
    binder_cumulant,
    jackknife,
    leading_exponent,
    pair_moments,
)

UPDATES = (ising.metropolis_sweep, ising.cluster_sweep)


@pytest.fixture(scope="module")
def all_states():
    """Every configuration of a 4 x 4 torus."""
    bits = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    return (2 * bits - 1).astype(np.int8).reshape(-1, 4, 4)


@pytest.fixture(scope="module")
def energies(all_states):
    """Energy of each of them, summed over sites in NumPy."""
    pairs = np.roll(all_states, 1, 1) + np.roll(all_states, 1, 2)
    return -(all_states * pairs).sum((1, 2)).astype(float)


def random_spins(seed, shape):
    return np.random.default_rng(seed).choice([-1, 1], shape).astype(np.int8)


def observed(update, observe, *, coupling, size, num_chains, num_samples):
    """Observations of chains at one coupling, [sample chain ...]; the first third is warm-up."""
    _, values = ising.sample(
        jax.random.key(0), jnp.ones((num_chains, size, size), jnp.int8),
        jnp.full(num_chains, coupling, jnp.float32), update=update, observe=observe,
        num_samples=num_samples * 3 // 2, sweeps_between=2,
    )  # fmt: skip
    return jax.tree.map(lambda x: np.asarray(x)[num_samples // 2 :], values)


def energy_and_order(key, spins):
    """Energy and squared magnetisation."""
    del key
    return -ising.even_operators(spins)[:, 0], ising.odd_operators(spins)[:, 0] ** 2


def within(values, exact, *, sigmas=4.0):
    """Whether the mean over [sample chain] agrees, by the scatter of the independent chains."""
    chains = np.asarray(values, float).mean(axis=0)
    error = chains.std(ddof=1) / np.sqrt(chains.size)
    return abs(chains.mean() - exact) < sigmas * error


# Exact results


@pytest.mark.parametrize("coupling", [0.2, ising.CRITICAL_COUPLING, 0.8])
def test_torus_energy_is_that_of_enumeration(energies, coupling):
    weights = np.exp(-coupling * (energies - energies.min()))
    exact = (weights @ energies) / weights.sum() / 16
    assert ising.torus_energy(coupling, 4) == pytest.approx(exact, rel=1e-13)


def test_torus_energy_tends_to_onsagers():
    critical = [ising.torus_energy(ising.CRITICAL_COUPLING, size) for size in (64, 128, 1024)]
    gaps = np.array(critical) + np.sqrt(2)
    # The gap closes as 1 / L at the critical point, and exponentially elsewhere.
    assert gaps[1] == pytest.approx(gaps[0] / 2, rel=1e-3)
    assert abs(gaps[2]) < 1e-3
    for coupling in (0.3, 0.6):
        assert ising.torus_energy(coupling, 128) == pytest.approx(
            ising.torus_energy(coupling, 1024), rel=1e-12
        )
    assert np.isfinite(ising.torus_energy(2.0, 1024))


# Updates


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("coupling", [0.3, ising.CRITICAL_COUPLING])
def test_updates_sample_boltzmanns_law(all_states, energies, update, coupling):
    weights = np.exp(-coupling * energies)
    weights /= weights.sum()
    order = all_states.sum((1, 2), dtype=float) ** 2
    energy, squared = observed(update, energy_and_order, coupling=coupling, size=4,
                               num_chains=256, num_samples=100)  # fmt: skip
    assert within(energy, weights @ energies)
    assert within(squared, weights @ order)
    assert not within(energy, 1.05 * weights @ energies), "no power: the test cannot fail"


def test_chains_keep_their_own_temperature():
    couplings = jnp.array([0.1, 5.0], jnp.float32)
    spins = jnp.ones((2, 16, 16), jnp.int8)
    for update in UPDATES:
        after = np.asarray(jax.jit(update)(jax.random.key(0), spins, couplings))
        assert len(np.unique(after[0])) == 2
        assert len(np.unique(after[1])) == 1


def test_cluster_labels_are_components():
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(3)
    right, down = rng.random((2, 3, 12, 10)) < 0.5
    site = np.arange(right.size).reshape(right.shape)
    ends = [site[right], site[down]], [np.roll(site, -1, 2)[right], np.roll(site, -1, 1)[down]]
    start, stop = (np.concatenate(parts) for parts in ends)
    graph = coo_array((np.ones(start.size), (start, stop)), shape=(site.size, site.size))
    count, component = connected_components(graph, directed=False)
    smallest = np.full(count, site.size)
    np.minimum.at(smallest, component, site.ravel())
    labels = jax.jit(ising.cluster_labels)(jnp.asarray(right), jnp.asarray(down))
    np.testing.assert_array_equal(labels, smallest[component])


def test_checkerboard_needs_even_sides():
    with pytest.raises(ValueError, match=r"spins: sides must be even, got \(5, 4\)"):
        ising.metropolis_sweep(jax.random.key(0), jnp.ones((1, 5, 4), jnp.int8), jnp.ones(1))


# Blocking and operators


def test_majority_and_ties():
    spins = random_spins(1, (400, 8, 8))
    blocked = np.asarray(jax.jit(ising.block_spins)(jax.random.key(0), jnp.asarray(spins)))
    sums = spins.reshape(400, 4, 2, 4, 2).sum((2, 4))
    np.testing.assert_array_equal(blocked[sums != 0], np.sign(sums[sums != 0]))
    ties = blocked[sums == 0].astype(float)
    assert set(np.unique(ties)) == {-1.0, 1.0}
    assert abs(ties.mean()) < 4 / np.sqrt(ties.size)
    with pytest.raises(ValueError, match="spins: sides must be even"):
        ising.block_spins(jax.random.key(0), jnp.ones((1, 4, 5), jnp.int8))


def test_levels_end_at_the_smallest():
    spins = jnp.ones((2, 32, 32), jnp.int8)

    def levels():
        return ising.block_spins_to(jax.random.key(0), spins, smallest=4)

    assert [level.shape[-1] for level in jax.eval_shape(levels)] == [32, 16, 8, 4]
    for smallest in (5, 1, 64):
        with pytest.raises(ValueError, match="smallest: must be 32 halved some times"):
            ising.block_spins_to(jax.random.key(0), spins, smallest=smallest)


EVEN_TERMS = {
    "nearest": [[(0, 0), (0, 1)], [(0, 0), (1, 0)]],
    "diagonal": [[(0, 0), (1, 1)], [(0, 1), (1, 0)]],
    "plaquette": [[(0, 0), (0, 1), (1, 0), (1, 1)]],
    "third": [[(0, 0), (0, 2)], [(0, 0), (2, 0)]],
    "knight": [[(0, 0), d] for d in ((1, 2), (2, 1), (-1, 2), (-2, 1))],
    "diagonal2": [[(0, 0), (2, 2)], [(0, 2), (2, 0)]],
    "plaquette2": [[(0, 0), (0, 2), (2, 0), (2, 2)]],
}
ODD_TERMS = {
    "magnetisation": [[(0, 0)]],
    "corner": [
        [(0, 1), (1, 0), (1, 1)],
        [(0, 0), (1, 0), (1, 1)],
        [(0, 0), (0, 1), (1, 1)],
        [(0, 0), (0, 1), (1, 0)],
    ],
    "row": [[(0, -1), (0, 0), (0, 1)], [(-1, 0), (0, 0), (1, 0)]],
    "wedge": [
        [(0, 0), (1, 1), (1, -1)],
        [(0, 0), (1, 1), (-1, 1)],
        [(0, 0), (-1, -1), (1, -1)],
        [(0, 0), (-1, -1), (-1, 1)],
    ],
}


def sum_of_terms(spins, terms):
    """Plain loops over sites and terms."""
    rows, columns = spins.shape
    return sum(
        int(np.prod([spins[(i + a) % rows, (j + b) % columns] for a, b in term]))
        for i in range(rows)
        for j in range(columns)
        for term in terms
    )


@pytest.mark.parametrize("shape", [(4, 4), (6, 8)])
def test_operators_are_sums_over_terms(shape):
    spins = random_spins(2, (2, *shape))
    for operators, terms, names in (
        (ising.even_operators, EVEN_TERMS, ising.EVEN_OPERATORS),
        (ising.odd_operators, ODD_TERMS, ising.ODD_OPERATORS),
    ):
        assert tuple(terms) == names
        expected = [[sum_of_terms(chain, terms[name]) for name in names] for chain in spins]
        np.testing.assert_array_equal(jax.jit(operators)(jnp.asarray(spins)), expected)


# Monte Carlo RG


def test_planted_matrix_is_found():
    """Coarse operators that respond linearly to the fine ones, with independent noise."""
    rng = np.random.default_rng(4)
    fine = rng.normal(size=(40, 2000, 2))
    response = np.array([[1.5, 0.3], [0.0, 0.5]])
    coarse = fine @ response + 0.5 * rng.normal(size=fine.shape) + 7
    # T = <S S>^-1 <S S'> with <S S'> = response^T and <S S> = response^T response + 1/4.
    matrix = np.linalg.solve(response.T @ response + 0.25 * np.eye(2), response.T)
    exact = np.log2(np.abs(np.linalg.eigvals(matrix)).max())
    found = leading_exponent(pair_moments(fine, coarse), num_operators=2, is_odd=False)
    assert abs(found.value - exact) < 4 * found.error < 0.03
    # The means must be subtracted: they are no response.
    wrong = leading_exponent(pair_moments(fine, coarse), num_operators=2, is_odd=True)
    assert abs(wrong.value - exact) > 10 * found.error


def test_jackknife_of_a_mean_is_its_standard_error():
    bins = np.random.default_rng(5).normal(size=30)
    found = jackknife(np.mean, (bins,))
    assert found.error == pytest.approx(bins.std(ddof=1) / np.sqrt(30), rel=1e-12)
    with pytest.raises(ValueError, match="arrays: must hold at least 2 bins, got 1"):
        jackknife(np.mean, (bins[:1],))


def test_crossing_of_planted_cumulants():
    temperature = np.linspace(2.2, 2.34, 5)
    rng = np.random.default_rng(6)

    def moments(size):
        cumulant = 0.61 - 0.02 * size * (temperature - 2.27)
        second = 0.5 + 1e-4 * rng.normal(size=(20, 5))
        fourth = 3 * 0.25 * (1 - cumulant) + 1e-4 * rng.normal(size=(20, 5))
        return np.stack([second, fourth], axis=1)

    small, large = moments(32), moments(64)
    found = binder_crossing(temperature, small, large)
    assert abs(found.value - 2.27) < 4 * found.error < 0.001
    apart = binder_crossing(temperature + 1, small, large)
    assert apart.value == pytest.approx(found.value + 1)
    assert np.isnan(binder_crossing(temperature, small, small + 0.01).value)


def test_cumulant_of_order_and_disorder():
    assert binder_cumulant(np.array(0.5), np.array(0.25)) == pytest.approx(2 / 3)
    normal = np.random.default_rng(7).normal(size=1_000_000)
    moments = (np.array(np.mean(normal**power)) for power in (2, 4))
    assert abs(binder_cumulant(*moments)) < 0.01


# Renormalised couplings


def test_couplings_of_unblocked_spins_are_those_put_in():
    put_in = 0.4
    spins = observed(ising.metropolis_sweep, lambda key, spins: spins, coupling=put_in, size=16,
                     num_chains=16, num_samples=100)  # fmt: skip
    counts = [ising.field_histogram(chain) for chain in np.moveaxis(np.asarray(spins), 1, 0)]
    found = jackknife(
        lambda histograms: ising.renormalized_couplings(histograms.sum(axis=0)),
        (np.array(counts),),
    )
    assert np.all(found.error < 0.01)
    assert np.all(np.abs(found.value - [put_in, 0, 0, 0]) < 4 * found.error)


def test_couplings_of_full_order_are_nan():
    ordered = ising.field_histogram(np.ones((2, 8, 8), np.int8))
    assert np.isnan(ising.renormalized_couplings(ordered)).all()
    with pytest.raises(ValueError, match=r"spins: sides must be at least 5, got \(4, 8\)"):
        ising.field_histogram(np.ones((1, 4, 8), np.int8))
    with pytest.raises(ValueError, match="num_operators: must be 1 to 4, got 5"):
        ising.renormalized_couplings(ordered, num_operators=5)


# The experiment

IMP_RUN = Path(__file__).resolve().parent.parent / "experiments/results/digits-resnet14"

TINY = dataclasses.replace(experiment.PRESETS["smoke"], bins=2, samples=10, picture_size=16)


def test_experiment_writes_tables_figures_and_page(tmp_path, monkeypatch):
    config = dataclasses.replace(TINY, out=tmp_path / "run", run=IMP_RUN)
    with mock.patch.object(experiment, "make_page", side_effect=make_page) as pages:
        folder = experiment.run(config)
    pages.assert_called_once_with(folder)
    for table in TABLES:
        assert len(pd.read_csv(folder / f"{table}.csv")) > 0, table
    for figure in CAPTIONS:
        assert (folder / "figures" / f"{figure}.svg").exists()
    page = html.unescape(re.sub('base64,[^"]*', "", (folder / "report.html").read_text()))
    assert all(caption in page for caption in CAPTIONS.values())
    assert not re.search(r"\bnan\b", page)
    assert len(pd.read_csv(folder / "imp_metrics.csv")) == len(pd.read_csv(IMP_RUN / "metrics.csv"))
    rows = pd.read_csv(folder / "exponents.csv").query("exponent == 'y_t'")
    shown = exponent_table(rows)
    assert list(shown["operators"])[:2] == ["nearest", "… diagonal"]
    assert list(shown.columns[1:]) == ["blocking 1 (16 to 8)", "blocking 2 (8 to 4)"]
    (at,) = rows.query("num_operators == 1 and blocking == 2").to_dict("records")
    assert str(shown.iloc[0, 2]).startswith(error_text(at["value"], at["error"]))
    # Again: nothing is measured anew, and other settings are refused.
    monkeypatch.setattr(experiment, "measure", None)
    monkeypatch.setattr(experiment, "make_page", lambda folder: None)
    monkeypatch.setattr(experiment.Study, "report", lambda study, page, folder: folder)
    experiment.run(config)
    with pytest.raises(ValueError, match="seed 0 there, 1 here"):
        experiment.run(dataclasses.replace(config, seed=1))


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.99624, 0.0021, "0.9962(21)"),
        (1.8754, 0.00093, "1.87540(93)"),
        (12.3, 4.2, "12.3(42)"),
        (1.0, 0.0, "–"),
        (np.nan, 0.1, "–"),
    ],
)
def test_errors_in_units_of_the_last_digits(value, error, text):
    assert error_text(value, error) == text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"size": 48}, "size: must be 16 times a power of two, got 48"),
        ({"size": 63}, "size: must be 16 times a power of two, got 63"),
        ({"picture_size": 0}, "picture_size: must be 16 times a power of two, got 0"),
        ({"bins": 1}, "bins: must be at least 2, got 1"),
        ({"temperatures": (1.05, 1.0, 0.95)}, "temperatures: must rise"),
        ({"temperatures": (0.999, 1.0, 1.001)}, "temperatures: must rise"),
    ],
)
def test_bad_settings_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **setting)


def test_run_must_hold_a_flow(tmp_path):
    with pytest.raises(ValueError, match="run: must be a run folder with flow.csv"):
        experiment.run(dataclasses.replace(TINY, run=tmp_path, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_default_run_meets_the_exact_values(tmp_path):
    """L = 64: exponents at blockings 2 and 3, critical temperature, energies."""
    folder = experiment.run(dataclasses.replace(experiment.Config(), out=tmp_path / "run"))
    exponents = pd.read_csv(folder / "exponents.csv")
    chosen = exponents[exponents["blocking"].isin([2, 3]) & (exponents["num_operators"] >= 3)]
    assert (chosen["deviation_percent"].abs() < 1).all()
    assert (chosen["error"] < 0.005 * chosen["exact"]).all()
    first = exponents[(exponents["blocking"] == 1) & (exponents["exponent"] == "y_t")]
    assert (first["value"] + 3 * first["error"] < 0.99).all(), "truncation must show"
    crossing = pd.read_csv(folder / "crossing.csv")
    assert (crossing["deviation_percent"].abs() < 0.3).all()
    energy = pd.read_csv(folder / "energy.csv")
    assert len(energy) == 5
    assert (energy["deviation_in_errors"].abs() < 3).all()

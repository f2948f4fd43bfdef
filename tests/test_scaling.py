"""Finite-size scaling: planted collapses, site percolation, the joint law of widths and depths."""

import dataclasses
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments import scaling
from experiments.shell import cli
from experiments.studies.scaling.checks import check_ising
from experiments.studies.scaling.findings import (
    collapse_frame,
    fit_frame,
    joint_arrays,
    joint_frame,
    points_frame,
    write_tables,
)
from experiments.studies.scaling.page import BESIDE_COUNT, answers, make_check_page, make_page
from experiments.trunk import several
from imp_rg.rg import collapse, fit_joint_law
from imp_rg.rg.error_noise import LogNoise
from imp_rg.rg.ising import CRITICAL_TEMPERATURE
from imp_rg.rg.joint_fit import JointFit, Networks
from imp_rg.rg.percolation import (
    NU,
    THRESHOLD,
    WRAPPING_AT_THRESHOLD,
    wrapping_curve,
    wrapping_samples,
    wraps,
)
from imp_rg.runs.files import read_csv, read_json, write_csv, write_json

X_C, PLANTED_NU, ZETA = 0.4, 0.8, 0.3
SIZES = (8, 16, 32, 64)


def planted_points(num_x=21):
    size = np.repeat(SIZES, num_x).astype(float)
    x = np.tile(np.linspace(0.3, 0.5, num_x), len(SIZES))
    scaled = (x - X_C) * size ** (1 / PLANTED_NU)
    return x, size ** (ZETA / PLANTED_NU) * (1 + np.tanh(0.25 * scaled)), size


def noisy_collapse(rng, *, noise=0.02, num_samples=30, **options):
    x, y, size = planted_points(num_x=41)
    samples = y + noise * y * np.sqrt(num_samples) * rng.standard_normal((num_samples, y.size))
    start = options.pop("start", (0.41, 1.0, 0.2))
    return collapse(
        x, samples.mean(axis=0), noise * y, size, start=start, samples=samples, **options
    )


def quality_by_lines(x, y, y_err, size, x_c, nu, zeta):
    """S as Houdayer and Hartmann define it, point by point, with NumPy's weighted line."""
    x, scale = (x - x_c) * size ** (1 / nu), size ** (-zeta / nu)
    y, y_err, squares = y * scale, y_err * scale, []
    for i in range(x.size):
        chosen = []
        for other in set(size) - {size[i]}:
            of_other = np.flatnonzero(size == other)
            below, above = of_other[x[of_other] <= x[i]], of_other[x[of_other] > x[i]]
            if below.size and above.size:
                chosen += [below[np.argmax(x[below])], above[np.argmin(x[above])]]
        if chosen:
            line, covariance = np.polyfit(
                x[chosen] - x[i], y[chosen], 1, w=1 / y_err[chosen], cov="unscaled"
            )
            squares.append((y[i] - line[1]) ** 2 / (y_err[i] ** 2 + covariance[1, 1]))
    return np.mean(squares), len(squares)


def test_quality_against_lines():
    x, y, size = planted_points(num_x=9)
    rng = np.random.default_rng(0)
    x, y_err = x + 1e-3 * rng.standard_normal(x.size), rng.uniform(0.01, 0.1, x.size)
    at = (0.403, 0.9, 0.2)
    found = collapse(x, y, y_err, size, start=at, hold=("x_c", "nu", "zeta"))
    expected, num_points = quality_by_lines(x, y, y_err, size, *at)
    assert found.quality == pytest.approx(expected, rel=1e-9)
    assert found.num_points == num_points < x.size
    assert (found.x_c, found.nu, found.zeta) == at


def test_planted_collapse_is_found():
    """What is left is the curvature between two points, far below the error given."""
    x, y, size = planted_points(num_x=81)
    found = collapse(x, y, 0.01 * y, size, start=(0.42, 1.1, 0.1))
    assert found.x_c == pytest.approx(X_C, abs=2e-4)
    assert found.nu == pytest.approx(PLANTED_NU, rel=0.01)
    assert found.zeta == pytest.approx(ZETA, abs=0.005)
    assert found.quality < 0.02
    scaled_x, scaled_y = found.scaled(x, y, size)
    curve = np.interp(scaled_x, np.sort(scaled_x), scaled_y[np.argsort(scaled_x)])
    assert np.abs(curve - 1 - np.tanh(0.25 * scaled_x)).max() < 0.02


@pytest.mark.parametrize(
    "num_sets, hold", [(6, ("zeta",)), pytest.param(40, (), marks=pytest.mark.long)]
)
def test_errors_of_the_bootstrap_are_standard_errors(num_sets, hold):
    """Scores of planted sets: their sum of squares is chi^2, inside its central 99.8 %."""
    rng = np.random.default_rng(1)
    truth = np.array([X_C, PLANTED_NU, ZETA])
    free = [name not in hold for name in ("x_c", "nu", "zeta")]
    scores, qualities, widths = [], [], []
    for _ in range(num_sets):
        found = noisy_collapse(rng, start=(0.41, 1.0, ZETA), hold=hold, num_resamples=20)
        value = np.array([found.x_c, found.nu, found.zeta])
        error = np.array([found.x_c_error, found.nu_error, found.zeta_error])
        scores.append((value - truth)[free] / error[free])
        qualities.append(found.quality)
        widths.append(found.s_plus_one.mean(axis=1)[free] / error[free])
    low, high = stats.chi2.ppf([0.001, 0.999], num_sets)
    squares = np.sum(np.square(scores), axis=0)
    assert np.all((low < squares) & (squares < high))
    # Neighbours share points of the master curve, so S scatters more than sqrt(2 / n).
    assert np.mean(qualities) == pytest.approx(1, abs=0.2)
    # S -> S+1 is chi^2 -> chi^2 + n: wider than a standard error by about sqrt(n) = 12.
    assert np.all(np.mean(widths, axis=0) > 3)


def test_wrong_exponents_do_not_collapse():
    x, y, size = planted_points()
    y = y + 0.02 * y * np.random.default_rng(0).standard_normal(y.size)
    good = collapse(x, y, 0.02 * y, size, start=(0.41, 1.0, 0.2))
    forced = collapse(x, y, 0.02 * y, size, start=(X_C, 1.6, ZETA), hold=("nu",))
    assert good.quality < 1.5
    assert forced.nu == 1.6 and forced.nu_error == 0
    assert forced.quality > 5 * good.quality


def test_s_plus_one_raises_the_quality_by_one():
    x, y, size = planted_points()
    y = y + 0.02 * y * np.random.default_rng(0).standard_normal(y.size)
    hold = ("nu", "zeta")
    found = collapse(x, y, 0.02 * y, size, start=(0.41, PLANTED_NU, ZETA), hold=hold)
    for side, sign in zip(found.s_plus_one[0], (-1, 1), strict=True):
        moved = (found.x_c + sign * side, PLANTED_NU, ZETA)
        at_edge = collapse(x, y, 0.02 * y, size, start=moved, hold=("x_c", *hold))
        assert at_edge.quality == pytest.approx(found.quality + 1, rel=0.02)


def test_order_of_points_and_unit_of_size_do_not_matter():
    x, y, size = planted_points()
    order = np.random.default_rng(0).permutation(x.size)
    one = collapse(x, y, 0.01 * y, size, start=(0.41, 1.0, 0.2))
    other = collapse(x[order], y[order], 0.01 * y[order], 10 * size[order], start=(0.41, 1.0, 0.2))
    for name in ("x_c", "nu", "zeta", "quality"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-6)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"size": np.full(84, 8.0)}, "size: must hold at least 2 system sizes, got"),
        ({"y_err": np.zeros(84)}, "y_err: must be positive and finite, got 0.0"),
        ({"y": np.full(84, np.nan)}, "y: must be finite, got nan"),
        ({"x": np.zeros(83)}, r"size: must be \[point\] of one length"),
        ({"start": (0.4, -1.0, 0.0)}, r"start: must be finite \(x_c, nu, zeta\) with nu > 0"),
        ({"start": (0.4, 1.0)}, r"start: must be finite \(x_c, nu, zeta\)"),
        ({"start": (9.0, 0.01, 0.0)}, "start: must make curves of other sizes enclose 50% of the"),
        ({"hold": ("mu",)}, r"hold: must name some of x_c, nu, zeta, got \('mu',\)"),
        ({"samples": np.zeros((5, 3))}, r"samples: must be \[sample point\] of at least 2 samples"),
    ],
)
def test_bad_input(change, words):
    x, y, size = planted_points()
    arguments = {"x": x, "y": y, "y_err": 0.01 * y, "size": size, "start": (0.4, 1.0, 0.2)} | change
    with pytest.raises(ValueError, match=words):
        collapse(**arguments)


def winds_by_search(occupied):
    """Walks every cluster with its displacement; meeting a site at another one means winding."""
    rows, columns = occupied.shape
    position = {}
    for first in zip(*np.nonzero(occupied), strict=True):
        if first in position:
            continue
        position[first], queue = first, [first]
        while queue:
            row, column = queue.pop()
            for step in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                moved = row + step[0], column + step[1]
                site = moved[0] % rows, moved[1] % columns
                if occupied[site] and site not in position:
                    position[site] = moved
                    queue.append(moved)
                elif occupied[site] and position[site] != moved:
                    return True
    return False


@pytest.mark.parametrize("length", [2, 3, 4, 7])
def test_winding_against_a_search(length):
    occupied = np.random.default_rng(length).random((300, length, length)) < 0.6
    expected = [winds_by_search(lattice) for lattice in occupied]
    assert 0 < np.mean(expected) < 1
    assert wraps(occupied).tolist() == expected


def test_clusters_that_only_look_as_if_they_wound():
    line, spiral, touching = np.zeros((3, 6, 6), bool)
    line[2] = True
    for k in range(6):  # a diagonal staircase winds in both directions at once
        spiral[k, k] = spiral[k, (k + 1) % 6] = True
    touching[2, :3], touching[3, 3:] = True, True  # meets itself across the seam one row lower
    assert wraps(np.stack([line, spiral, touching])).tolist() == [True, True, False]
    assert not wraps(np.zeros((1, 4, 4), bool))[0]


def test_bisection_gives_what_every_density_alone_would():
    density = np.linspace(0.3, 0.9, 13)
    winds = wrapping_samples(np.random.default_rng(3), 12, density, num_samples=50)
    uniform = np.random.default_rng(3).random((50, 12, 12))
    expected = np.stack([wraps(uniform < d) for d in density], axis=1)
    np.testing.assert_array_equal(winds, expected)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"length": 1}, "length: must be at least 2, got 1"),
        ({"density": [0.6, 0.5]}, r"density: must rise in \[0, 1\], got \[0.6, 0.5\]"),
        ({"density": [0.6, 1.5]}, r"density: must rise in \[0, 1\]"),
        ({"num_samples": 0}, "num_samples: must be at least 1, got 0"),
    ],
)
def test_bad_lattices(change, words):
    arguments = {"length": 8, "density": [0.5, 0.6], "num_samples": 4} | change
    with pytest.raises(ValueError, match=words):
        wrapping_samples(np.random.default_rng(0), **arguments)


def test_winding_probability_at_the_threshold():
    """Pinson's exact number for a large torus; at 32 the size matters less than the noise."""
    num = 4000
    winds = wrapping_samples(
        np.random.default_rng(0), 32, np.array([THRESHOLD]), num_samples=num
    ).mean()
    error = np.sqrt(WRAPPING_AT_THRESHOLD * (1 - WRAPPING_AT_THRESHOLD) / num)
    assert winds == pytest.approx(WRAPPING_AT_THRESHOLD, abs=4 * error)


def percolate(sizes, num_samples):
    density = np.linspace(0.53, 0.65, 49)
    parts = [
        wrapping_curve(np.random.default_rng(size), size, density, num_samples=num)
        for size, num in zip(sizes, num_samples, strict=True)
    ]
    samples = np.concatenate([part.samples for part in parts], axis=1)
    return collapse(
        np.tile(density, len(sizes)),
        np.concatenate([part.probability for part in parts]),
        np.concatenate([part.error for part in parts]),
        np.repeat(sizes, density.size),
        start=(0.6, 1.0, 0.0),
        hold=("zeta",),
        samples=samples,
    )


def test_small_percolation():
    found = percolate((12, 24, 48), (16000, 6000, 2000))
    assert abs(found.x_c - THRESHOLD) < 3 * found.x_c_error < 0.005
    assert abs(found.nu - NU) < 3 * found.nu_error < 0.25


@pytest.mark.long
def test_percolation():
    """L = 32, 64, 128: nu within 3 %, p_c within 0.1 %."""
    found = percolate((32, 64, 128), (40000, 20000, 10000))
    assert found.x_c == pytest.approx(THRESHOLD, rel=1e-3)
    assert found.nu == pytest.approx(NU, rel=0.03)
    assert found.x_c_error < 5e-4 * THRESHOLD and found.nu_error < 0.015 * NU


PHI, PSI, GAMMA, E_UP = 0.7, 1.3, 1.1, 80.0


def networks(widths=(0.5, 1, 2), depths=(14, 20, 32), num_levels=27):
    width, depth, level = np.meshgrid(widths, depths, np.arange(num_levels), indexing="ij")
    return 0.8 ** level.ravel(), width.ravel(), depth.ravel()


def planted_errors(density, width, depth):
    """The law as Rosenfeld et al. write it, by complex numbers."""
    e_np, p = 3 * width**-0.3 * (depth / 14) ** -0.2, 0.02 * 20**PHI
    m = depth**PHI * width**PSI * density
    shift = p * (E_UP / e_np) ** (1 / GAMMA)
    return e_np * np.abs((m - 1j * shift) / (m - 1j * p)) ** GAMMA


def test_planted_joint_law_is_found():
    points = networks()
    law = fit_joint_law(points[0], planted_errors(*points), *points[1:])
    assert (law.phi, law.psi, law.gamma) == pytest.approx((PHI, PSI, GAMMA), rel=1e-5)
    assert (law.e_up, law.p) == pytest.approx((E_UP, 0.02 * 20**PHI), rel=1e-5)
    expected = 3 * law.width**-0.3 * (law.depth / 14) ** -0.2
    np.testing.assert_allclose(law.e_np, expected, rtol=1e-5)
    assert law.identified and np.abs(law.deviation).max() < 1e-5
    of_point = 3 * points[1] ** -0.3 * (points[2] / 14) ** -0.2
    np.testing.assert_allclose(
        law.error_at(law.invariant(*points), of_point), planted_errors(*points), rtol=1e-5
    )


@pytest.mark.parametrize("has_curve_effects", [False, True])
def test_joint_intervals_cover(has_curve_effects):
    """100 planted sets of 3 seeds, 3 exponents: 300 times 95 %, at least 274 with 99.8 %."""
    rng, points = np.random.default_rng(0), networks()
    error = planted_errors(*points)
    network = np.unique(np.stack(points[1:]), axis=1, return_inverse=True)[1].reshape(-1)
    hits = 0
    for _ in range(100):
        noise = 0.03 * rng.standard_normal((3, error.size))
        if has_curve_effects:  # a seed prunes a network better or worse at all low densities
            noise += 0.15 * rng.standard_normal((3, 9))[:, network] * (error > 6)
        law = fit_joint_law(points[0], np.minimum(error * np.exp(noise), 100), *points[1:])
        found = ((law.phi_ci, PHI), (law.psi_ci, PSI), (law.gamma_ci, GAMMA))
        hits += sum(low < truth < high for (low, high), truth in found)
    assert hits >= 274


def test_binomial_joint_fit_takes_zero_errors():
    points, rng = networks(), np.random.default_rng(0)
    wrong = rng.binomial(100, planted_errors(*points) / 100, (3, points[0].size))
    assert np.any(wrong == 0)
    law = fit_joint_law(points[0], wrong, *points[1:], num_test=100)
    assert law.phi_ci[0] < PHI < law.phi_ci[1]
    assert law.psi_ci[0] < PSI < law.psi_ci[1]
    assert law.dispersion == pytest.approx(1, abs=0.2)


def test_gradient_of_the_joint_fit():
    density, width, depth = networks(num_levels=9)
    error = planted_errors(density, width, depth)
    pairs, of_point = np.unique(np.stack([width, depth], 1), axis=0, return_inverse=True)
    sizes = Networks(width=pairs[:, 0], depth=pairs[:, 1], of_point=of_point.reshape(-1))
    fit = JointFit(density, sizes, LogNoise(error[None]))
    theta = fit.best + 0.1 * np.random.default_rng(0).standard_normal(fit.best.size)
    steps = 1e-6 * np.eye(theta.size)
    numeric = [(fit.log_error(theta + h) - fit.log_error(theta - h)) / 2e-6 for h in steps]
    np.testing.assert_allclose(fit.gradient(theta), np.transpose(numeric), atol=1e-7)


def test_one_size_that_does_not_vary_has_no_exponent():
    points = networks(depths=(20,))
    law = fit_joint_law(points[0], planted_errors(*points), *points[1:])
    assert law.psi == pytest.approx(PSI, rel=1e-5)
    assert np.isnan([law.phi, *law.phi_ci]).all()
    assert law.identified


def test_plateau_alone_identifies_nothing():
    points = networks(num_levels=6)
    noise = np.exp(0.03 * np.random.default_rng(0).standard_normal((3, points[0].size)))
    law = fit_joint_law(points[0], 3 * noise, *points[1:])
    assert not law.identified
    assert any("points lie on the power law" in reason for reason in law.reasons)
    said = answers(joint_frame(law), fit_frame(law).iloc[0].to_dict(), "95 %", is_resnet=True)
    assert said[0].startswith("The data do not identify") and "phi =" not in " ".join(said)


@pytest.mark.parametrize(
    "sizes, words",
    [
        ({"widths": (1,), "depths": (20,)}, "width, depth: must hold at least 2 networks"),
        ({"widths": (0, 1)}, "width: must be positive, got 0.0"),
    ],
)
def test_bad_networks(sizes, words):
    density, width, depth = networks(**sizes)
    with pytest.raises(ValueError, match=words):
        fit_joint_law(density, 1 + 5 * (1 - density), width, depth)


def test_tied_sizes():
    density, width, _ = networks(depths=(14,))
    with pytest.raises(ValueError, match="width, depth: must not be tied to each other"):
        fit_joint_law(density, 1 + 5 * (1 - density), width, 10 * width)


def write_run(folder, width, depth, rng, *, num_seeds=3, num_levels=27):
    """A finished run that obeys the law, with binomial errors of 2,000 images."""
    density = 0.8 ** np.arange(num_levels)
    error = planted_errors(density, width, depth)
    rows = [
        {"seed": seed, "level": level, "density": density[level], "status": "ok",
         "test_metric": 100 - rng.binomial(2000, error[level] / 100) / 20}
        for seed in range(num_seeds) for level in range(num_levels)
    ]  # fmt: skip
    write_csv(folder / "metrics.csv", pd.DataFrame(rows))
    write_json(folder / "config.json", {"num_test": 2000})
    write_json(folder / "environment.json", {"seconds": 30.0, "finished": True})
    return folder


@pytest.fixture
def planted_runs(tmp_path):
    """Run folders of nine networks."""
    rng = np.random.default_rng(0)
    return {
        (width, depth): write_run(tmp_path / f"{width}-{depth}", width, depth, rng)
        for width in (0.5, 1.0, 2.0)
        for depth in (14, 20, 32)
    }


def test_report_of_planted_runs(planted_runs, tmp_path):
    out = tmp_path / "out"
    write_json(out / "config.json", {"ci_level": 0.95, "family": "resnet"})
    write_tables(out, planted_runs, ci_level=0.95)
    law: Any = read_csv(out / "joint_law.csv").set_index("parameter")
    for name, truth in (("phi", PHI), ("psi", PSI), ("gamma", GAMMA)):
        assert law.loc[name, "low"] < truth < law.loc[name, "high"]
    collapses = read_csv(out / "collapses.csv")
    assert list(collapses["exponent"]) == 3 * ["psi"] + 3 * ["phi"]
    for row in collapses.to_dict("records"):
        # Three seeds make the bootstrap error too small by up to two.
        truth = {"phi": PHI, "psi": PSI}[row["exponent"]]
        assert abs(row["value"] - truth) < 0.1 + 6 * row["error"]
        assert row["quality"] < 2
    page = make_page(out)
    assert page.answers[0].startswith("phi = +0.7") and BESIDE_COUNT["below"] in page.answers[0]
    tables: Any = {section.title: section.table for section in page.sections}
    assert len(tables["Parameters of the joint law"]) == 5 + 9
    assert len(tables["Collapse of one size at a time"]) == 6
    assert read_csv(out / "joint_fit.csv")["identified"].item()


def test_seed_that_stopped_is_left_out(planted_runs):
    file = planted_runs[1.0, 20] / "metrics.csv"
    write_csv(file, read_csv(file).query("seed != 1 or level < 20"))
    points = points_frame(planted_runs)
    assert set(points["seed"]) == {0, 2}
    assert joint_arrays(points)[1].shape == (2, 9 * 27)
    write_csv(file, read_csv(file).query("level < 20"))
    with pytest.raises(ValueError, match="seeds: one must reach the last level of every network"):
        points_frame(planted_runs)


def test_exponent_may_be_negative(planted_runs):
    """Were the networks that we call wide narrow, errors would fall the other way."""
    turned = {(1 / width, depth): folder for (width, depth), folder in planted_runs.items()}
    found = collapse_frame(points_frame(turned)).query("exponent == 'psi'")
    assert found["value"].to_numpy() == pytest.approx(-PSI, abs=0.3)


def test_count_of_weights_is_a_yardstick_for_resnets():
    points = networks()
    law = fit_joint_law(points[0], planted_errors(*points), *points[1:])
    table, fit = joint_frame(law), fit_frame(law).iloc[0].to_dict()
    phi, psi = answers(table, fit, "95 %", is_resnet=True)[:2]
    assert BESIDE_COUNT["below"] in phi and BESIDE_COUNT["below"] in psi  # 0.7 < 1, 1.3 < 2
    table.loc[table["parameter"] == "phi", ["low", "high"]] = 0.5, 1.5
    assert BESIDE_COUNT["as"] in answers(table, fit, "95 %", is_resnet=True)[0]
    assert "kept weights" not in " ".join(answers(table, fit, "95 %", is_resnet=False))


def test_command_runs_networks(tmp_path, capsys):
    """Each network once, with its own width and depth; finished ones are only read."""
    config = dataclasses.replace(scaling.PRESETS["smoke"], out=tmp_path / "run", ci_level=0.9)
    rng, models = np.random.default_rng(0), []

    def run_planted(run_config, study):
        del study
        models.append((run_config.model, run_config.width))
        depth = 1 + len(run_config.model.split("-"))
        assert (run_config.seeds, run_config.levels, run_config.ci_level) == (2, 18, 0.95)
        assert run_config.train == config.train
        sizes = run_config.width, depth
        return write_run(run_config.out, *sizes, rng, num_seeds=2, num_levels=19)

    with (
        mock.patch.object(several, "run", run_planted),
        mock.patch.object(several, "estimate_seconds", return_value=45.0) as estimate,
    ):
        folder = scaling.run(config)
        assert "4 of 4 networks to run" in capsys.readouterr().out
        assert estimate.call_count == 4
        scaling.run(config)
        assert estimate.call_count == 4
    assert models[:4] == [("lenet32", 0.5), ("lenet32-32", 0.5), ("lenet32", 1), ("lenet32-32", 1)]
    assert "about" not in capsys.readouterr().out
    assert len(read_csv(folder / "points.csv")) == 4 * 2 * 19
    assert read_json(folder / "environment.json")["seconds"] == 4 * 30
    assert (folder / "lenet-depth2-width0.5" / "metrics.csv").exists()
    assert (folder / "figures" / "joint_law.png").exists()


def test_command_checks_percolation(tmp_path):
    flags = ("--check", "percolation", "--preset", "smoke", "--out", str(tmp_path / "check"))
    folder = scaling.run(cli.parse(scaling.PRESETS, flags, prog="scaling"))
    table: Any = read_csv(folder / "check.csv").set_index("quantity")
    assert abs(table.loc["nu", "deviation_percent"]) < 10
    assert abs(table.loc["x_c", "deviation_percent"]) < 0.5
    (section,) = make_check_page(folder).sections
    assert section.table is not None and list(section.table["quantity"]) == ["x_c", "nu"]
    assert (folder / "report.html").exists()


@pytest.mark.long
def test_ising():
    """L = 16, 32, 64: nu within 3 %, T_c within 0.3 %."""
    table = check_ising(0, sizes=(16, 32, 64), scale=0.5).table.set_index("quantity")
    assert table["found"]["nu"] == pytest.approx(1, rel=0.03)
    assert table["found"]["x_c"] == pytest.approx(CRITICAL_TEMPERATURE, rel=3e-3)
    assert table["error"]["nu"] < 0.02


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"widths": (1.0,), "depths": (14,)}, "depths: must give at least 2 networks with widths"),
        ({"widths": (1.0, 1.0)}, "widths: must be different positive numbers"),
        ({"depths": (0, 14)}, "depths: must be different positive numbers"),
        ({"family": "lenet", "depths": (1, 2)}, "depths: of a LeNet must be at least 2"),
        ({"ci_level": 95}, r"ci_level: must lie in \(0, 1\), got 95"),
    ],
)
def test_bad_settings(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(scaling.PRESETS["default"], **change)


def test_unknown_depth_is_one_line(tmp_path):
    config = dataclasses.replace(scaling.PRESETS["default"], depths=(15,), out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"model: must be a known name \(nearest: .*'resnet15'"):
        scaling.run(config)
    assert not (tmp_path / "run").exists()

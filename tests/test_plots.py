"""Figures show the tables: drawn values are read back from the artists."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from run_folder import write_run_folder

from imp_rg import plots
from imp_rg.plots.intervals import draw_estimates, draw_null, name_categories, shifts_of
from imp_rg.plots.style import NULL_MEANINGS
from imp_rg.rg.estimate import Estimate
from imp_rg.runs.run_tables import read_tables


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return read_tables(write_run_folder(tmp_path_factory.mktemp("run")))


def line(axis, label):
    found = [x for x in axis.lines if x.get_label() == label]
    assert len(found) == 1, label
    return np.asarray(found[0].get_xdata(), float), np.asarray(found[0].get_ydata(), float)


def whisker_ends(axis):
    paths = axis.collections[0].get_paths()
    return np.array([np.asarray(path.vertices)[:, 0] for path in paths])


def share_of(tables, block):
    flow = tables.trained[tables.trained["block"] == block]
    return flow.pivot(index="seed", columns="level", values="magnitude_share").to_numpy()


def test_sigma_beside_nulls(tables):
    rows = tables.exponents()
    sigma, excess = plots.sigma_beside_nulls(rows).axes
    np.testing.assert_array_equal(line(sigma, "measured")[0], rows["sigma"])
    for null in ("init", "oneshot", "gaussian", "random"):
        drawn = line(sigma, f"{null}: {NULL_MEANINGS[null]}")[0]
        np.testing.assert_array_equal(drawn, rows[f"sigma_{null}"])
    np.testing.assert_array_equal(whisker_ends(sigma), rows[["ci_low", "ci_high"]])
    np.testing.assert_array_equal(
        whisker_ends(excess), rows[["excess_init_low", "excess_init_high"]]
    )
    assert [label.get_text() for label in sigma.get_yticklabels()] == list(rows["block"])


@pytest.mark.parametrize("is_upright", [True, False])
def test_estimates_beside_nulls_either_way_up(is_upright):
    axis = Figure().subplots()
    sigma = Estimate(np.array([0.1, 0.2]), np.array([0.0, np.nan]), np.array([0.3, np.nan]))
    draw_estimates(axis, np.arange(2), sigma, is_upright=is_upright, label="measured")
    draw_null(axis, np.arange(2), [0.4, 0.5], "init", is_upright=is_upright)
    name_categories(axis, ["a", "b"], is_upright=is_upright)
    at = 1 if is_upright else 0
    np.testing.assert_array_equal(line(axis, "measured")[at], [0.1, 0.2])
    np.testing.assert_array_equal(line(axis, f"init: {NULL_MEANINGS['init']}")[at], [0.4, 0.5])
    ends = [np.asarray(path.vertices)[:, at] for path in axis.collections[0].get_paths()]
    np.testing.assert_array_equal(ends[0], [0.0, 0.3])
    ticks = axis.get_xticklabels() if is_upright else axis.get_yticklabels()
    assert [tick.get_text() for tick in ticks] == ["a", "b"]
    assert (axis.get_ylim()[0] > axis.get_ylim()[1]) != is_upright  # the first one on top
    assert shifts_of(1) == [0.0] and shifts_of(3, 0.2) == pytest.approx([-0.2, 0.0, 0.2])


def test_a_block_without_exponent_says_so(tables):
    rows = tables.exponents()
    rows.loc[2, ["sigma", "ci_low", "ci_high"]] = np.nan
    axis = plots.sigma_beside_nulls(rows).axes[0]
    assert [(t.get_text(), round(t.get_position()[1])) for t in axis.texts] == [("no exponent", 2)]


def test_slope_fit_is_that_of_the_spectrum(tables):
    rows = tables.exponents("slope")
    figure = plots.share_decay(tables.trained, rows)
    for axis, block, sigma in zip(figure.axes, rows["block"], rows["sigma"], strict=False):
        time, fit = line(axis, "slope fit")
        np.testing.assert_allclose(np.polyfit(time, fit, 1)[0], sigma)
        logs = np.log(share_of(tables, block))
        np.testing.assert_allclose(line(axis, "mean of seeds")[1], logs.mean(axis=0))
        assert np.polyfit(time, logs.mean(axis=0) - fit, 1) == pytest.approx([0, 0], abs=1e-9)


def test_panels_span_the_same_range(tables):
    figure = plots.share_decay(tables.trained, tables.exponents("slope"))
    spans = [np.ptp(axis.get_ylim()) for axis in figure.axes if axis.get_visible()]
    np.testing.assert_allclose(spans, spans[0])


def test_running_exponents_average_to_sigma(tables):
    rows = tables.exponents()
    blocks = list(rows["block"])
    figure = plots.running_exponent(tables.trained, tables.null_flow, blocks)
    for axis, row in zip(figure.axes, rows.to_dict("records"), strict=False):
        assert line(axis, "mean of seeds")[1].mean() == pytest.approx(row["sigma"], rel=1e-3)
        assert line(axis, "init null")[1].mean() == pytest.approx(row["sigma_init"], rel=1e-3)


def test_means_leave_stopped_seeds_out(tmp_path):
    tables = read_tables(write_run_folder(tmp_path, stopped_seeds=(1,)))
    figure = plots.metric_curve(tables.metrics, "test accuracy (%)")
    metric = tables.metrics.pivot(index="seed", columns="level", values="test_metric")
    density, mean = line(figure.axes[0], "mean of seeds")
    np.testing.assert_allclose(mean, metric.loc[[0, 2]].mean())
    np.testing.assert_allclose(density, 100 * tables.density)


def test_flow_plane_draws_both_blocks(tables):
    blocks = ("stage1/block0", "stage3/block1")
    axis = plots.flow_plane(tables.trained, tables.null_flow, blocks).axes[0]
    drawn = np.stack([dots.get_offsets() for dots in axis.collections])
    want = np.stack([share_of(tables, block) for block in blocks], axis=-1)
    np.testing.assert_allclose(drawn, want)
    assert blocks[0] in axis.get_xlabel() and blocks[1] in axis.get_ylabel()


def test_density_map(tables):
    blocks = list(tables.exponents()["block"])
    axis = plots.density_map(tables.trained, blocks).axes[0]
    mean = tables.trained.groupby(["block", "level"])["block_density"].mean()
    want = 100 * np.array([mean[block] for block in blocks])
    np.testing.assert_allclose(np.asarray(axis.collections[0].get_array()), want)
    assert [t.get_text() for t in axis.texts][:2] == ["100", f"{want[0, 1]:.0f}"]


@pytest.mark.parametrize(("depth", "num_levels"), [(56, 16), (14, 27)])
def test_files_are_small_and_nothing_is_cut_off(tmp_path, depth, num_levels):
    tables = read_tables(write_run_folder(tmp_path, depth=depth, num_levels=num_levels))
    blocks = list(tables.exponents()["block"])
    for name, figure in {
        "sigma": plots.sigma_beside_nulls(tables.exponents()),
        "shares": plots.share_decay(tables.trained, tables.exponents("slope")),
        "density": plots.density_map(tables.trained, blocks),
    }.items():
        svg = plots.save_figure(figure, tmp_path, name)
        png = svg.with_suffix(".png")
        assert svg.stat().st_size > 10_000
        assert png.stat().st_size < 300_000
        pixels = np.asarray(Image.open(png).convert("L"))
        border = np.concatenate([pixels[[0, -1]].ravel(), pixels[:, [0, -1]].ravel()])
        assert border.min() == 255, f"{name} touches the edge of its image"


def test_empty_intervals_draw(tmp_path):
    tables = read_tables(write_run_folder(tmp_path, num_seeds=1))
    assert tables.exponents()["ci_low"].isna().all()
    figure = plots.sigma_beside_nulls(tables.exponents())
    assert plots.save_figure(figure, tmp_path, "sigma").exists()


def test_a_missing_null_is_not_drawn(tables):
    rows: pd.DataFrame = tables.exponents().filter(regex="^(?!.*(oneshot|gaussian|random))")
    figure = plots.sigma_beside_nulls(rows)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["measured", "init: rewind weights, never trained"]

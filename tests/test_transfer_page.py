"""The page says what planted experiments hold, and no more."""

import shutil
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from planted_transfer import find, row_of, write_experiment

from experiments.studies.transfer import page as transfer_page
from experiments.studies.transfer.findings import (
    EXPLAINS,
    LOSES,
    NO_POWER,
    NO_VERDICT,
    UNKNOWN,
    read_metrics,
)
from experiments.studies.transfer.page import count_outcomes, lead_level, make_page, scatter_points
from experiments.studies.transfer.predictors import PREDICTORS, TITLES
from imp_rg.plots import transfer as plots
from imp_rg.report.page import write_page
from imp_rg.runs.files import read_json

FEW = 499
FLOWS = {name for name, predictor in PREDICTORS.items() if predictor.control}
WORLDS = {
    "sigma": {"cause": "sigma"},
    "share": {"cause": "share"},
    "nothing": {"cause": "nothing", "seed": 2},
    "saturated": {"is_saturated": True},
    "few": {"num_tasks": 4},
    "one seed": {"num_seeds": 1, "num_tasks": 5},
}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Folder, tables, metrics and page (its figures not drawn) by name, each made once."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("world")
            write_experiment(folder, **WORLDS[name])
            tables, metrics = find(folder, FEW), read_metrics(folder)
            with mock.patch.object(transfer_page, "save_figure", lambda _, path, name: path / name):
                page = make_page(folder)
            made[name] = SimpleNamespace(folder=folder, tables=tables, metrics=metrics, page=page)
        return made[name]

    return get


def verdicts(world, version="directed", outcome="loss"):
    rows = world.tables["verdicts"]
    rows = rows[(rows["version"] == version) & (rows["outcome"] == outcome)]
    assert set(rows["predictor"]) == FLOWS
    return dict(zip(rows["predictor"], rows["verdict"], strict=True))


def control_at(world, level=6):
    scores = world.tables["predictors"]
    where = {"predictor": "param_share", "outcome": "loss", "level": level, "version": "directed"}
    return row_of(scores, **where)


def test_where_sigma_predicts_it_is_said_to(worlds):
    world = worlds("sigma")
    found = verdicts(world)
    assert found["sigma"] == EXPLAINS and found["mask_overlap"] == NO_POWER
    row = row_of(world.tables["verdicts"], predictor="sigma", version="directed", outcome="loss")
    assert row["levels"] == "6 8"
    assert control_at(world)["spearman"] < 0 and control_at(world)["p_value"] > 0.05
    said = world.page.answers[0]
    assert f"explained by {TITLES['sigma']}" in said and "not beyond chance" in said
    assert TITLES["mask_overlap"] not in said


def test_where_only_the_profile_predicts_no_flow_gets_the_credit(worlds):
    world = worlds("share")
    for version in ("directed", "symmetrised"):
        assert EXPLAINS not in verdicts(world, version).values()
    assert LOSES in verdicts(world).values()
    assert control_at(world)["spearman"] > 0.9 and control_at(world)["p_value"] < 0.05
    assert world.page.answers[0].startswith("No predictor is shown to explain")
    assert "beyond chance" in world.page.answers[0]
    assert "not beyond chance" not in world.page.answers[0]


def test_where_nothing_predicts_nothing_is_claimed(worlds):
    world = worlds("nothing")
    assert NO_POWER in verdicts(world).values() and EXPLAINS not in verdicts(world).values()
    assert world.page.answers[0].startswith("No predictor is shown to explain")
    assert control_at(world)["p_value"] > 0.05


def test_saturated_cells_end_the_matter(worlds):
    world = worlds("saturated")
    counts = count_outcomes(world.tables["outcomes"])
    assert list(counts["counted"]) == [0, 0] and list(counts["saturated"]) == [56, 56]
    assert list(counts["unmeasured"]) == [0, 0]
    assert set(verdicts(world).values()) == {UNKNOWN}
    assert world.page.answers[0].startswith("Nothing can be said of prediction")
    assert "0 of 56 cells count and 56 are saturated" in world.page.answers[1]
    drawn = {path.stem for section in world.page.sections for path, _ in section.figures}
    assert "matrix" in drawn and "scatter" not in drawn
    (left_out,) = (s for s in world.page.sections if s.title.startswith("Will it transfer"))
    assert left_out.text and not len(left_out.table)


def test_four_tasks_allow_no_verdict(worlds):
    world = worlds("few")
    assert set(verdicts(world).values()) == {NO_VERDICT}
    assert world.page.answers[0].startswith("No predictor is shown to explain")


def limits(world):
    return " ".join(item for section in world.page.sections for item in section.items)


def test_one_seed_is_a_limit(worlds):
    assert "One seed: no interval over seeds" in limits(worlds("one seed"))
    assert "cannot be tested: 10 pairs need 6 seeds" in limits(worlds("one seed"))
    assert "One seed" not in limits(worlds("sigma"))


def test_cells_that_were_not_measured_are_a_limit(worlds):
    outcomes = worlds("few").tables["outcomes"].copy()
    gone = (outcomes["source"] == "task1") & (outcomes["target"] == "task2")
    outcomes.loc[gone & (outcomes["level"] == 8), "counted"] = False
    counts = count_outcomes(outcomes)
    assert list(counts["unmeasured"]) == [0, 1]
    config = read_json(worlds("few").folder / "config.json")
    found = transfer_page.list_limits(worlds("few").tables, counts, config)
    assert found[-1] == "Cells that were not measured: 1 at level 8."


def test_the_page_is_a_function_of_its_tables(worlds, tmp_path):
    """Made from a copy without the runs of the sources; every predictor and figure is there."""
    world = worlds("sigma")
    copy = shutil.copytree(world.folder, tmp_path / "copy")
    shutil.rmtree(copy / "sources")
    page = make_page(copy)
    assert page.answers == world.page.answers
    text = write_page(page, copy).read_text()
    drawn = {"matrix", "predictors", "scatter", "metric", "minimal_density"}
    assert {path.stem for path in (copy / "figures").glob("*.png")} == drawn
    assert text.count('src="data:image/svg+xml') == len(drawn)
    assert all(f"<td>{title}</td>" in text for title in TITLES.values())
    assert "<td>nan" not in text


def test_the_lead_level_has_most_cells_and_is_the_densest_of_such(worlds):
    counts = count_outcomes(worlds("sigma").tables["outcomes"])
    assert list(counts["level"]) == [6, 8] and lead_level(counts) == 6
    assert lead_level(counts.assign(counted=[55, 56])) == 8


def texts(axis):
    return {(round(t.get_position()[1]), round(t.get_position()[0])): t for t in axis.texts}


def squares(axis):
    """Rectangles but for the entries of the legend, which have no size."""
    return [p for p in axis.patches if isinstance(p, Rectangle) and p.get_width() > 0]


def is_empty(patch):
    return to_rgba(patch.get_facecolor())[3] == 0


def test_the_matrix_shows_the_table(worlds):
    world = worlds("sigma")
    tables, tasks = world.tables, world.metrics.tasks
    for axis, level in zip(
        plots.transfer_matrix(tables["outcomes"], tasks).axes, (6, 8), strict=True
    ):
        outcome, written = world.metrics.outcomes(level), texts(axis)
        mean = outcome.minus_own.mean
        assert len(written) == 64
        assert written[2, 5].get_text() == f"{mean[2, 5]:+.1f}".replace("-", "−")
        assert written[4, 4].get_text() == "90"
        framed = [patch for patch in squares(axis) if is_empty(patch)]
        assert len(framed) == np.sum(outcome.transfers & outcome.counted)


def test_names_of_one_data_set_are_shortened():
    assert plots.short_names(["digits", "digits+classes=0-4"]) == ["digits", "classes=0-4"]
    assert plots.short_names(["digits+a", "mnist+a"]) == ["digits+a", "mnist+a"]


def test_saturated_cells_are_hatched_and_hold_no_number(worlds):
    world = worlds("saturated")
    axis = plots.transfer_matrix(world.tables["outcomes"], world.metrics.tasks).axes[0]
    assert len([patch for patch in squares(axis) if patch.get_hatch()]) == 56
    assert set(texts(axis)) == {(i, i) for i in range(8)}


def test_the_scatter_shows_cells_that_count(worlds):
    world = worlds("sigma")
    points = scatter_points(world.tables, 6)
    of_sigma = points[points["predictor"] == "sigma"]
    assert len(of_sigma) == world.metrics.outcomes(6).num_counted
    assert np.all((of_sigma["low"] < of_sigma["loss"]) & (of_sigma["loss"] < of_sigma["high"]))
    axis = plots.predictor_scatter(points, TITLES).axes[0]
    drawn = np.concatenate([np.column_stack(line.get_data()) for line in axis.lines[:2]])
    want = of_sigma[["distance", "loss"]].to_numpy()
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(want, axis=0))


def test_scores_stand_beside_the_difference_from_the_control(worlds):
    scores = worlds("sigma").tables["predictors"]
    losses = scores[(scores["outcome"] == "loss") & (scores["version"] == "directed")]
    left, right = plots.predictor_scores(losses, TITLES).axes
    at_six = losses[losses["level"] == 6].set_index("predictor").loc[list(TITLES)]
    for axis, column in ((left, "spearman"), (right, "difference")):
        drawn = np.ma.array(axis.collections[0].get_offsets()).filled(np.nan)[:, 0]
        np.testing.assert_array_equal(drawn, at_six[column])
    ends = np.array([np.asarray(path.vertices)[:, 0] for path in right.collections[1].get_paths()])
    np.testing.assert_array_equal(ends, at_six[["ci_low", "ci_high"]])
    assert [label.get_text() for label in left.get_yticklabels()] == list(TITLES.values())


def test_each_target_has_its_controls(worlds):
    world = worlds("sigma")
    means = world.metrics.table.groupby(["target", "source", "kind", "level"])
    frame = means[["density", "test_metric"]].mean().reset_index()
    axis = plots.metric_by_density(frame, world.metrics.tasks).axes[3]
    drawn = {str(line.get_label()): np.asarray(line.get_ydata(), float) for line in axis.lines}
    want = world.metrics.own("ticket", 6)[3].mean()
    assert drawn["own ticket"][2] == pytest.approx(want)
    others = np.delete(world.metrics.of("ticket", 8)[:, 3].mean(axis=-1), 3)
    assert drawn["mean of sources"][-1] == pytest.approx(others.mean())
    assert drawn["random mask"][0] == pytest.approx(70, abs=0.2)
    assert drawn["dense"][0] == pytest.approx(world.metrics.own("dense", 0)[3].mean())


def test_the_map_of_minimal_densities_marks_bounds(worlds):
    world = worlds("sigma")
    minimal, tasks = world.tables["minimal_density"], world.metrics.tasks
    tickets = minimal[minimal["kind"] == "ticket"]
    axis = plots.minimal_density_map(tickets, tasks).axes[0]
    written = texts(axis)
    for row in tickets.to_dict("records"):
        cell = tuple(tasks.index(row[name]) for name in ("source", "target"))
        if np.isinf(row["density"]):
            assert cell not in written
        else:
            text = written[cell].get_text()
            assert text.startswith("≤") == row["is_bound"]
            assert text.endswith("?") == (not row["is_monotone"])
    hatched = [patch for patch in squares(axis) if patch.get_hatch()]
    assert len(hatched) == np.isinf(tickets["density"]).sum() > 0

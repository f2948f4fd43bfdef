"""The page says what planted experiments hold, and no more."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from planted_transfer import write_experiment
from rich.console import Console

from experiments.studies.transfer.page import TITLES, report, scatter_points, write_transfer_page
from experiments.studies.transfer.tables import FRAMES, make_tables
from experiments.studies.transfer.words import answers, limits, verdict
from imp_rg.plots import transfer as plots

FEW = 499
NONE = "No predictor is shown to explain the points that a transferred ticket loses"
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
    """Tables by name, each made once when asked for."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("world")
            write_experiment(folder, **WORLDS[name])
            made[name] = folder, make_tables(folder, num_permutations=FEW)
        return made[name]

    return get


def test_where_sigma_predicts_it_is_said_to(worlds):
    said = verdict(worlds("sigma")[1])
    assert said.startswith("Beyond what the control explains, the points that a transferred ticket")
    assert "explained by σ (Spearman +0.9" in said and "at level 6, 8)" in said
    assert "mask overlap" in said.split("No power")[1]
    assert "how many weights each block keeps, has Spearman -0." in said
    assert "not beyond chance" in said and NONE not in said


def test_where_only_the_profile_predicts_no_flow_gets_the_credit(worlds):
    said = verdict(worlds("share")[1])
    assert said.startswith(NONE) and "are worse than the control" in said
    assert (
        "The control alone, which knows only how many weights each block keeps, has Spearman +0.9"
        in said
    )
    assert "at level 6: beyond chance" in said
    assert "averaged, none does" in said


def test_where_nothing_predicts_nothing_is_claimed(worlds):
    said = verdict(worlds("nothing")[1])
    assert said.startswith(NONE) and "No power: the interval" in said
    assert "not beyond chance" in said and "explained by" not in said


def test_saturated_cells_end_the_matter(worlds):
    folder, tables = worlds("saturated")
    said = answers(tables)
    assert said[0].startswith("Nothing can be said of prediction: no cell counts. 112 cells at")
    assert "level 6, 8 are saturated." in said[0] and "not measured" not in said[0]
    assert "0 of 56 cells count and 56 are saturated" in said[1]
    assert not any("threshold" in text or "Spearman" in text for text in said[:2])
    page = write_transfer_page(folder, tables).read_text()
    assert "Nothing to predict: no cell counts." in page
    assert 'id="figure-scatter"' not in page and 'id="figure-matrix"' in page


def test_four_tasks_allow_no_verdict(worlds):
    said = verdict(worlds("few")[1])
    assert said.startswith(NONE) and "No verdict: intervals over tasks need 5 tasks" in said
    assert "No power" not in said and "explained by" not in said


def test_one_seed_is_a_limit(worlds):
    _, tables = worlds("one seed")
    assert any(text.startswith("One seed: no interval over seeds") for text in limits(tables))
    assert any("cannot be tested: 10 pairs need 6 seeds" in text for text in answers(tables))
    assert not any("One seed" in text for text in limits(worlds("sigma")[1]))


def test_the_report_is_whole(tmp_path):
    write_experiment(tmp_path, num_tasks=4, num_seeds=2)
    said = io.StringIO()
    console = Console(width=10_000, file=said)
    assert report(tmp_path, console) == tmp_path / "report.html"
    page = (tmp_path / "report.html").read_text()
    drawn = {"matrix", "predictors", "scatter", "metric", "minimal_density"}
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == drawn
    assert page.count('src="data:image/svg+xml') == len(drawn)
    assert all((tmp_path / f"{name}.csv").is_file() for name in FRAMES)
    assert all(f"<td>{title}</td>" in page for title in TITLES.values())
    assert "<td>nan" not in page and "No verdict: intervals over tasks" in said.getvalue()


def texts(axis):
    return {(round(t.get_position()[1]), round(t.get_position()[0])): t for t in axis.texts}


def squares(axis):
    """Rectangles but for the entries of the legend, which have no size."""
    return [p for p in axis.patches if isinstance(p, Rectangle) and p.get_width() > 0]


def is_empty(patch):
    return to_rgba(patch.get_facecolor())[3] == 0


def test_the_matrix_shows_the_table(worlds):
    _, tables = worlds("sigma")
    tasks = tables.cells.tasks
    for axis, level in zip(plots.transfer_matrix(tables.outcomes, tasks).axes, (6, 8), strict=True):
        mean, written = tables.at[level].minus_own.mean, texts(axis)
        assert len(written) == 64
        assert written[2, 5].get_text() == f"{mean[2, 5]:+.1f}".replace("-", "−")
        assert written[4, 4].get_text() == "90"
        framed = [patch for patch in squares(axis) if is_empty(patch)]
        assert len(framed) == np.sum(tables.at[level].transfers & tables.at[level].counted)


def test_names_of_one_data_set_are_shortened():
    assert plots.short_names(["digits", "digits+classes=0-4"]) == ["digits", "classes=0-4"]
    assert plots.short_names(["digits+a", "mnist+a"]) == ["digits+a", "mnist+a"]


def test_saturated_cells_are_hatched_and_hold_no_number(worlds):
    _, tables = worlds("saturated")
    axis = plots.transfer_matrix(tables.outcomes, tables.cells.tasks).axes[0]
    assert len([patch for patch in squares(axis) if patch.get_hatch()]) == 56
    assert set(texts(axis)) == {(i, i) for i in range(8)}


def test_the_scatter_shows_cells_that_count(worlds):
    _, tables = worlds("sigma")
    points = scatter_points(tables)
    of_sigma = points[points["predictor"] == "sigma"]
    assert len(of_sigma) == tables.at[6].num_counted
    assert np.all((of_sigma["low"] < of_sigma["loss"]) & (of_sigma["loss"] < of_sigma["high"]))
    axis = plots.predictor_scatter(points, TITLES).axes[0]
    drawn = np.concatenate([np.column_stack(line.get_data()) for line in axis.lines[:2]])
    want = of_sigma[["distance", "loss"]].to_numpy()
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(want, axis=0))


def test_scores_stand_beside_the_difference_from_the_control(worlds):
    scores = worlds("sigma")[1].predictions.scores
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
    _, tables = worlds("sigma")
    means = tables.cells.table.groupby(["target", "source", "kind", "level"])
    frame = means[["density", "test_metric"]].mean().reset_index()
    axis = plots.metric_by_density(frame, tables.cells.tasks).axes[3]
    drawn = {str(line.get_label()): np.asarray(line.get_ydata(), float) for line in axis.lines}
    want = tables.cells.own("ticket", 6)[3].mean()
    assert drawn["own ticket"][2] == pytest.approx(want)
    others = np.delete(tables.cells.metric("ticket", 8)[:, 3].mean(axis=-1), 3)
    assert drawn["mean of sources"][-1] == pytest.approx(others.mean())
    assert drawn["random mask"][0] == pytest.approx(70, abs=0.2)
    assert drawn["dense"][0] == pytest.approx(tables.cells.own("dense", 0)[3].mean())


def test_the_map_of_minimal_densities_marks_bounds(worlds):
    _, tables = worlds("sigma")
    tickets = tables.minimal[tables.minimal["kind"] == "ticket"]
    axis = plots.minimal_density_map(tickets, tables.cells.tasks).axes[0]
    written = texts(axis)
    for row in tickets.to_dict("records"):
        cell = tuple(tables.cells.tasks.index(row[name]) for name in ("source", "target"))
        if np.isinf(row["density"]):
            assert cell not in written
        else:
            text = written[cell].get_text()
            assert text.startswith("≤") == row["is_bound"]
            assert text.endswith("?") == (not row["is_monotone"])
    hatched = [patch for patch in squares(axis) if patch.get_hatch()]
    assert len(hatched) == np.isinf(tickets["density"]).sum() > 0

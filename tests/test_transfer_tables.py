"""Planted transfer experiments: cells come back as numbers done by hand, causes are found."""

import shutil
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted_transfer import DENSITY, find, row_of, write_experiment
from scipy import stats

from experiments.studies.transfer.findings import (
    EXPLAINS,
    LOSES,
    NO_POWER,
    NO_VERDICT,
    NOT_CHANCE,
    UNKNOWN,
    minimal_frame,
    read_metrics,
    verdict_of,
)
from experiments.studies.transfer.predictors import PREDICTORS
from imp_rg.runs import read
from imp_rg.runs.files import read_json, write_json
from imp_rg.runs.tickets import read_ticket

FEW = 199


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp("sigma") / "run")


@pytest.fixture(scope="module")
def planted(folder):
    return find(folder, FEW)


def distances(tables, level):
    """Matrices [source target] by predictor; level None: that of the minimal density."""
    table = tables["distances"]
    rows = table[table["level"].isna() if level is None else table["level"] == level]
    return {
        name: part.pivot(index="source", columns="target", values="distance").to_numpy()
        for name, part in rows.groupby("predictor")
    }


def metrics(folder, **where):
    table = pd.read_csv(folder / "cells.csv")
    for column, value in where.items():
        table = table[table[column] == value]
    return table.sort_values("seed")["test_metric"].to_numpy()


def test_a_cell_by_hand(folder, planted):
    cell = {"target": "task2", "source": "task5", "level": 6}
    own = metrics(folder, target="task2", source="task2", level=6, kind="ticket")
    others = {
        "minus_own": own,
        "minus_dense": metrics(folder, target="task2", kind="dense"),
        "minus_random": metrics(folder, kind="random", **cell),
        "minus_reinit": metrics(folder, kind="reinit", **cell),
    }
    ticket = metrics(folder, kind="ticket", **cell)
    for quantity, other in others.items():
        row = row_of(planted["outcomes"], quantity=quantity, **cell)
        found = stats.ttest_1samp(ticket - other, 0).confidence_interval(0.95)
        assert len(other) == 3
        assert row["mean"] == pytest.approx(np.mean(ticket - other), abs=1e-6)
        assert (row["low"], row["high"]) == pytest.approx((found.low, found.high), abs=1e-6)
        assert row["counted"] and not row["saturated"]
        assert row["transfers"] == (np.mean(ticket - own) >= -max(1, 2 * stats.sem(own)))
        assert row["density"] == pytest.approx(DENSITY[6], abs=1e-6)
    row = row_of(planted["outcomes"], quantity="metric", **cell)
    assert row["mean"] == pytest.approx(np.mean(ticket), abs=1e-6)


def test_every_cell_has_its_place(folder, planted):
    """Sources and targets are not swapped: losses grow with the planted distance both ways."""
    outcomes = planted["outcomes"]
    assert set(outcomes["level"]) == {6, 8}
    assert len(outcomes) == 2 * 6 * 64
    minus_own = outcomes[(outcomes["quantity"] == "minus_own") & (outcomes["level"] == 8)]
    table = minus_own.pivot(index="source", columns="target", values="mean")
    ticket, own = (
        metrics(folder, source=source, target="task5", kind="ticket", level=8).mean()
        for source in ("task2", "task5")
    )
    assert table.loc["task2", "task5"] == pytest.approx(ticket - own, abs=1e-6)
    assert np.all(np.diag(table) == 0) and not np.allclose(table, table.T)


def test_distances_by_hand(folder, planted):
    flows = [read(folder / "sources" / f"task{i}") for i in range(8)]
    sigma = np.stack([flow.spectrum().sigma["paper"] for flow in flows])
    shares = np.stack(
        [flow.trajectory.points["trained"].param_share[:, 6].mean(axis=0) for flow in flows]
    )
    found = distances(planted, 6)
    assert set(found) == set(PREDICTORS)
    for name, values in (("sigma", sigma), ("param_share", shares)):
        want = np.sqrt(np.mean((values[:, None] - values) ** 2, axis=-1))
        np.testing.assert_allclose(found[name], want, atol=1e-6)
        lack = np.maximum(values[3] - values[1], 0)  # source 1, target 3
        np.testing.assert_allclose(
            found[f"{name}_shortfall"][1, 3], np.sqrt(np.mean(lack**2)), atol=1e-6
        )
    null = np.stack([flow.null_spectrum("init").sigma["paper"] for flow in flows])
    excess = sigma - null
    want = np.sqrt(np.mean((excess[2] - excess[7]) ** 2))
    assert found["excess_init"][2, 7] == pytest.approx(want, abs=1e-6)
    dense = [metrics(folder, target=f"task{i}", kind="dense").mean() for i in range(8)]
    assert found["dense_difference"][0, 4] == pytest.approx(dense[0] - dense[4], abs=1e-6)
    assert found["target_error"][0, 4] == pytest.approx(100 - dense[4], abs=1e-6)


def test_mask_overlap_is_of_equal_seeds_and_leaves_the_dense_head_out(folder, planted):
    def masks(task, seed):
        path = folder / "sources" / task / "tickets" / f"seed{seed}-level08.safetensors"
        tree: Any = read_ticket(path).masks
        return [tree[name]["kernel"] for name in ("dense0", "dense1")]

    above = []
    for seed in range(3):
        a, b = masks("task0", seed), masks("task1", seed)
        both = sum((x & y).sum() for x, y in zip(a, b, strict=True))
        either = sum((x | y).sum() for x, y in zip(a, b, strict=True))
        chance = sum(x.sum() * y.sum() / x.size for x, y in zip(a, b, strict=True))
        kept = sum(x.sum() + y.sum() for x, y in zip(a, b, strict=True))
        above.append(both / either - chance / (kept - chance))
    for level in (8, None):
        found = distances(planted, level)["mask_overlap"]
        assert found[0, 1] == found[1, 0] == pytest.approx(1 - np.mean(above), abs=1e-6)
    assert distances(planted, 6)["mask_overlap"][0, 1] != pytest.approx(
        1 - np.mean(above), abs=1e-6
    )


def test_missing_tickets_leave_the_overlap_unknown(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "sources" / "task3" / "tickets")
    tables = find(tmp_path / "run", 9)
    overlap = distances(tables, 6)["mask_overlap"]
    assert np.isnan(overlap[3]).all() and not np.isnan(overlap[0, 1])
    scores = tables["predictors"]
    of_overlap = scores[(scores["predictor"] == "mask_overlap") & (scores["level"] == 6)]
    assert list(of_overlap["num_cells"]) == [42, 21]


def test_the_planted_cause_is_found(planted):
    scores = planted["predictors"]
    for level in (6, 8):
        where = {"outcome": "loss", "level": level, "version": "directed"}
        sigma = row_of(scores, predictor="sigma", **where)
        assert sigma["spearman"] > 0.85 and sigma["verdict"] == "beats the control"
        assert sigma["p_value"] == pytest.approx(1 / (FEW + 1), abs=1e-6)
        assert sigma["p_holm"] == pytest.approx(6 / (FEW + 1), abs=1e-6)
        control = row_of(scores, predictor="param_share", **where)
        assert control["spearman"] < 0.4 and control["verdict"] == "is the control"
        assert np.isnan(control["p_holm"]) and np.isnan(control["difference"])
        assert sigma["difference"] == pytest.approx(
            sigma["spearman"] - control["spearman"], abs=2e-6
        )


def test_a_shortfall_is_held_against_a_shortfall(planted):
    where = {"outcome": "loss", "level": 6, "version": "directed"}
    of = planted["predictors"]
    found = row_of(of, predictor="sigma_shortfall", **where)
    control = row_of(of, predictor="param_share_shortfall", **where)
    assert found["difference"] == pytest.approx(found["spearman"] - control["spearman"], abs=2e-6)
    assert found["control"] == "param_share_shortfall"


def test_minimal_density_by_hand(folder, planted):
    """From all levels that were trained, the compared ones or not."""
    levels = (2, 4, 6, 8)
    for source, target in (("task0", "task1"), ("task6", "task3"), ("task4", "task1")):
        is_near = []
        for level in levels:
            cell = {"target": target, "level": level, "kind": "ticket"}
            own = metrics(folder, source=target, **cell)
            lost = np.mean(own - metrics(folder, source=source, **cell))
            is_near.append(lost <= max(1, 2 * stats.sem(own)) + 1e-9)
        row = row_of(planted["minimal_density"], source=source, target=target, kind="ticket")
        num_near = is_near.index(False) if False in is_near else 4
        assert row["num_levels"] == 4
        density = DENSITY[levels[num_near - 1]] if num_near else np.inf
        assert row["density"] == pytest.approx(density, abs=1e-6)
        assert row["is_bound"] == (num_near == 4)
        assert row["is_monotone"] == (not any(is_near[num_near:]))
    minimal = planted["minimal_density"]
    random_rows = minimal[minimal["kind"] == "random"]
    assert len(random_rows) == 56 and np.isinf(random_rows["density"]).all()


def test_levels_without_an_own_ticket_are_not_looked_at(folder, tmp_path):
    """A search trains few levels of each pair."""
    shutil.copytree(folder, tmp_path / "run")
    table = pd.read_csv(folder / "cells.csv")
    is_own = (table["kind"] == "ticket") & (table["source"] == table["target"])
    gone = is_own & (table["target"] == "task1") & (table["level"] == 4)
    table[~gone].to_csv(tmp_path / "run" / "cells.csv", index=False)
    minimal = minimal_frame(read_metrics(tmp_path / "run"))
    of_pair = {"source": "task0", "kind": "ticket"}
    assert row_of(minimal, target="task1", **of_pair)["num_levels"] == 3
    assert row_of(minimal, target="task2", **of_pair)["num_levels"] == 4


def test_every_table_is_on_disk(planted):
    out = planted["leave_one_out"]
    assert len(out) == 2 * len(PREDICTORS) * 9
    of_all = row_of(out, level=6, predictor="sigma", task="all")
    assert of_all["accuracy"] > 0.8 and of_all["num_cells"] == 56
    scores = planted["predictors"]
    assert len(scores) == 3 * 2 * len(PREDICTORS)
    assert set(scores.loc[scores["level"].isna(), "outcome"]) == {"minimal_density"}
    assert len(planted["told_apart"]) == 8 * 7 / 2


def test_what_a_predictor_comes_to_over_all_levels():
    """The best level speaks; p counts only with the interval."""

    def come_to(*verdicts, p_holm=0.2, num_cells=9):
        rows = {"verdict": verdicts, "p_holm": p_holm, "num_cells": num_cells}
        return verdict_of(pd.DataFrame(rows))

    assert come_to("no power", "beats the control", p_holm=0.01) == EXPLAINS
    assert come_to("no power", "beats the control", p_holm=0.06) == NOT_CHANCE
    assert come_to("beats the control, not chance", "loses to the control") == NOT_CHANCE
    assert come_to("no power", "loses to the control", p_holm=0.01) == LOSES
    assert come_to("no power", "no verdict", p_holm=0.01) == NO_POWER
    assert come_to("no verdict", "no verdict") == NO_VERDICT
    assert come_to("no verdict", "no verdict", num_cells=0) == UNKNOWN


def test_a_network_that_diverged_is_left_out(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    table = pd.read_csv(folder / "cells.csv")
    cell = (table["source"] == "task5") & (table["target"] == "task2") & (table["level"] == 6)
    is_ticket = cell & (table["kind"] == "ticket")
    table.loc[is_ticket & (table["seed"] == 0), "test_metric"] = np.nan
    table.loc[cell & (table["kind"] == "random"), "test_metric"] = np.nan
    table.to_csv(tmp_path / "run" / "cells.csv", index=False)
    outcome = read_metrics(tmp_path / "run").outcomes(6)
    assert outcome.minus_own.num_seeds[5, 2] == 2
    assert not outcome.counted[5, 2] and outcome.num_counted == 55


BAD = {
    "column": (lambda t, c: (t.drop(columns="kind"), c), "cells.csv: must have the columns"),
    "task": (lambda t, c: (t, c | {"tasks": c["tasks"][:-1]}), "cells.csv: target: must be one of"),
    "kind": (lambda t, c: (t.replace("reinit", "rewind"), c), "cells.csv: kind: must be one of"),
    "again": (lambda t, c: (pd.concat([t, t[:2]]), c), "must hold each network once, got 2"),
    "levels": (lambda t, c: (t, c | {"levels_compared": []}), "levels_compared: must be in config"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_folders_are_one_line(folder, tmp_path, case):
    change, words = BAD[case]
    table, config = change(pd.read_csv(folder / "cells.csv"), read_json(folder / "config.json"))
    table.to_csv(tmp_path / "cells.csv", index=False)
    write_json(tmp_path / "config.json", config)
    with pytest.raises(ValueError, match=words) as caught:
        read_metrics(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_source_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "sources" / "task3")
    with pytest.raises(ValueError, match="task3: must be a file or folder"):
        find(tmp_path / "run", 9)

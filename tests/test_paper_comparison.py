"""The paper's tables stand beside the right blocks, with the right signs, ranks and distances."""

import numpy as np
import pandas as pd
import pytest
from run_folder import write_run_folder
from scipy.stats import spearmanr

from imp_rg import published
from imp_rg.report.paper import paper_sections
from imp_rg.runs.paper_tables import NULL_SUFFIX, paper_comparison, write_paper_comparison

DENSITY = [0.8**level for level in range(13)]


def spectrum_of(sigma, points=("trained", "rewound"), shift=0.0):
    """A ``spectrum.csv`` with these exponents; every further point is off by `shift`."""
    rows = [
        {
            "block": block, "quantity": "magnitude_share", "point": point,
            "denominator": denominator, "estimator": "paper", "sigma": value + i * shift,
            "ci_low": value - 0.1, "ci_high": value + 0.1,
        }
        for i, point in enumerate(points)
        for denominator in ("prunable", "all")
        for block, value in sigma.items()
    ]  # fmt: skip
    other = [{**row, "quantity": "param_share", "sigma": 9.0} for row in rows]
    slopes = [{**row, "estimator": "slope", "sigma": 9.0} for row in rows]
    return pd.DataFrame(rows + other + slopes)


def with_first_blocks(sigma):
    """Adds the first block of each stage, which the paper leaves out, and `rest`."""
    return {**{f"stage{s}/block0": 0.5 for s in (1, 2, 3)}, **sigma, "rest": -0.3}


@pytest.mark.parametrize("depth", published.CIFAR_DEPTHS)
def test_depth_is_told_by_the_number_of_blocks(depth):
    sigma = published.cifar_resnet_sigma(depth)
    found = paper_comparison(spectrum_of(with_first_blocks(sigma)), run="r", density=DENSITY)
    assert set(found.rows["row"]) == {f"ResNet-{depth}"}
    assert set(found.rows["source"]) == {"Tables 4 to 6"}
    assert (found.rows["num_blocks"] == len(sigma)).all()
    assert (found.rows["num_same_sign"] == len(sigma)).all()
    np.testing.assert_allclose(found.rows["rms"], 0, atol=1e-12)
    np.testing.assert_allclose(found.rows["rank_correlation"], 1)
    assert list(found.blocks["block"]) == list(sigma)
    np.testing.assert_array_equal(found.blocks["sigma"], found.blocks["sigma_paper"])


def test_agreement_by_hand():
    """Paper 0.20 0.14 0.07 -0.68; ours has one sign wrong and two ranks exchanged."""
    ours = {"stage1": 0.14, "stage2": 0.20, "stage3": -0.07, "stage4": -0.38}
    spectrum = spectrum_of(ours, points=("trained",))
    rows = paper_comparison(spectrum, run="r", density=DENSITY).rows
    row = rows[(rows["row"] == "CIFAR-10") & (rows["denominator"] == "prunable")].iloc[0]
    assert (row["num_blocks"], row["num_same_sign"]) == (4, 3)
    assert row["rank_correlation"] == pytest.approx(0.8)  # 1 - 6 (1 + 1) / (4 * 15)
    assert row["rms"] == pytest.approx(np.sqrt((0.06**2 + 0.06**2 + 0.14**2 + 0.3**2) / 4))
    assert (row["largest"], row["largest_block"]) == (pytest.approx(0.3), "stage4")
    assert "misprint" in row["note"]
    assert not rows["point"].str.endswith(NULL_SUFFIX).any()


def test_bert_layers_stand_beside_all_ten_tasks():
    rte = next(row for row in published.rows(3) if row.row == "RTE")
    sigma = {f"layer{i}": value for i, value in enumerate(rte.values)}
    found = paper_comparison(
        spectrum_of(sigma), run="bert", density=(1 - 0.1 * np.arange(10)).tolist()
    )
    here = found.rows.query("point == 'trained' and denominator == 'prunable'")
    assert len(here) == 10
    assert here["row"].iloc[int(here["rms"].argmin())] == "RTE"
    squad = next(row for row in published.rows(3) if row.row == "SQuAD v1.1")
    want = spearmanr(rte.values, squad.values)[0]
    found_rank = here.set_index("row").loc["SQuAD v1.1", "rank_correlation"]
    assert found_rank == pytest.approx(want)


def test_every_point_and_denominator_is_listed():
    sigma = with_first_blocks(published.cifar_resnet_sigma(20))
    rows = paper_comparison(spectrum_of(sigma, shift=0.05), run="r", density=DENSITY).rows
    by_way = rows.set_index(["point", "denominator"])["rms"]
    assert len(by_way) == 4
    assert by_way["trained", "all"] == pytest.approx(0, abs=1e-12)
    assert by_way["rewound", "prunable"] == pytest.approx(0.05)


def test_sections_show_the_nearest_row_and_the_conventions_at_hand():
    spectrum = spectrum_of(with_first_blocks(published.cifar_resnet_sigma(14)))
    spectrum["sigma_init"] = 0.1
    lead, beside, between, every = paper_sections(
        paper_comparison(spectrum, run="r", density=DENSITY)
    )
    assert lead.table is not None and every.table is not None and beside.table is not None
    assert lead.table.to_numpy().tolist() == [
        ["r", "Tables 4 to 6, ResNet-14", "trained", "3 of 3", "1.00", "0.000"],
        ["r", "Tables 4 to 6, ResNet-14", "init null", "2 of 3", "–", "0.194"],
    ]
    assert list(every.table["measured"]) == [
        "trained",
        "trained",
        "rewound",
        "rewound",
        "init null",
    ]
    assert list(beside.table["init null, here"]) == ["+0.100"] * 3
    text = " ".join(between.items)
    assert "here 0 to 12 (down to 6.9 %) in r." in text
    assert "Tables 4 to 6:" in text and "Table 2:" not in text and "Table 3:" not in text
    for word in ("Levels", "Point", "Denominator", "Scale factor", "Intervals"):
        assert f"{word}: " in text


@pytest.mark.parametrize(
    "blocks",
    [
        ("stage1", "stage2", "stage3"),
        ("layer0", "layer1"),
        ("stage1/block0", "stage1/block1", "stage2/block0", "stage3/block0"),
        tuple(f"stage{s}/block{b}" for s in (1, 2, 3) for b in range(4)),  # depth 26
        ("fc1", "fc2"),
    ],
)
def test_other_networks_have_no_rows(blocks, tmp_path):
    found = paper_comparison(spectrum_of(dict.fromkeys(blocks, 0.1)), run="r", density=DENSITY)
    assert len(found.rows) == len(found.blocks) == 0
    with pytest.raises(ValueError, match="^against: the paper lists stages") as error:
        write_paper_comparison(tmp_path, [found])
    assert "\n" not in str(error.value)


def test_files_hold_all_runs(tmp_path):
    run = write_run_folder(tmp_path / "run", depth=20)
    spectrum = pd.read_csv(run / "spectrum.csv")
    none = paper_comparison(spectrum_of({"fc1": 0.1}), run="other", density=DENSITY)
    found = [paper_comparison(spectrum, run=name, density=DENSITY) for name in "ab"]
    write_paper_comparison(tmp_path, [none, *found])
    paper = pd.read_csv(tmp_path / "paper.csv")
    assert list(paper["run"].unique()) == ["a", "b"]
    here = paper.query("run == 'a' and point == 'trained' and denominator == 'prunable'").iloc[0]
    blocks = pd.read_csv(tmp_path / "paper_blocks.csv").query("run == 'a'")
    gap = blocks["sigma"] - blocks["sigma_paper"]
    assert here["rms"] == pytest.approx(np.sqrt(np.mean(gap**2)))
    assert len(blocks) == here["num_blocks"] == 6

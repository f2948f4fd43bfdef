"""Tickets: checked pairs, densities by hand, and the file format there and back."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from imp_rg.pytree import leaf_paths, to_flat
from imp_rg.runs.tickets import read_ticket, write_level, write_ticket
from imp_rg.tickets.ticket import Ticket
from imp_rg.types import Variables

PRUNABLE = ("dense*/kernel",)


def small_ticket(batch_stats=None):
    """Kernels of 6 and 4 weights, of which 2 and 3 survive; biases are kept."""
    params = {
        "dense0": {
            "kernel": np.arange(1, 7, dtype=np.float32).reshape(2, 3),
            "bias": np.ones(3, np.float32),
        },
        "dense1": {"kernel": np.full((2, 2), np.nan, np.float32), "bias": np.ones(2, np.float32)},
    }
    masks = {
        "dense0": {"kernel": np.array([[1, 0, 0], [0, 1, 0]], bool), "bias": np.ones(3, bool)},
        "dense1": {"kernel": np.array([[1, 1], [1, 0]], bool), "bias": np.ones(2, bool)},
    }
    return Ticket(Variables(params, batch_stats or {}), masks)


def assert_equal_trees(got, expected):
    assert leaf_paths(got) == leaf_paths(expected)
    flat = to_flat(got)
    for path, leaf in to_flat(expected).items():
        assert flat[path].dtype == leaf.dtype, path
        np.testing.assert_array_equal(flat[path], leaf, err_msg=path)


def test_densities_by_hand():
    ticket = small_ticket()
    assert ticket.density(PRUNABLE) == 0.5
    assert ticket.density(("dense1",)) == 5 / 6  # the bias counts when it is prunable
    expected = {"dense0/kernel": 1 / 3, "dense1/kernel": 0.75}
    assert ticket.per_tensor_density(PRUNABLE) == pytest.approx(expected)


def test_masked_weights_are_zero_and_statistics_stay():
    stats = {"norm": {"mean": np.array([0.5])}}
    masked = small_ticket(stats).masked()
    expected = [[1, 0, 0], [0, 5, 0]]
    np.testing.assert_array_equal(masked.params["dense0"]["kernel"], expected)
    np.testing.assert_array_equal(
        np.isnan(masked.params["dense1"]["kernel"]), [[True, True], [True, False]]
    )
    assert masked.batch_stats is stats


def test_patterns_must_match():
    with pytest.raises(ValueError, match=r"^prunable: must match a tensor of the ticket, got"):
        small_ticket().density(("conv*",))


def without_a_bias(masks):
    return masks | {"dense1": {"kernel": masks["dense1"]["kernel"]}}


def transposed(masks):
    return jax.tree.map(np.transpose, masks)


def as_floats(masks):
    return jax.tree.map(np.float32, masks)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_a_bias, r"masks: must have the structure of params"),
        (transposed, r"masks: dense0/kernel must be bool of shape \(2, 3\), got bool \(3, 2\)"),
        (as_floats, r"masks: dense0/bias must be bool of shape \(3,\), got float32"),
    ],
)
def test_masks_must_mirror_the_params(spoil, message):
    ticket = small_ticket()
    with pytest.raises(ValueError, match=f"^{message}"):
        Ticket(ticket.rewind, spoil(ticket.masks))


@pytest.mark.parametrize("stats", [{}, {"stem_norm": {"mean": np.arange(3.0), "var": np.ones(3)}}])
@pytest.mark.parametrize("write", [write_ticket, write_level])
def test_files_come_back(tmp_path, write, stats):
    ticket = small_ticket(stats)
    path = tmp_path / "seed0-level03.safetensors"
    write(path, ticket.rewind, ticket.masks, {"level": "3"})
    read = read_ticket(path)
    assert_equal_trees(read.rewind._asdict(), ticket.rewind._asdict())
    assert_equal_trees(read.masks, ticket.masks)


def test_what_was_read_outlives_the_file(tmp_path):
    ticket, path = small_ticket(), tmp_path / "ticket.safetensors"
    write_ticket(path, ticket.rewind, ticket.masks, {})
    read = read_ticket(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert_equal_trees(read.masks, ticket.masks)
    read.masks["dense0"]["kernel"][:] = False  # one's own arrays, not a view of the file


ONES = np.ones((2, 2), np.float32)
KEPT = np.ones((2, 2), bool)
WIDE = np.ones((2, 2))  # files hold wider types first


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": ONES}, r"tensors under params/.* only, got 'weight'$"),
        ({"params/a": ONES, "masks/a": KEPT, "opt/a": ONES}, r"only, got 'opt/a'$"),
        ({"params": ONES}, r"only, got 'params'$"),
        ({"masks/a": KEPT}, r"must be a ticket, with tensors under params/, got \[\]$"),
        ({"params/a": ONES}, r"masks: must have the structure of params, got another tree$"),
        ({"params/a": ONES, "masks/a": ONES}, r"masks: a must be bool of shape \(2, 2\)"),
        ({"params/a": WIDE, "params/a/b": ONES}, r"no tensor can lie under another, got 'a/b'$"),
        ({"params/a": ONES, "params/a/b": WIDE}, r"no tensor can lie under another, got 'a'$"),
    ],
)
def test_other_files_get_one_line(tmp_path, tensors, message):
    path = tmp_path / "other.safetensors"
    save_file(tensors, path)
    with pytest.raises(ValueError, match=message) as caught:
        read_ticket(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_cut_files_get_one_line(tmp_path):
    ticket, path = small_ticket(), tmp_path / "cut.safetensors"
    write_ticket(path, ticket.rewind, ticket.masks, {})
    content = path.read_bytes()
    for size in (0, 5, 100, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"^[^\n]*cut\.safetensors: [^\n]*$"):
            read_ticket(path)
    with pytest.raises(ValueError, match="it is not there"):
        read_ticket(tmp_path / "none.safetensors")

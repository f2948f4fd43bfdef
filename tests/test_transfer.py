"""What a target is trained with: body of the source, head of its own, and the controls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imp_rg.pytree import leaf_paths, to_flat
from imp_rg.tickets.ticket import Ticket
from imp_rg.tickets.transfer import HEAD, check_fit, transfer
from imp_rg.types import Variables


def variables(seed, num_classes):
    """A stem, a body with a norm, and a head of the given size."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape).astype(np.float32))

    params = {
        "stem": {"kernel": draw(3, 6)},
        "body": {"kernel": draw(30, 20), "bias": draw(20)},
        "head": {"kernel": draw(20, num_classes), "bias": draw(num_classes)},
    }
    return Variables(params, {"stem": {"mean": draw(6)}, "body": {"mean": draw(20)}})


PATHS = leaf_paths(variables(0, 4).params)
PRUNABLE = tuple(path.endswith("kernel") for path in PATHS)


def source():
    """A ticket whose head, too, is pruned."""
    rewind = variables(1, 4)
    rng = np.random.default_rng(2)
    masks = jax.tree.map(lambda x: jnp.asarray(rng.random(x.shape) < 0.4), rewind.params)
    masks["body"]["bias"] = jnp.ones(20, bool)
    return Ticket(rewind, masks)


def moved(kind, redrawn=HEAD):
    ticket, drawn = source(), variables(3, 7)
    found = transfer(
        jax.random.key(0), ticket, drawn, kind=kind, prunable=PRUNABLE, redrawn=redrawn
    )
    return to_flat(found.rewind.params), to_flat(found.rewind.batch_stats), to_flat(found.masks)


BEFORE, DRAWN = to_flat(source().rewind.params), to_flat(variables(3, 7).params)
STATS, DRAWN_STATS = to_flat(source().rewind.batch_stats), to_flat(variables(3, 7).batch_stats)
MASKS = to_flat(source().masks)
BODY = [path for path in PATHS if not path.startswith("head/")]
HEADS = [path for path in PATHS if path.startswith("head/")]


def equal(found, wanted, paths):
    for path in paths:
        np.testing.assert_array_equal(found[path], wanted[path])


@pytest.mark.parametrize("kind", ["ticket", "random", "reinit", "dense"])
def test_head_is_the_targets_and_unmasked(kind):
    params, _, masks = moved(kind)
    equal(params, DRAWN, HEADS)
    assert params["head/kernel"].shape == (20, 7) and all(masks[p].all() for p in HEADS)
    assert not MASKS["head/kernel"].all()


@pytest.mark.parametrize("kind", ["ticket", "random", "dense"])
def test_body_and_statistics_are_those_of_the_rewind_point(kind):
    params, stats, _ = moved(kind)
    equal(params, BEFORE, BODY)
    equal(stats, STATS, STATS)


def test_reinit_keeps_the_masks_on_a_fresh_body():
    params, stats, masks = moved("reinit")
    equal(params, DRAWN, BODY)
    equal(stats, DRAWN_STATS, DRAWN_STATS)
    equal(masks, MASKS, BODY)


def test_ticket_keeps_its_masks_and_dense_has_none():
    equal(moved("ticket")[2], MASKS, BODY)
    assert all(mask.all() for mask in moved("dense")[2].values())


def test_random_keeps_the_density_of_every_tensor_and_moves_the_weights():
    masks = moved("random")[2]
    for path in BODY:
        assert masks[path].sum() == MASKS[path].sum()
    assert masks["body/bias"].all()
    agree = np.mean(masks["body/kernel"] == MASKS["body/kernel"])
    chance = 0.4**2 + 0.6**2
    assert abs(agree - chance) < 4 * np.sqrt(chance * (1 - chance) / 600)


def test_stem_can_be_redrawn_with_its_statistics():
    params, stats, masks = moved("ticket", redrawn=(*HEAD, "stem/*"))
    equal(params, DRAWN, ["stem/kernel", *HEADS])
    equal(params, BEFORE, ["body/kernel", "body/bias"])
    assert masks["stem/kernel"].all() and not MASKS["stem/kernel"].all()
    equal(stats, DRAWN_STATS, ["stem/mean"])
    equal(stats, STATS, ["body/mean"])


def test_seeds_can_be_vmapped():
    ticket, drawn = source(), variables(3, 7)

    def start(key):
        found = transfer(key, ticket, drawn, kind="random", prunable=PRUNABLE)
        return found.masks["body"]["kernel"]

    keys = jax.random.split(jax.random.key(1), 3)
    for key, mask in zip(keys, jax.vmap(start)(keys), strict=True):
        np.testing.assert_array_equal(mask, start(key))


def test_what_does_not_fit_is_named_in_one_line():
    ticket, drawn = source(), variables(3, 7)
    narrow = variables(3, 7)
    narrow.params["body"]["kernel"] = jnp.zeros((30, 10))
    other = variables(3, 7)
    other.params["more"] = other.params.pop("stem")
    cases = [
        (lambda: check_fit(ticket.rewind.params, narrow.params), "body/kernel must have"),
        (lambda: check_fit(ticket.rewind.params, other.params), "one alone has, got ['more/"),
        (lambda: check_fit(ticket.rewind.params, drawn.params, ("tail/*",)), "redrawn: must"),
        (lambda: moved("tickets"), "kind: must be one of ticket, random, reinit, dense"),
    ]
    for call, words in cases:
        with pytest.raises(ValueError) as error:
            call()
        assert words in str(error.value) and "\n" not in str(error.value)

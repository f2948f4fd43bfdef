"""The lowest density at which a ticket still transfers, by halving the levels in between.

In: a trainer whose ledger holds the targets' own tickets at all levels. Out: what the search asked
for is in the ledger, too.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import permutations, product

import numpy as np

from experiments.studies.transfer.config import Config
from experiments.studies.transfer.run import Trainer, Training
from imp_rg.rg.stats import t_interval
from imp_rg.rg.ticket_transfer import is_within, loss_margin
from imp_rg.rg.viability import MinimalDensity, minimal_density, viable_levels
from imp_rg.types import Float


def search_minimal_densities(
    config: Config, trainer: Trainer
) -> dict[tuple[str, str], MinimalDensity]:
    """Searches for every pair of source and target; trains only what is asked for.

    Args:
      config: Of the experiment.
      trainer: Its ledger holds the own tickets of all targets at all levels, and the controls at
        the compared ones.

    Returns:
      The result for each pair (source, target) whose target has a level worth looking at.
    """

    def search(pair: tuple[str, str]) -> MinimalDensity:
        source, target = pair
        tickets = [Training(target, source, "ticket", level) for level in viable[target]]

        def is_enough(index: int) -> bool:
            own = trainer.metric(tickets[index]._replace(source=target))
            return does_transfer(trainer.metric(tickets[index]), own)

        return minimal_density(is_enough, np.array([trainer.density(one) for one in tickets]))

    viable = {target: find_viable(config, trainer, target) for target in config.task_names}
    pairs = [pair for pair in permutations(config.task_names, 2) if viable[pair[1]]]
    with ThreadPoolExecutor(trainer.num_workers) as pool:
        return dict(zip(pairs, pool.map(search, pairs), strict=True))


def find_viable(config: Config, trainer: Trainer, target: str) -> range:
    """Levels at which there is something to transfer, see `viable_levels`. House definition."""

    def mean(source: str, kind: str, level: int) -> float:
        return float(t_interval(trainer.metric(Training(target, source, kind, level))).mean)

    levels = range(1, config.levels + 1)
    own = np.array([[mean(target, "ticket", level)] for level in levels])
    controls = product(config.task_names, ("random", "reinit"), config.levels_compared)
    # Not min: a control without a value must not decide.
    floor = np.fmin.reduce([[mean(*control)] for control in controls])
    return levels[: viable_levels(own, np.array([mean(target, "dense", 0)]), floor)[0]]


def does_transfer(ticket: Float[np.ndarray, " seed"], own: Float[np.ndarray, " seed"]) -> bool:
    """The rule of `transfer_outcomes`, for one source, one target and one level."""
    return bool(is_within(t_interval(ticket - own).mean, loss_margin(own)))

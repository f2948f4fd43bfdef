"""The lowest density at which a ticket still transfers, by halving the levels in between.

In: a table of cells with the targets' own tickets at all levels. Out: the same table with the cells
that the search asked for.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import permutations, product

import numpy as np

from experiments.shell import cli
from experiments.studies.transfer.cells import Cell, CellTable, CellTrainer
from experiments.studies.transfer.config import Config
from imp_rg.rg.stats import t_interval
from imp_rg.rg.ticket_transfer import is_within, loss_margin
from imp_rg.rg.viability import MinimalDensity, minimal_density, viable_levels
from imp_rg.types import Float


def search_minimal_densities(
    config: Config, trainer: CellTrainer, table: CellTable, num_workers: int
) -> dict[tuple[str, str], MinimalDensity]:
    """Searches for every pair of source and target; trains only the cells that are asked for.

    Args:
      config: Of the experiment.
      trainer: Of its cells.
      table: Holds the own tickets of all targets at all levels, and the controls at the compared
        ones; cells are added to it.
      num_workers: Pairs at a time.

    Returns:
      The result for each pair (source, target) whose target has a level worth looking at.
    """

    def search(pair: tuple[str, str]) -> MinimalDensity:
        source, target = pair
        levels = viable[target]
        density = [trainer.density(Cell(target, source, "ticket", level)) for level in levels]

        def is_enough(index: int) -> bool:
            if cli.interrupted.is_set():
                raise KeyboardInterrupt
            cell = Cell(target, source, "ticket", levels[index])
            if cell not in table:
                table.add(cell, trainer.density(cell), trainer.train(cell))
            return does_transfer(table[cell], table[cell._replace(source=target)])

        return minimal_density(is_enough, np.array(density))

    viable = {target: _viable_levels(config, table, target) for target in config.task_names}
    pairs = [pair for pair in permutations(config.task_names, 2) if viable[pair[1]]]
    with ThreadPoolExecutor(num_workers) as pool:
        return dict(zip(pairs, pool.map(search, pairs), strict=True))


def _viable_levels(config: Config, table: CellTable, target: str) -> range:
    """Levels at which there is something to transfer, see `viable_levels`."""

    def mean(source: str, kind: str, level: int) -> float:
        return float(t_interval(table[Cell(target, source, kind, level)]).mean)

    levels = range(1, config.levels + 1)
    own = np.array([[mean(target, "ticket", level)] for level in levels])
    controls = product(config.task_names, ("random", "reinit"), config.levels_compared)
    # Not min: a control without a value must not decide.
    floor = np.fmin.reduce([[mean(*control)] for control in controls])
    return levels[: viable_levels(own, np.array([mean(target, "dense", 0)]), floor)[0]]


def does_transfer(ticket: Float[np.ndarray, " seed"], own: Float[np.ndarray, " seed"]) -> bool:
    """The rule of `transfer_outcomes`, for one source, one target and one level."""
    return bool(is_within(t_interval(ticket - own).mean, loss_margin(own)))

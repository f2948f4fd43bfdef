"""Settings of `experiments.elastic`: every flag with its default, and the presets."""

from itertools import permutations
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from experiments.shell.settings import RunSettings, aside, identity, narrowed, settings
from experiments.trunk.config import Config as RunConfig
from imp_rg.config import PruneConfig, TrainConfig, require
from imp_rg.models.resnet_cifar import GammaInit
from imp_rg.published import CIFAR_DEPTHS
from imp_rg.tickets.block_maps import BlockMap, check_fits, parse_block_map
from imp_rg.tickets.stretching import (
    NAMED_MAPS,
    appending,
    interpolation,
    squeeze,
    stretch_unique,
)

IDENTITY = "identity"
DEFAULT_MAPS = ("appending", "drop-last")
"""Of every stretch and of every squeeze: those of the study's results across depths."""


class Route(NamedTuple):
    """How a ticket gets from one depth to another.

    Attributes:
      source_depth: Of the network whose ticket is taken.
      target_depth: Of the network that is trained.
      name: Of the map.
      block_map: The same for all stages.
    """

    source_depth: int
    target_depth: int
    name: str
    block_map: BlockMap

    def __str__(self) -> str:
        return f"{self.source_depth} to {self.target_depth}, {self.name}"


@settings
class Config(RunSettings):
    """Moves tickets between ResNets of different depth, and asks sigma which of them will do well.

    Attributes:
      preset: Defaults to start from: a minute's try, under an hour, CIFAR-10 with a shortened
        schedule, or the recipe of the elastic study.
      dataset: As of experiments.imp_flow.
      data_dir: Where prepared TensorFlow Datasets lie.
      augment: Augmentation; by default flips and crops for CIFAR, none otherwise.
      normalize: Channel statistics, measured on the training images or those of ImageNet.
      depths: At least two of 14, 20, 32, 44 and 56.
      width: Multiplies the channels of all layers.
      gamma_init: Initial batch-norm scales: one, or uniform on (0, 1).
      sigma_levels: Last level of the flow that exponents are read from.
      densities: Of the source tickets that are moved; the nearest level of each is taken.
      maps: Further maps as SOURCE:TARGET:BLOCK_MAP, such as "14:20:0:0;1:1,2".
      prune: How masks are made.
      train: How weights are trained and rewound.
    """

    preset: Literal["smoke", "default", "cifar", "paper"] = aside("default")
    dataset: str = "digits"
    data_dir: Path | None = None
    augment: Literal["default", "none", "flip_crop"] = "default"
    normalize: Literal["train", "imagenet"] = "train"
    depths: tuple[int, ...] = aside((14, 20, 32))
    width: float = 0.5
    gamma_init: GammaInit = "one"
    levels: int = 26
    sigma_levels: int = aside(15)
    densities: tuple[float, ...] = aside((0.018, 0.0115, 0.0074, 0.0047))
    maps: Annotated[tuple[str, ...], tyro.conf.arg(name="map")] = aside(())
    prune: tyro.conf.OmitArgPrefixes[PruneConfig] = PruneConfig()
    train: tyro.conf.OmitArgPrefixes[TrainConfig] = TrainConfig()

    def __post_init__(self):
        super().__post_init__()
        depths = self.depths
        rule = f"must be at least two different ones of {', '.join(map(str, CIFAR_DEPTHS))}"
        is_good = len(set(depths)) == len(depths) >= 2 and set(depths) <= set(CIFAR_DEPTHS)
        require(is_good, "depths", rule, depths)
        rule = f"must lie in [1, levels = {self.levels}]"
        require(1 <= self.sigma_levels <= self.levels, "sigma_levels", rule, self.sigma_levels)
        require(len(self.densities) > 0, "densities", "must be at least one", self.densities)

    def source_run(self, depth: int, folder: Path) -> RunConfig:
        """The run that makes the tickets of one depth."""
        out, model = folder / f"depth{depth}", f"resnet{depth}"
        return narrowed(self, RunConfig, preset="default", model=model, out=out)

    def shared_settings(self) -> dict[str, Any]:
        """What all depths and trainings share; depths, densities and maps can be added later."""
        return identity(self) | {"experiment": "elastic"}

    def routes(self) -> list[Route]:
        """Every pair of depths with every map, each map once; its first name stays.

        Raises:
          ValueError: If a map of the user's is not complete, or does not fit its depths.
        """
        pairs = [(depth, depth) for depth in self.depths] + list(permutations(self.depths, 2))
        found = [Route(*pair, *named) for pair in pairs for named in _maps(*pair).items()]
        for name, (source, target, block_map, _) in NAMED_MAPS.items():
            if {source, target} <= set(self.depths):
                found.append(Route(source, target, name, block_map))
        found += [self._own_route(text) for text in self.maps]
        first = {(route.source_depth, route.target_depth, route.block_map): route
                 for route in reversed(found)}  # fmt: skip
        return [route for route in found if route in first.values()]

    def _own_route(self, text: str) -> Route:
        """A map of the user's, named by its blocks."""
        source, _, rest = text.partition(":")
        target, _, blocks = rest.partition(":")
        require(bool(blocks), "map", "must be SOURCE:TARGET:BLOCK_MAP", text)
        for depth in (source, target):
            rule = f"must lead between depths {', '.join(map(str, self.depths))}"
            require(depth in map(str, self.depths), "map", rule, text)
        block_map = parse_block_map(blocks)
        num_source, num_target = num_normal(int(source)), num_normal(int(target))
        check_fits(block_map, num_source, num_target, f"ResNet-{source} to {target}")
        return Route(int(source), int(target), block_map.notation.replace(" ", ""), block_map)


def num_normal(depth: int) -> int:
    """Normal blocks a stage: all but the first."""
    return (depth - 2) // 6 - 1


def _maps(source_depth: int, target_depth: int) -> dict[str, BlockMap]:
    """What is tried between two depths; the default comes first."""
    source, target = num_normal(source_depth), num_normal(target_depth)
    if source == target:
        return {IDENTITY: appending(source, target)}
    if source < target:
        return {
            "appending": appending(source, target),
            "interpolation": interpolation(source, target),
            "copy-first": stretch_unique(source, target, (1,)),
            "copy-last": stretch_unique(source, target, (source,)),
        }
    num = source - target
    maps = {
        "drop-last": squeeze(source, range(target + 1, source + 1)),
        "drop-first": squeeze(source, range(1, num + 1)),
    }
    return maps | ({"drop-even": squeeze(source, range(2, 2 * num + 1, 2))} if 2 * num <= source
                   else {})  # fmt: skip


PRESETS = {
    "smoke": Config(
        preset="smoke",
        depths=(14, 20),
        width=0.25,
        seeds=2,
        levels=16,
        sigma_levels=10,
        densities=(0.107, 0.0281),
        train=TrainConfig(num_steps=30, rewind_step=2),
    ),
    "default": Config(),
    # A tenth of the paper's steps; rewind point and drops at the same fractions of them.
    "cifar": Config(
        preset="cifar",
        dataset="cifar10",
        width=1.0,
        levels=18,
        densities=(0.107, 0.055, 0.0352, 0.018),
        train=TrainConfig(num_steps=6256, rewind_step=100, batch_size=128, last_batch="keep"),
    ),
    # open_lth's recipe (Chen et al., arXiv:2103.16547, App. A); 89, 95 and 96.5 % sparsity.
    "paper": Config(
        preset="paper",
        dataset="cifar10",
        augment="flip_crop",
        normalize="imagenet",
        depths=CIFAR_DEPTHS,
        width=1.0,
        gamma_init="uniform",
        levels=15,
        densities=(0.107, 0.055, 0.0352),
        prune=PruneConfig(count_rule="ceil+1"),
        train=TrainConfig(num_steps=160 * 391, rewind_step=1000, batch_size=128, last_batch="keep"),
    ),
}

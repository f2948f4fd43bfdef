"""Frozen, range-checked settings of the two operators.

A setting outside its range raises `ValueError` with one line that names the setting, the rule and
the value. Nothing here touches JAX.
"""

from dataclasses import dataclass
from typing import Any, Literal

FractionOf = Literal["remaining", "original"]
Scope = Literal["global", "layerwise", "tensor"]
CountRule = Literal["exact", "ceil+1"]
Schedule = Literal["step", "cosine", "constant"]
AfterRewind = Literal["continue", "restart"]
DataOrder = Literal["reshuffled", "fixed"]
LastBatch = Literal["drop", "keep"]


def require(is_met: bool, name: str, rule: str, value: Any) -> None:
    """Raises `ValueError` naming setting, rule and value unless the rule is met."""
    if not is_met:
        raise ValueError(f"{name}: {rule}, got {value!r}")


def require_choice(name: str, value: str, choices: Any) -> None:
    """Raises `ValueError` unless `value` is one of the strings of a `Literal` type."""
    allowed = choices.__args__
    require(value in allowed, name, f"must be one of {', '.join(allowed)}", value)


@dataclass(frozen=True, kw_only=True)
class PruneConfig:
    """The mask operator M.

    Attributes:
      prune_fraction: Fraction x removed per level, in (0, 1).
      fraction_of: Whether x counts the weights that remain (constant scale factor 1 / (1 - x)) or
        the original ones.
      scope: One ranking over all prunable tensors, or one per tensor; ``tensor`` is the former word
        for ``layerwise``, and what run folders say.
      count_rule: ``exact`` removes round(x N); ``ceil+1`` removes ceil(x N) + 1, as open_lth does
        (threshold at the entry after the last to remove, strict comparison).
    """

    prune_fraction: float = 0.2
    fraction_of: FractionOf = "remaining"
    scope: Scope = "global"
    count_rule: CountRule = "exact"

    def __post_init__(self):
        x = self.prune_fraction
        require(0.0 < x < 1.0, "prune_fraction", "must lie strictly between 0 and 1", x)
        require_choice("fraction_of", self.fraction_of, FractionOf)
        require_choice("scope", self.scope, Scope)
        if self.is_layerwise:  # one setting has one name, that of run folders made before
            object.__setattr__(self, "scope", "tensor")
        require_choice("count_rule", self.count_rule, CountRule)

    @property
    def is_layerwise(self) -> bool:
        """Whether each prunable tensor is ranked by itself."""
        return self.scope in ("layerwise", "tensor")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The refine operator F: stochastic gradient descent with momentum, rewound every level.

    Attributes:
      num_steps: Optimizer steps of the whole schedule.
      rewind_step: Step k whose weights and batch statistics every level starts from; 0 rewinds to
        the initial weights.
      after_rewind: ``continue`` takes schedule and data order up at step k (num_steps - k steps a
        level, level 0 too); ``restart`` runs the whole schedule again after each rewind, level 0
        being one uninterrupted run.
      batch_size: Examples a step.
      learning_rate: Peak value.
      momentum: Of SGD.
      nesterov: Whether momentum looks ahead.
      weight_decay: L2 coefficient on all parameters, added to the gradient before momentum.
      schedule: ``step`` multiplies the rate by 0.1 at each milestone.
      milestones: Drops of the ``step`` schedule, as fractions of `num_steps`.
      warmup_steps: Steps of linear warm-up from 0 before the schedule proper.
      data_order: ``reshuffled`` draws a new order each level, ``fixed`` replays one.
      last_batch: Whether the incomplete batch at the end of an epoch is dropped or kept.
    """

    num_steps: int = 200
    rewind_step: int = 10
    after_rewind: AfterRewind = "continue"
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: Schedule = "step"
    milestones: tuple[float, ...] = (0.5, 0.75)
    warmup_steps: int = 0
    data_order: DataOrder = "reshuffled"
    last_batch: LastBatch = "drop"

    def __post_init__(self):
        require(self.num_steps >= 1, "num_steps", "must be at least 1", self.num_steps)
        require(
            0 <= self.rewind_step < self.num_steps,
            "rewind_step",
            f"must lie in [0, num_steps = {self.num_steps})",
            self.rewind_step,
        )
        require(self.batch_size >= 1, "batch_size", "must be at least 1", self.batch_size)
        require(self.learning_rate > 0, "learning_rate", "must be positive", self.learning_rate)
        require(0 <= self.momentum < 1, "momentum", "must lie in [0, 1)", self.momentum)
        require(self.weight_decay >= 0, "weight_decay", "must not be negative", self.weight_decay)
        require(
            0 <= self.warmup_steps < self.num_steps,
            "warmup_steps",
            f"must lie in [0, num_steps = {self.num_steps})",
            self.warmup_steps,
        )
        rises = all(a < b for a, b in zip(self.milestones, self.milestones[1:], strict=False))
        inside = all(0 < m < 1 for m in self.milestones)
        require(rises and inside, "milestones", "must rise inside (0, 1)", self.milestones)
        require_choice("after_rewind", self.after_rewind, AfterRewind)
        require_choice("schedule", self.schedule, Schedule)
        require_choice("data_order", self.data_order, DataOrder)
        require_choice("last_batch", self.last_batch, LastBatch)

    @property
    def first_step(self) -> int:
        """Step of the schedule at which a rewound level starts."""
        return self.rewind_step if self.after_rewind == "continue" else 0

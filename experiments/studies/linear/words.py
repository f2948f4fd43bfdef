"""What the linear flow of a run says, in sentences.

In: a `LinearResult`. Out: the answer, and what limits it.
"""

import dataclasses

import numpy as np

from imp_rg.plots.linear import FittedFlow
from imp_rg.report.lead import LEAD_NULLS
from imp_rg.report.words import MISSING, count_text
from imp_rg.rg import LinearFlow
from imp_rg.rg.linear import MAX_CONDITION, MIN_PER_PARAMETER, RIDGES

TRAINED = "trained"
FEW_SEEDS = 5
MISFIT = 3.0
"""Standard errors of the mean of the seeds beyond which the fitted flow misses it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearResult:
    """Fits of one run.

    Attributes:
      name: Of the run.
      fits: `TRAINED` first, then the nulls.
      members: Names of the blocks of each group.
      num_seeds: Of the run, incomplete ones included.
      ci_level: Coverage of the intervals.
      is_single: Whether this is the one-shot flow of a single checkpoint.
    """

    name: str
    fits: dict[str, FittedFlow]
    members: dict[str, list[str]]
    num_seeds: int
    ci_level: float
    is_single: bool

    @property
    def trained(self) -> FittedFlow:
        """The fit that the result is about."""
        return self.fits[TRAINED]

    @property
    def null(self) -> str | None:
        """The null that the answer names, if the run has one."""
        return next((null for null in LEAD_NULLS if null in self.fits), None)


def distinct(law: LinearFlow) -> list[int]:
    """Positions of the eigenvalues, one of each conjugate pair."""
    return [k for k, value in enumerate(law.eigenvalues) if _imag(value) >= 0]


def eigenvalue_text(value: complex) -> str:
    """0.24, or 0.24 ± 0.25i for a conjugate pair."""
    imag = _imag(value)
    return f"{value.real:+.2f}" + (f" ± {abs(imag):.2f}i" if imag else "")


def ends_text(ends: np.ndarray, digits: int = 2) -> str:
    """[low, high]; a dash without interval."""
    if np.isnan(ends).any():
        return MISSING
    return f"[{ends[0]:+.{digits}f}, {ends[1]:+.{digits}f}]"


def stability_text(law: LinearFlow) -> str:
    """What the signs of the real parts make of the fixed point, where intervals tell them."""
    low, high = law.eigenvalues_ci.T
    if np.all(high < 0):
        return "attracting"
    if np.all(low > 0):
        return "repelling"
    if np.any(high < 0) and np.any(low > 0):
        return "a saddle"
    return "of open stability"


def answers(result: LinearResult) -> list[str]:
    """The answer in sentences; exponents are named only where the data determine them."""
    fitted, law = result.trained, result.trained.law
    data = (
        f"{count_text(law.num_transitions, 'transition')} of "
        f"{count_text(len(fitted.shares), 'seed')}"
    )
    if not law.identified:
        return [
            f"b and G are not identified: {'; '.join(law.reasons)}.",
            "The numbers below describe these seeds; they are no exponents.",
            _prediction_sentence(fitted),
            _misfit_sentence(fitted),
        ]
    sentences = [
        f"b and G are identified: {data} for {law.num_parameters} parameters, condition number "
        f"{law.condition:.0f}.",
        _prediction_sentence(fitted),
        _misfit_sentence(fitted),
        _eigenvalue_sentence(law, result.ci_level),
        _fixed_point_sentence(fitted),
    ]
    return [*sentences, _null_sentence(result)]


def caveats(result: LinearResult) -> dict[str, str]:
    """What limits the result, by kind: what always does, then what these data do."""
    return _standing_caveats(result.trained) | _found_caveats(result)


def outside(fitted: FittedFlow) -> list[str]:
    """Groups whose share at the fixed point was never visited."""
    low, high = fitted.shares.min(axis=(0, 1)), fitted.shares.max(axis=(0, 1))
    is_outside = (fitted.law.fixed_point < low) | (fitted.law.fixed_point > high)
    return [group for group, is_out in zip(fitted.groups, is_outside, strict=True) if is_out]


def _imag(value: complex) -> float:
    """Zero where rounding made it."""
    return value.imag if abs(value.imag) > 1e-9 * max(1.0, abs(value)) else 0.0


def _standing_caveats(fitted: FittedFlow) -> dict[str, str]:
    law = fitted.law
    is_apart = (law.G_ci[..., 0] > 0) | (law.G_ci[..., 1] < 0)
    return {
        "identifiability": "Identified means that there are at least "
        f"{MIN_PER_PARAMETER} transitions a parameter and that the visited shares span all "
        f"directions (condition number at most {MAX_CONDITION:,.0f}), not that every entry is told "
        f"from zero: {is_apart.sum()} of {is_apart.size} entries of G are, one by one.",
        "closure": "Shares sum to one. Only ratios of groups flow freely, so b and G live in "
        f"{count_text(len(fitted.groups) - 1, 'coordinate')}, and a group that gains makes the "
        "others lose.",
        "noise": "All scatter is taken to enter the flow. Scatter of the measurement alone, or "
        "of each single training, would look like a pull to the mean.",
        "shape": "A constant G is the first order of any flow: bent trajectories give "
        "eigenvalues and a fixed point whether or not the flow has one.",
    }


def _found_caveats(result: LinearResult) -> dict[str, str]:
    fitted, law = result.trained, result.trained.law
    num_used, num_lost = len(fitted.shares), result.num_seeds - len(fitted.shares)
    found = {}
    if num_used == 1:
        found["seeds"] = (
            "One seed: no interval exists, no seed can be left out, the prediction errors are "
            "those of the fit itself, and whether another seed would give the same is open."
        )
    elif num_used < FEW_SEEDS:
        found["seeds"] = (
            f"{num_used} seeds: intervals are Student's over {num_used} jack-knife pseudo-values, "
            "which takes these for normal; eigenvalues are matched by their order."
        )
    if num_lost:
        found["stopped"] = (
            f"{num_lost} of {result.num_seeds} seeds left out: a level is missing or a group has "
            "no weights left."
        )
    if outside(fitted):
        found["fixed point"] = (
            f"The fixed point lies outside what was visited in {', '.join(outside(fitted))}: it is "
            "an extrapolation, and no seed was seen to stay there."
        )
    if law.ridge > 0:
        found["ridge"] = (
            f"A ridge of {law.ridge:g} (of {', '.join(f'{r:g}' for r in RIDGES)}) predicts "
            "left-out seeds best; it draws G to zero, and its choice is not in the intervals."
        )
    if result.is_single:
        found["single"] = "One checkpoint: this is the flow of one-shot pruning, not of IMP."
    return found


def _prediction_sentence(fitted: FittedFlow) -> str:
    law = fitted.law
    from_start = (
        f"From level 0 on it is {law.multi_step:.3f} against {law.multi_step_diagonal:.3f}."
    )
    errors = (
        f"to {law.one_step:.3f} (root mean square, log-ratio coordinates), with G = 0 to "
        f"{law.one_step_diagonal:.3f}"
    )
    if len(fitted.shares) == 1:
        return f"The one seed is met, not predicted, one level ahead {errors}. {from_start}"
    helps = "help" if law.one_step < law.one_step_diagonal else "do not help"
    return (
        f"A left-out seed is predicted one level ahead {errors}: cross terms {helps}. {from_start}"
    )


def _eigenvalue_sentence(law: LinearFlow, ci_level: float) -> str:
    values = [(eigenvalue_text(law.eigenvalues[k]), law.eigenvalues_ci[k]) for k in distinct(law)]
    if np.isnan(law.eigenvalues_ci).any():
        texts = "; ".join(value for value, _ in values)
        return f"Eigenvalues of G, without intervals as there is one seed: {texts}."
    texts = "; ".join(f"{value} {ends_text(ends)}" for value, ends in values)
    return f"Eigenvalues of G, with {100 * ci_level:g} % intervals of the real parts: {texts}."


def _misfit_sentence(fitted: FittedFlow) -> str:
    """Where the mean of the seeds leaves the fitted flow most, beside its own standard error."""
    num_seeds = len(fitted.z)
    if num_seeds == 1:
        return "One seed does not tell scatter from a misfit of the law."
    missed = np.linalg.norm((fitted.predicted() - fitted.z).mean(axis=0), axis=-1)
    n = int(missed.argmax())
    error = np.linalg.norm(fitted.z[:, n].std(axis=0, ddof=1)) / np.sqrt(num_seeds)
    is_misfit = missed[n] > MISFIT * error
    verdict = "a constant G is not the whole flow" if is_misfit else "no misfit is seen"
    return (
        f"From the dense level on, the fitted flow misses the mean of the seeds most at level {n}, "
        f"by {missed[n]:.3f}, where that mean has a standard error of {error:.3f}: {verdict}."
    )


def _fixed_point_sentence(fitted: FittedFlow) -> str:
    law = fitted.law
    if np.isnan(law.fixed_point).any():
        return "No fixed point is given: G has no inverse that the data determine."
    shares = ", ".join(
        f"{group} {share:.3f}" for group, share in zip(fitted.groups, law.fixed_point, strict=True)
    )
    where = "outside" if outside(fitted) else "within"
    return (
        f"Shares that would not flow: {shares}. This fixed point is {stability_text(law)} and lies "
        f"{where} the visited ranges."
    )


def _null_sentence(result: LinearResult) -> str:
    if result.null is None:
        return "The run has no null: whether learning makes these cross terms is open."
    null, trained = result.fits[result.null].law, result.trained.law
    values = ", ".join(eigenvalue_text(null.eigenvalues[k]) for k in distinct(null))
    text = (
        f"The {result.null} null, pruning without learning, has eigenvalues {values} and errors "
        f"of {null.one_step:.3f} with and {null.one_step_diagonal:.3f} without cross terms"
    )
    ours, theirs = trained.eigenvalues_ci, null.eigenvalues_ci
    if not null.identified or np.isnan(ours).any() or np.isnan(theirs).any():
        return f"{text}; no interval tells the two apart."
    if np.all((ours[:, 0] <= theirs[:, 1]) & (theirs[:, 0] <= ours[:, 1])):
        return f"{text}; all intervals overlap: no effect of learning on the cross terms is shown."
    return f"{text}; not all intervals overlap."

"""The CSVs of a run folder as tidy pandas frames: one row per fact."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from imp_rg.config import require
from imp_rg.flow import FlowPoint, FlowTrajectory
from imp_rg.imp.record import RunRecord
from imp_rg.rg.estimate import Estimate
from imp_rg.rg.nulls import excess
from imp_rg.rg.spectrum import Spectrum, measure_spectrum

QUANTITIES = ("magnitude_share", "param_share")
DENOMINATORS = ("prunable", "blocks", "all")


def flow_frame(flow: FlowTrajectory, seeds: Sequence[int]) -> pd.DataFrame:
    """``flow.csv``: every seed, level, point and block; rows never measured are left out."""
    frames = [_point_frame(flow, seeds, point, name) for name, point in flow.points.items()]
    frame = pd.concat(frames, ignore_index=True)
    return frame.astype({"surviving": "int64"})


def null_frame(flow: FlowTrajectory, seeds: Sequence[int]) -> pd.DataFrame:
    """``null_flow.csv``: columns of ``flow.csv`` and the name; gaussian counts are expectations."""
    frames = []
    for name, point in flow.nulls.items():
        frame = _point_frame(flow, seeds, point, "trained")
        frame.insert(0, "null", name)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _point_frame(
    flow: FlowTrajectory, seeds: Sequence[int], point: FlowPoint, name: str
) -> pd.DataFrame:
    blocks, shape = flow.blocks, point.magnitude.shape
    num_seeds, num_levels, num_blocks = shape
    share_blocks = np.full(shape, np.nan)
    share_blocks[..., : blocks.num_listed] = point.share_blocks(blocks.num_listed)
    scale_factor = np.append(flow.scale_factor, np.nan)

    def per_level(values):
        return np.tile(np.repeat(values, num_blocks), num_seeds)

    frame = pd.DataFrame(
        {
            "seed": np.repeat(seeds, num_levels * num_blocks),
            "level": per_level(np.arange(num_levels)),
            "point": name,
            "block": np.tile(blocks.names, num_seeds * num_levels),
            "density": per_level(flow.density),
            "scale_factor": per_level(scale_factor),
            "magnitude": point.magnitude.ravel(),
            "magnitude_share": np.asarray(point.magnitude_share).ravel(),
            "share_blocks": share_blocks.ravel(),
            "share_all": np.asarray(point.share_all).ravel(),
            "surviving": point.surviving.ravel(),
            "param_share": np.asarray(point.param_share).ravel(),
            "block_density": (point.surviving / np.array(blocks.sizes)).ravel(),
        }
    )
    return frame[frame["magnitude"].notna()]


def metrics_frame(
    record: RunRecord, flow: FlowTrajectory, seeds: Sequence[int], steps: int, leaves: Sequence[str]
) -> pd.DataFrame:
    """``metrics.csv``: one row per seed and level reached; the status names what went wrong."""
    rows = []
    for i, seed in enumerate(seeds):
        for level, density in enumerate(flow.density):
            if np.isnan(record.seconds[level]) or not record.is_finite[i, :level].all():
                break
            rows.append(
                {
                    "seed": seed,
                    "level": level,
                    "density": density,
                    "train_loss": record.train_loss[i, level],
                    "test_metric": record.test_metric[i, level],
                    "steps": steps,
                    "status": _status(record, i, level, flow, leaves),
                }
            )
    return pd.DataFrame(rows)


def _status(
    record: RunRecord, seed: int, level: int, flow: FlowTrajectory, leaves: Sequence[str]
) -> str:
    if not record.is_finite[seed, level]:
        return "non-finite loss"
    survivors = record.leaf_survivors[seed, level]
    empty = [
        path.removesuffix("/kernel")
        for path, left, can in zip(leaves, survivors, flow.blocks.prunable, strict=True)
        if can and left == 0
    ]
    return level_status(empty)


def level_status(empty_layers: Sequence[str]) -> str:
    """Status of a level in ``metrics.csv``, by the layers that have no weight left."""
    return f"collapsed: {', '.join(empty_layers)}" if empty_layers else "ok"


def unmeasured_metrics(
    seeds: Sequence[Any],
    density: Sequence[float] | np.ndarray,
    collapsed: Sequence[list[list[str]]],
) -> pd.DataFrame:
    """``metrics.csv`` of a run whose accuracy nobody recorded: the status is all there is.

    Args:
      seeds: Names of the replicates.
      density: Of each level.
      collapsed: Layers without a weight left, by seed and level.
    """
    return pd.DataFrame(
        [
            {
                "seed": seed,
                "level": level,
                "density": density[level],
                "train_loss": np.nan,
                "test_metric": np.nan,
                "steps": np.nan,
                "status": level_status(empty[level]),
            }
            for seed, empty in zip(seeds, collapsed, strict=True)
            for level in range(len(density))
        ]
    )


def timing_frame(record: RunRecord, seeds: Sequence[int]) -> pd.DataFrame:
    """``timing.csv``: wall seconds of each level, and their share per replicate that ran."""
    rows = []
    for level, seconds in enumerate(record.seconds):
        ran = [i for i in range(len(seeds)) if record.is_finite[i, :level].all()]
        rows += [
            {
                "seed": seeds[i],
                "level": level,
                "seconds": seconds,
                "seconds_per_seed": seconds / len(ran),
            }
            for i in ran
            if not np.isnan(seconds)
        ]
    return pd.DataFrame(rows)


def flow_spectrum(
    flow: FlowTrajectory,
    *,
    null: str | None = None,
    quantity: str = "magnitude_share",
    point: str = "trained",
    denominator: str = "prunable",
    ci_level: float = 0.95,
) -> Spectrum:
    """Exponents of one quantity of a flow, or of one of its nulls.

    Raises:
      ValueError: If the flow lacks the point or null, or a choice is unknown.
    """
    require(quantity in QUANTITIES, "quantity", f"must be one of {QUANTITIES}", quantity)
    require(
        denominator in DENOMINATORS, "denominator", f"must be one of {DENOMINATORS}", denominator
    )
    require(point in flow.points, "point", f"this run has {', '.join(flow.points)}", point)
    require(null is None or null in flow.nulls, "null", f"has {', '.join(flow.nulls)}", null)
    values = flow.points[point] if null is None else flow.nulls[null]
    shares, levels = _shares(flow, values, quantity, denominator, point)
    return _measure(flow, values, shares, levels, quantity, ci_level)


def spectrum_frame(flow: FlowTrajectory, *, ci_level: float) -> pd.DataFrame:
    """``spectrum.csv``: exponents by block, quantity, point, denominator and estimator.

    `paper` for every point and denominator; the other estimators for trained weights over all
    prunable ones. Nulls and excess are those of the same quantity, denominator and estimator.
    """
    rows: list[dict[str, Any]] = []
    for quantity, point, denominator in _measurements(flow):
        shares, levels = _shares(flow, flow.points[point], quantity, denominator, point)
        is_main = point == "trained" and denominator == "prunable"
        estimators = ("paper", "slope", "absolute", "logratio") if is_main else ("paper",)
        spectrum = _measure(flow, flow.points[point], shares, levels, quantity, ci_level)
        nulls = {
            name: _measure(
                flow,
                null,
                _shares(flow, null, quantity, denominator, point)[0],
                levels,
                quantity,
                ci_level,
            )
            for name, null in flow.nulls.items()
        }
        for estimator in estimators:
            key = {"quantity": quantity, "point": point, "denominator": denominator}
            rows += _rows(flow, spectrum, nulls, key, estimator, int(levels[0]), ci_level)
    # Nullable integers: most blocks have no scaling window.
    return pd.DataFrame(rows).astype({"window_first": "Int64", "window_last": "Int64"})


def _measurements(flow: FlowTrajectory) -> Iterator[tuple[str, str, str]]:
    for point in flow.points:
        if point == "postprune" and len(flow.num_kept) < 3:
            continue  # it starts at level 1: one level has no exponent
        for denominator in DENOMINATORS:
            yield "magnitude_share", point, denominator
        yield "param_share", point, "prunable"


def _shares(
    flow: FlowTrajectory, values: FlowPoint, quantity: str, denominator: str, point: str
) -> tuple[np.ndarray, np.ndarray]:
    """Shares [seed level block] and their levels; the postprune point starts at level 1."""
    levels = np.arange(1 if point == "postprune" else 0, len(flow.num_kept))
    if quantity == "param_share":
        shares = values.param_share
    elif denominator == "prunable":
        shares = values.magnitude_share
    elif denominator == "all":
        shares = values.share_all
    else:
        shares = values.share_blocks(flow.blocks.num_listed)
    return np.asarray(shares)[:, levels], levels


def _measure(
    flow: FlowTrajectory,
    values: FlowPoint,
    shares: np.ndarray,
    levels: np.ndarray,
    quantity: str,
    ci_level: float,
) -> Spectrum:
    amount = values.surviving if quantity == "param_share" else values.magnitude
    return measure_spectrum(
        shares,
        flow.scale_factor[levels[:-1]],
        magnitude=np.asarray(amount)[:, levels, : shares.shape[-1]],
        listed=flow.blocks.num_listed,
        ci_level=ci_level,
    )


def _rows(
    flow: FlowTrajectory,
    spectrum: Spectrum,
    nulls: dict[str, Spectrum],
    key: dict[str, str],
    estimator: str,
    first_level: int,
    ci_level: float,
) -> Iterator[dict[str, Any]]:
    excesses = {
        name: excess(
            spectrum.sigma_per_seed[estimator],
            null.sigma_per_seed[estimator],
            ci_level=ci_level,
        )
        for name, null in nulls.items()
    }
    is_classified = estimator in ("paper", "slope")
    relevance = spectrum.classify(estimator) if is_classified else None
    for i in range(len(spectrum.lambda_mean)):
        window = spectrum.window[i] + first_level if spectrum.window[i, 0] >= 0 else (None, None)
        yield {
            "block": flow.blocks.names[i],
            **key,
            "estimator": estimator,
            "lambda_mean": spectrum.lambda_mean[i],
            "lambda_sem_rel": spectrum.lambda_sem_rel[i],
            "sigma": spectrum.sigma[estimator][i],
            "sem_levels": spectrum.sem_levels[i] if estimator == "paper" else None,
            "sem_seeds": spectrum.sem_seeds[estimator][i],
            "ci_low": spectrum.ci_low[estimator][i],
            "ci_high": spectrum.ci_high[estimator][i],
            "relevance": None if relevance is None else relevance[i],
            "curvature_p": spectrum.curvature_p[i],
            "window_first": window[0],
            "window_last": window[1],
            "window_sigma": spectrum.window_sigma[i],
            **_null_columns(nulls, excesses, estimator, i),
        }


def _null_columns(
    nulls: dict[str, Spectrum], excesses: dict[str, Estimate], estimator: str, i: int
) -> dict[str, float]:
    columns = {}
    for name, null in nulls.items():
        columns[f"sigma_{name}"] = null.sigma[estimator][i]
        columns |= Estimate(*(ends[i] for ends in excesses[name])).columns(f"excess_{name}")
    return columns

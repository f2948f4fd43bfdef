"""Tables of the Ising experiment: what was measured beside what is exact, one row per fact."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pandas as pd

from experiments.studies.ising.plans import SMALLEST_LEVEL, binder_temperatures
from experiments.studies.ising.sampling import NUM_REPLICAS, Plan, PlanResult
from imp_rg.rg import ising
from imp_rg.rg.monte_carlo_rg import (
    PairMoments,
    binder_crossing,
    binder_cumulant,
    jackknife,
    leading_exponent,
)

SECTORS = {
    "even": ("y_t", ising.THERMAL_EXPONENT, ising.EVEN_OPERATORS),
    "odd": ("y_h", ising.MAGNETIC_EXPONENT, ising.ODD_OPERATORS),
}


def tables(plans: Sequence[Plan], results: Mapping[str, PlanResult]) -> dict[str, pd.DataFrame]:
    """Every table by name, from the results of the plans by theirs."""
    size = max(plan.size for plan in plans)
    temperatures = {plan.name: tuple(dict.fromkeys(plan.temperatures)) for plan in plans}
    binder = {plan.size: results[plan.name] for plan in plans if "binder" in plan.name}
    energy = {n.split()[1]: found for n, found in results.items() if "energy" in n}
    at = {update: temperatures[f"energy {update}"] for update in energy}
    timing = {
        "plan": [plan.name for plan in plans],
        "seconds": [round(results[plan.name].seconds, 2) for plan in plans],
        "spin_updates": [plan.num_updates * NUM_REPLICAS for plan in plans],
    }
    return {
        "exponents": exponent_table(results["exponents"]),
        "binder": binder_table(binder),
        "crossing": crossing_table(binder),
        "energy": energy_table(energy, at, size),
        "couplings": coupling_table(results["couplings"], temperatures["couplings"], size),
        "timing": pd.DataFrame(timing),
    }


def exponent_table(result: PlanResult) -> pd.DataFrame:
    """Exponents by sector, blocking and number of operators."""
    frames = []
    for (sector, (name, exact, operators)), pairs in zip(SECTORS.items(), result.bins, strict=True):
        counts = range(1, len(operators) + 1)
        for blocking, moments in enumerate(pairs, start=1):
            pair, is_odd = PairMoments(*moments), sector == "odd"
            found = [leading_exponent(pair, num_operators=n, is_odd=is_odd) for n in counts]
            size = SMALLEST_LEVEL << (len(pairs) - blocking)
            columns = {
                "sector": sector,
                "exponent": name,
                "blocking": blocking,
                "fine_size": 2 * size,
                "coarse_size": size,
                "num_operators": counts,
                "last_operator": operators,
                "value": [float(f.value) for f in found],
                "error": [float(f.error) for f in found],
                "exact": exact,
            }
            frames.append(pd.DataFrame(columns))
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(deviation_percent=100 * (frame["value"] / frame["exact"] - 1))


def binder_table(results: dict[int, PlanResult]) -> pd.DataFrame:
    """Cumulant and <m^2> by size and temperature."""
    frames = []
    for size, result in results.items():
        second = jackknife(lambda x: x[:, 0].mean(axis=0), (result.bins,))
        cumulant = jackknife(lambda x: binder_cumulant(*x.mean(axis=0)), (result.bins,))
        columns = {
            "size": size,
            "temperature": binder_temperatures(max(results)),
            "m2": second.value,
            "m2_error": second.error,
            "cumulant": cumulant.value,
            "cumulant_error": cumulant.error,
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def crossing_table(results: dict[int, PlanResult]) -> pd.DataFrame:
    """Critical temperature from every two neighbouring sizes."""
    sizes, exact = sorted(results), ising.CRITICAL_TEMPERATURE
    temperatures = binder_temperatures(sizes[-1])
    rows = []
    for small, large in pairwise(sizes):
        found = binder_crossing(temperatures, results[small].bins, results[large].bins)
        rows.append(
            {
                "small_size": small,
                "large_size": large,
                "critical_temperature": float(found.value),
                "error": float(found.error),
                "exact": exact,
                "deviation_percent": 100 * (float(found.value) / exact - 1),
            }
        )
    return pd.DataFrame(rows)


def energy_table(
    results: dict[str, PlanResult], temperatures: dict[str, tuple[float, ...]], size: int
) -> pd.DataFrame:
    """Energy per spin by update and temperature, beside Kaufman's."""
    frames = []
    for update, result in results.items():
        found = jackknife(lambda x: x.mean(axis=0), (result.bins,))
        columns = {
            "update": update,
            "temperature": temperatures[update],
            "energy": found.value,
            "error": found.error,
            "exact": [ising.torus_energy(1 / t, size) for t in temperatures[update]],
        }
        frames.append(pd.DataFrame(columns))
    frame = pd.concat(frames, ignore_index=True)
    deviation = (frame["energy"] - frame["exact"]) / frame["error"]
    return frame.assign(deviation_in_errors=deviation)


def coupling_table(result: PlanResult, temperatures: tuple[float, ...], size: int) -> pd.DataFrame:
    """Couplings by temperature, blocking level and operator."""
    frames = []
    for level, histograms in enumerate(result.bins):
        for i, temperature in enumerate(temperatures):
            found = jackknife(
                lambda x: ising.renormalized_couplings(x.sum(axis=0)), (histograms[:, i],)
            )
            columns = {
                "temperature": temperature,
                "level": level,
                "size": size >> level,
                "operator": ising.FIELD_OPERATORS,
                "coupling": found.value,
                "error": found.error,
            }
            frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)

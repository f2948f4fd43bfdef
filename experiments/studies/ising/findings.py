"""Tables of the Ising experiment: what was measured beside what is exact, one row per fact."""

from collections.abc import Mapping, Sequence

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
    by_name = {plan.name: plan for plan in plans}
    size = by_name["exponents"].size

    def of(kind: str) -> dict[str, PlanResult]:
        """Results of the plans `kind X`, by X."""
        return {n.split()[1]: found for n, found in results.items() if n.split()[0] == kind}

    def temperatures(name: str) -> tuple[float, ...]:
        return tuple(dict.fromkeys(by_name[name].temperatures))

    binder = {int(part): result for part, result in of("binder").items()}
    energy = of("energy")
    at = {update: temperatures(f"energy {update}") for update in energy}
    timing = [
        {
            "plan": plan.name,
            "seconds": round(results[plan.name].seconds, 2),
            "spin_updates": plan.num_updates * NUM_REPLICAS,
        }
        for plan in plans
    ]
    return {
        "exponents": exponent_table(results["exponents"]),
        "binder": binder_table(binder),
        "crossing": crossing_table(binder),
        "energy": energy_table(energy, at, size),
        "couplings": coupling_table(results["couplings"], temperatures("couplings"), size),
        "timing": pd.DataFrame(timing),
    }


def exponent_table(result: PlanResult) -> pd.DataFrame:
    """Exponents by sector, blocking and number of operators."""
    rows = []
    for (sector, (name, exact, operators)), pairs in zip(SECTORS.items(), result.bins, strict=True):
        for blocking, moments in enumerate(pairs, start=1):
            for count, operator in enumerate(operators, start=1):
                found = leading_exponent(
                    PairMoments(*moments), num_operators=count, is_odd=sector == "odd"
                )
                size = SMALLEST_LEVEL << (len(pairs) - blocking)
                rows.append(
                    {
                        "sector": sector,
                        "exponent": name,
                        "blocking": blocking,
                        "fine_size": 2 * size,
                        "coarse_size": size,
                        "num_operators": count,
                        "last_operator": operator,
                        "value": float(found.value),
                        "error": float(found.error),
                        "exact": exact,
                        "deviation_percent": 100 * (float(found.value) / exact - 1),
                    }
                )
    return pd.DataFrame(rows)


def binder_table(results: dict[int, PlanResult]) -> pd.DataFrame:
    """Cumulant and <m^2> by size and temperature."""
    rows = []
    for size, result in results.items():
        moments = result.bins
        second = jackknife(lambda x: x[:, 0].mean(axis=0), (moments,))
        cumulant = jackknife(lambda x: binder_cumulant(*x.mean(axis=0)), (moments,))
        for i, temperature in enumerate(binder_temperatures(max(results))):
            rows.append(
                {
                    "size": size,
                    "temperature": temperature,
                    "m2": second.value[i],
                    "m2_error": second.error[i],
                    "cumulant": cumulant.value[i],
                    "cumulant_error": cumulant.error[i],
                }
            )
    return pd.DataFrame(rows)


def crossing_table(results: dict[int, PlanResult]) -> pd.DataFrame:
    """Critical temperature from every two neighbouring sizes."""
    sizes = sorted(results)
    rows = []
    for small, large in zip(sizes, sizes[1:], strict=False):
        found = binder_crossing(
            binder_temperatures(sizes[-1]), results[small].bins, results[large].bins
        )
        rows.append(
            {
                "small_size": small,
                "large_size": large,
                "critical_temperature": float(found.value),
                "error": float(found.error),
                "exact": ising.CRITICAL_TEMPERATURE,
                "deviation_percent": 100 * (float(found.value) / ising.CRITICAL_TEMPERATURE - 1),
            }
        )
    return pd.DataFrame(rows)


def energy_table(
    results: dict[str, PlanResult], temperatures: dict[str, tuple[float, ...]], size: int
) -> pd.DataFrame:
    """Energy per spin by update and temperature, beside Kaufman's."""
    rows = []
    for update, result in results.items():
        found = jackknife(lambda x: x.mean(axis=0), (result.bins,))
        for i, temperature in enumerate(temperatures[update]):
            exact = ising.torus_energy(1 / temperature, size)
            rows.append(
                {
                    "update": update,
                    "temperature": temperature,
                    "energy": found.value[i],
                    "error": found.error[i],
                    "exact": exact,
                    "deviation_in_errors": (found.value[i] - exact) / found.error[i],
                }
            )
    return pd.DataFrame(rows)


def coupling_table(result: PlanResult, temperatures: tuple[float, ...], size: int) -> pd.DataFrame:
    """Couplings by temperature, blocking level and operator."""
    rows = []
    for level, histograms in enumerate(result.bins):
        for i, temperature in enumerate(temperatures):
            found = jackknife(
                lambda x: ising.renormalized_couplings(x.sum(axis=0)), (histograms[:, i],)
            )
            for operator, value, error in zip(
                ising.FIELD_OPERATORS, found.value, found.error, strict=True
            ):
                rows.append(
                    {
                        "temperature": temperature,
                        "level": level,
                        "size": size >> level,
                        "operator": operator,
                        "coupling": value,
                        "error": error,
                    }
                )
    return pd.DataFrame(rows)

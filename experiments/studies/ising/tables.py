"""Tables of the Ising experiment: what was measured beside what is exact, one row per fact."""

import pandas as pd

from experiments.studies.ising.plans import SMALLEST_LEVEL, binder_temperatures
from experiments.studies.ising.sampling import Measured
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


def exponent_table(measured: Measured) -> pd.DataFrame:
    """Exponents by sector, blocking and number of operators."""
    rows = []
    for (sector, (name, exact, operators)), pairs in zip(
        SECTORS.items(), measured.bins, strict=True
    ):
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


def binder_table(measured: dict[int, Measured]) -> pd.DataFrame:
    """Cumulant and <m^2> by size and temperature."""
    rows = []
    for size, result in measured.items():
        moments = result.bins
        second = jackknife(lambda x: x[:, 0].mean(axis=0), (moments,))
        cumulant = jackknife(lambda x: binder_cumulant(*x.mean(axis=0)), (moments,))
        for i, temperature in enumerate(binder_temperatures(max(measured))):
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


def crossing_table(measured: dict[int, Measured]) -> pd.DataFrame:
    """Critical temperature from every two neighbouring sizes."""
    sizes = sorted(measured)
    rows = []
    for small, large in zip(sizes, sizes[1:], strict=False):
        found = binder_crossing(
            binder_temperatures(sizes[-1]), measured[small].bins, measured[large].bins
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
    measured: dict[str, Measured], temperatures: dict[str, tuple[float, ...]], size: int
) -> pd.DataFrame:
    """Energy per spin by update and temperature, beside Kaufman's."""
    rows = []
    for update, result in measured.items():
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


def coupling_table(measured: Measured, temperatures: tuple[float, ...], size: int) -> pd.DataFrame:
    """Couplings by temperature, blocking level and operator."""
    rows = []
    for level, histograms in enumerate(measured.bins):
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

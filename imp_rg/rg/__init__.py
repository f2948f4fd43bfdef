"""Reading a flow: exponents, nulls, classes, scaling. NumPy and SciPy only, no Flax, no GPU."""

from imp_rg.rg.nulls import Excess as Excess
from imp_rg.rg.nulls import NullFlow as NullFlow
from imp_rg.rg.nulls import excess as excess
from imp_rg.rg.nulls import gaussian_null as gaussian_null
from imp_rg.rg.nulls import gaussian_null_flow as gaussian_null_flow
from imp_rg.rg.spectrum import Spectrum as Spectrum
from imp_rg.rg.spectrum import measure_spectrum as measure_spectrum
from imp_rg.rg.stats import SeedInterval as SeedInterval
from imp_rg.rg.stats import mean_is_zero_p as mean_is_zero_p
from imp_rg.rg.stats import t_interval as t_interval

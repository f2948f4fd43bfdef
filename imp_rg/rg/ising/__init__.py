"""The two-dimensional Ising model, where the answers of the renormalization group are known.

Spins are +1 or -1 on a torus, int8 [chain row column]; the energy is minus the sum of products of
nearest neighbours (J = 1) and `coupling` is K = 1 / T. Updates, blocking and operators are JAX and
run under `jax.jit`; exact results and renormalised couplings are NumPy.
"""

from imp_rg.rg.ising.blocking import block_spins as block_spins
from imp_rg.rg.ising.blocking import block_spins_to as block_spins_to
from imp_rg.rg.ising.couplings import FIELD_OPERATORS as FIELD_OPERATORS
from imp_rg.rg.ising.couplings import field_histogram as field_histogram
from imp_rg.rg.ising.couplings import renormalized_couplings as renormalized_couplings
from imp_rg.rg.ising.exact import CRITICAL_COUPLING as CRITICAL_COUPLING
from imp_rg.rg.ising.exact import CRITICAL_TEMPERATURE as CRITICAL_TEMPERATURE
from imp_rg.rg.ising.exact import MAGNETIC_EXPONENT as MAGNETIC_EXPONENT
from imp_rg.rg.ising.exact import THERMAL_EXPONENT as THERMAL_EXPONENT
from imp_rg.rg.ising.exact import torus_energy as torus_energy
from imp_rg.rg.ising.operators import EVEN_OPERATORS as EVEN_OPERATORS
from imp_rg.rg.ising.operators import ODD_OPERATORS as ODD_OPERATORS
from imp_rg.rg.ising.operators import even_operators as even_operators
from imp_rg.rg.ising.operators import odd_operators as odd_operators
from imp_rg.rg.ising.operators import operators_of_levels as operators_of_levels
from imp_rg.rg.ising.updates import Observe as Observe
from imp_rg.rg.ising.updates import Update as Update
from imp_rg.rg.ising.updates import cluster_labels as cluster_labels
from imp_rg.rg.ising.updates import cluster_sweep as cluster_sweep
from imp_rg.rg.ising.updates import metropolis_sweep as metropolis_sweep
from imp_rg.rg.ising.updates import observe_nothing as observe_nothing
from imp_rg.rg.ising.updates import sample as sample

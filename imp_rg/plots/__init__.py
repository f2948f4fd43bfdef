"""Figures of a run, and the only place that knows Matplotlib.

In: the tables of a run folder as data frames. Out: `matplotlib.figure.Figure`, drawn without any
global state. House definitions, but for `flow_plane`, which follows the paper's Fig. 2.
"""

from imp_rg.plots.comparison import class_tree as class_tree
from imp_rg.plots.comparison import distance_maps as distance_maps
from imp_rg.plots.comparison import sigma_profiles as sigma_profiles
from imp_rg.plots.flow import density_map as density_map
from imp_rg.plots.flow import flow_plane as flow_plane
from imp_rg.plots.panels import running_exponent as running_exponent
from imp_rg.plots.panels import share_decay as share_decay
from imp_rg.plots.results import metric_curve as metric_curve
from imp_rg.plots.results import sigma_beside_nulls as sigma_beside_nulls
from imp_rg.plots.style import save_figure as save_figure

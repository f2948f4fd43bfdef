"""Reading a flow: exponents, nulls, classes, scaling. NumPy and SciPy only, no Flax, no GPU."""

from typing import TYPE_CHECKING

from imp_rg.lazy import lazy_names

if TYPE_CHECKING:
    from imp_rg.rg.error_law import ErrorLaw as ErrorLaw
    from imp_rg.rg.error_law import fit_error_law as fit_error_law
    from imp_rg.rg.estimate import Estimate as Estimate
    from imp_rg.rg.estimate import contrast as contrast
    from imp_rg.rg.estimate import summarise as summarise
    from imp_rg.rg.exponents import HeldOut as HeldOut
    from imp_rg.rg.exponents import PowerLaw as PowerLaw
    from imp_rg.rg.exponents import fit_power_law as fit_power_law
    from imp_rg.rg.exponents import predict_held_out as predict_held_out
    from imp_rg.rg.joint_law import JointLaw as JointLaw
    from imp_rg.rg.joint_law import fit_joint_law as fit_joint_law
    from imp_rg.rg.linear import FittedFlow as FittedFlow
    from imp_rg.rg.linear import LinearFlow as LinearFlow
    from imp_rg.rg.linear import fit_linear_flow as fit_linear_flow
    from imp_rg.rg.nulls import NullFlow as NullFlow
    from imp_rg.rg.nulls import excess as excess
    from imp_rg.rg.nulls import gaussian_null as gaussian_null
    from imp_rg.rg.nulls import gaussian_null_flow as gaussian_null_flow
    from imp_rg.rg.prediction import LeaveOneOut as LeaveOneOut
    from imp_rg.rg.prediction import PredictorScore as PredictorScore
    from imp_rg.rg.prediction import PredictorScores as PredictorScores
    from imp_rg.rg.prediction import RouteScore as RouteScore
    from imp_rg.rg.prediction import leave_one_task_out as leave_one_task_out
    from imp_rg.rg.prediction import score_predictor as score_predictor
    from imp_rg.rg.prediction import score_routes as score_routes
    from imp_rg.rg.scaling import Collapse as Collapse
    from imp_rg.rg.scaling import collapse as collapse
    from imp_rg.rg.spectrum import Spectrum as Spectrum
    from imp_rg.rg.spectrum import measure_spectrum as measure_spectrum
    from imp_rg.rg.stats import SeedInterval as SeedInterval
    from imp_rg.rg.stats import mean_is_zero_p as mean_is_zero_p
    from imp_rg.rg.stats import rank_correlation as rank_correlation
    from imp_rg.rg.stats import t_interval as t_interval
    from imp_rg.rg.ticket_transfer import TransferOutcomes as TransferOutcomes
    from imp_rg.rg.ticket_transfer import transfer_outcomes as transfer_outcomes
    from imp_rg.rg.universality import Comparison as Comparison
    from imp_rg.rg.universality import PairDifference as PairDifference
    from imp_rg.rg.universality import RunExponents as RunExponents
    from imp_rg.rg.universality import compare_exponents as compare_exponents
    from imp_rg.rg.viability import MinimalDensity as MinimalDensity
    from imp_rg.rg.viability import minimal_density as minimal_density
    from imp_rg.rg.viability import viable_levels as viable_levels

_HOMES = {
    "error_law": ("ErrorLaw", "fit_error_law"),
    "estimate": ("Estimate", "contrast", "summarise"),
    "exponents": ("HeldOut", "PowerLaw", "fit_power_law", "predict_held_out"),
    "joint_law": ("JointLaw", "fit_joint_law"),
    "linear": ("FittedFlow", "LinearFlow", "fit_linear_flow"),
    "nulls": ("NullFlow", "excess", "gaussian_null", "gaussian_null_flow"),
    "prediction": (
        "LeaveOneOut",
        "PredictorScore",
        "PredictorScores",
        "RouteScore",
        "leave_one_task_out",
        "score_predictor",
        "score_routes",
    ),
    "scaling": ("Collapse", "collapse"),
    "spectrum": ("Spectrum", "measure_spectrum"),
    "stats": ("SeedInterval", "mean_is_zero_p", "rank_correlation", "t_interval"),
    "ticket_transfer": ("TransferOutcomes", "transfer_outcomes"),
    "universality": ("Comparison", "PairDifference", "RunExponents", "compare_exponents"),
    "viability": ("MinimalDensity", "minimal_density", "viable_levels"),
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

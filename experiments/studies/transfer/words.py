"""What a transfer experiment says, in sentences.

In: `TransferTables`. Out: the verdict, what was measured, and what limits both.
"""

from collections.abc import Sequence

import numpy as np

from experiments.studies.transfer.predictors import PREDICTORS
from experiments.studies.transfer.tables import TransferTables
from imp_rg.plots.style import Frame
from imp_rg.report.words import count_text, level_list, percent_text
from imp_rg.rg.prediction import MIN_TASKS, SIGNIFICANCE
from imp_rg.rg.ticket_transfer import MARGIN, SATURATED_BELOW
from imp_rg.rg.universality import SIGMA, seeds_needed

CONTROL = "param_share"
EXPLAINS, NOT_CHANCE, LOSES, NO_POWER, NO_VERDICT, UNKNOWN = (
    "explains",
    "above its control, not beyond chance",
    "loses to its control",
    "no power",
    "no verdict",
    "unknown",
)


def verdict(tables: TransferTables) -> str:
    """One paragraph: which predictor explains what, and how sure that is."""
    if not any(outcome.num_counted for outcome in tables.at.values()):
        return _nothing_counts(tables)
    losses, lead_level = losses_of(tables, "directed"), tables.lead_level
    sentences = [
        *status_sentences(losses, "the points that a transferred ticket loses", lead_level),
        _symmetrised_sentence(tables),
        _control_sentence(losses, lead_level),
        _target_sentence(losses, lead_level),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def answers(tables: TransferTables) -> list[str]:
    """The verdict, and what it rests on, a paragraph each."""
    said = [verdict(tables), _measured_sentence(tables)]
    if any(outcome.num_counted for outcome in tables.at.values()):
        said.append(_left_out_sentence(tables))
    said += [_minimal_sentence(tables), _classes_sentence(tables)]
    return [sentence for sentence in said if sentence]


def limits(tables: TransferTables) -> list[str]:
    """What limits the result: what always does, then what these data do."""
    found = [
        "Tasks are the replicates of every statement on prediction: p-values rename tasks, "
        "intervals draw tasks. Cells of one row share a ticket, cells of one column share a task.",
        "Levels of one experiment share sources, flows and dense networks: that a predictor holds "
        "at two of them is no independent confirmation. Holm's correction runs over the predictors "
        "within a level, not over levels.",
        "Exponents are the paper's estimator over all levels of a source's flow, those beyond the "
        "compared one included, from trained weights of the listed blocks.",
        "Correlation says that an order is predicted, not why; variants of one data set share more "
        "than their flows show.",
    ]
    num_seeds = len(tables.cells.seeds)
    if num_seeds == 1:
        found.append(
            f"One seed: no interval over seeds exists, and `transfers` is the fixed margin of "
            f"{MARGIN:g} point."
        )
    unmeasured = {level: _num_unmeasured(tables, level) for level in tables.at}
    if any(unmeasured.values()):
        found.append(
            f"Cells that were not measured, at level: "
            f"{', '.join(f'{n} ({num})' for n, num in unmeasured.items() if num)}."
        )
    return found


def losses_of(tables: TransferTables, version: str) -> Frame:
    """Scores against the points lost, one version."""
    scores = tables.predictions.scores
    return scores[(scores["outcome"] == "loss") & (scores["version"] == version)]


def status_of(scores: Frame) -> str:
    """What one predictor's scores, a row a level, add up to; the best level speaks."""
    if not (scores["num_cells"] > 0).any():
        return UNKNOWN
    verdicts = list(scores["verdict"])
    if _explains(scores).any():
        return EXPLAINS
    if any(text.startswith("beats") for text in verdicts):
        return NOT_CHANCE
    if "loses to the control" in verdicts:
        return LOSES
    return NO_POWER if "no power" in verdicts else NO_VERDICT


def status_sentences(scores: Frame, what: str, lead_level: int | None = None) -> list[str]:
    """What each predictor explains of `what`, a plural, predictors of one status together."""
    if scores["spearman"].isna().all():
        return [f"Too few cells, or too much alike, to say what orders {what}."]
    found = _by_status(scores)
    sentences = [f"No predictor is shown to explain {what} beyond what its control explains."]
    if EXPLAINS in found:
        who = "; ".join(_explained(scores, name, lead_level) for name in found[EXPLAINS])
        sentences = [f"Beyond what the control explains, {what} are in part explained by {who}."]
    texts = {
        NOT_CHANCE: "{} above the control at some level, but after Holm's correction not beyond "
        "chance.",
        LOSES: "{} worse than the control.",
        NO_POWER: "No power: the interval of the difference from the control holds 0 for {}.",
        NO_VERDICT: f"No verdict: intervals over tasks need {MIN_TASKS} tasks with a cell that "
        "counts and a distance that varies, which is not given for {}.",
        UNKNOWN: "Not known, as no cell that counts has such a distance: {}.",
    }
    for status, text in texts.items():
        if status in found:
            names = found[status]
            verb = f" {'is' if len(names) == 1 else 'are'}" if text.startswith("{}") else ""
            sentences.append(text.format(listed(names) + verb))
    return sentences


def _by_status(scores: Frame) -> dict[str, list[str]]:
    """Names of the predictors of each status; controls have none."""
    found: dict[str, list[str]] = {}
    for name, predictor in PREDICTORS.items():
        if predictor.control is not None:
            found.setdefault(status_of(scores[scores["predictor"] == name]), []).append(name)
    return found


def listed(names: Sequence[str]) -> str:
    """Titles of predictors as a list in words."""
    titles = [PREDICTORS[name].title for name in names]
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"


def _explains(scores: Frame) -> Frame:
    return (scores["verdict"] == "beats the control") & (scores["p_holm"] < SIGNIFICANCE)


def _explained(scores: Frame, name: str, lead_level: int | None) -> str:
    """A predictor with its numbers, of the lead level if it explains something there."""
    rows = scores[scores["predictor"] == name]
    rows = rows[_explains(rows)]
    shown = rows[rows["level"] == lead_level] if lead_level in set(rows["level"]) else rows
    row = shown.iloc[0]
    where = "" if lead_level is None else f", at level {level_list(list(rows['level']))}"
    return (
        f"{PREDICTORS[name].title} (Spearman {row['spearman']:+.2f}, p = {row['p_holm']:.2g} after "
        f"Holm, {row['difference']:+.2f} [{row['ci_low']:+.2f}, {row['ci_high']:+.2f}] above its "
        f"control{where})"
    )


def _control_sentence(losses: Frame, level: int) -> str:
    row = _row(losses, CONTROL, level)
    if np.isnan(row["spearman"]):
        return "The control, the shares of kept weights by block, orders nothing."
    end = "beyond chance" if row["p_value"] < SIGNIFICANCE else "not beyond chance"
    return (
        f"The control alone, which knows only how many weights each block keeps, has Spearman "
        f"{row['spearman']:+.2f} (p = {row['p_value']:.2g}) at level {level}: {end}."
    )


def _target_sentence(losses: Frame, level: int) -> str:
    row = _row(losses, "target_error", level)
    if not row["p_value"] < SIGNIFICANCE:
        return ""
    return (
        f"How hard the target is, whatever the source, has Spearman {row['spearman']:+.2f} "
        f"(p = {row['p_value']:.2g}) without any flow."
    )


def _symmetrised_sentence(tables: TransferTables) -> str:
    directed, both = (
        _by_status(losses_of(tables, version)).get(EXPLAINS, [])
        for version in ("directed", "symmetrised")
    )
    who = f"{listed(both)} would be said to" if both else "none does"
    if both and directed == both:
        who = "the same do"
    return f"With both directions of a pair averaged, {who}."


def _nothing_counts(tables: TransferTables) -> str:
    saturated = sum(outcome.num_saturated for outcome in tables.at.values())
    unmeasured = sum(_num_unmeasured(tables, level) for level in tables.at)
    also = f" and {unmeasured} were not measured" if unmeasured else ""
    return (
        f"Nothing can be said of prediction: no cell counts. {count_text(saturated, 'cell')} at "
        f"level {level_list(sorted(tables.at))} are saturated{also}. Where a random mask loses "
        f"less than {SATURATED_BELOW:g} points to the dense network, any ticket transfers; sparser "
        "levels or harder tasks are needed."
    )


def _num_unmeasured(tables: TransferTables, level: int) -> int:
    num, outcome = len(tables.cells.tasks), tables.at[level]
    return num * (num - 1) - outcome.num_counted - outcome.num_saturated


def _measured_sentence(tables: TransferTables) -> str:
    level = tables.lead_level
    outcome, num = tables.at[level], len(tables.cells.tasks)
    text = (
        f"At level {level} ({percent_text(tables.cells.density.get(level, np.nan))} of the weights "
        f"kept) {outcome.num_counted} of {num * (num - 1)} cells count and {outcome.num_saturated} "
        f"are saturated, over {count_text(len(tables.cells.seeds), 'seed')}."
    )
    if not outcome.num_counted:
        return text
    is_near = outcome.transfers & outcome.counted
    rows = tables.outcomes[(tables.outcomes["level"] == level) & tables.outcomes["counted"]]
    mean = rows.groupby("quantity")["mean"].mean()
    return (
        f"{text} {is_near.sum()} of those that count transfer: they lose no more than {MARGIN:g} "
        "point, or two standard errors if this is more, to the target's own ticket. On average a "
        f"ticket is {mean['minus_own']:+.1f} points from the target's own, "
        f"{mean['minus_random']:+.1f} from a random mask of the same layer-wise densities, "
        f"{mean['minus_reinit']:+.1f} from the same masks re-initialised, and "
        f"{mean['minus_dense']:+.1f} from the dense network."
    )


def _left_out_sentence(tables: TransferTables) -> str:
    out = tables.predictions.leave_one_out
    rows = out[(out["task"] == "all") & (out["level"] == tables.lead_level)].set_index("predictor")
    if np.isnan(rows["accuracy"][CONTROL]):
        return ""
    if rows["majority"][CONTROL] == 1:
        return (
            f"Will it transfer? All cells that count at level {tables.lead_level} give the same "
            "answer, which leaves nothing to predict."
        )
    named = {"σ": "sigma", "excess σ": "excess_init", "the P profile": CONTROL}
    shares = ", ".join(
        f"on {title} {percent_text(rows['accuracy'][name])}"
        for title, name in named.items()
        if not np.isnan(rows["accuracy"][name])
    )
    return (
        "Will it transfer? For a task left out, a threshold fitted on the others is right "
        f"{shares} of the time at level {tables.lead_level}; always giving the more frequent "
        f"answer {percent_text(rows['majority'][CONTROL])}."
    )


def _minimal_sentence(tables: TransferTables) -> str:
    rows = tables.minimal[tables.minimal["kind"] == "ticket"]
    if not len(rows):
        return ""
    never, bound = np.isinf(rows["density"]), rows["is_bound"].astype(bool)
    counts = {
        "{} transfer down to some level": ~never & ~bound,
        "{} down to the sparsest one tried": bound,
        "{} at none": never,
        "after the first failure {} transfer again, so noise decides where it lies": (
            ~rows["is_monotone"].astype(bool)
        ),
    }
    parts = [text.format(which.sum()) for text, which in counts.items() if which.any()]
    scores = tables.predictions.scores
    is_asked = (scores["outcome"] == "minimal_density") & (scores["version"] == "directed")
    return " ".join(
        [
            f"Lowest density that transfers: of {count_text(len(rows), 'pair')}, "
            f"{', '.join(parts)}.",
            *status_sentences(scores[is_asked], "these densities"),
        ]
    )


def _classes_sentence(tables: TransferTables) -> str:
    comparison = tables.flows.comparison
    pairs = comparison.pairs
    verdicts = [comparison.verdict[SIGMA][pair] for pair in pairs]
    if all(text == "no verdict" for text in verdicts):
        return (
            f"Whether exponents of the tasks differ at all cannot be tested: "
            f"{count_text(len(pairs), 'pair')} need {seeds_needed(len(pairs))} seeds each for an "
            "adjusted p below 0.05, and there are fewer."
        )
    return (
        f"Exponents of {sum(text == 'different' for text in verdicts)} of "
        f"{count_text(len(pairs), 'pair')} of tasks are told apart (adjusted p < "
        f"{SIGNIFICANCE:g}); distances of the others are within the scatter of seeds."
    )


def _row(losses: Frame, predictor: str, level: int) -> Frame:
    return losses[(losses["predictor"] == predictor) & (losses["level"] == level)].iloc[0]

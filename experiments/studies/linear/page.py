"""The page of the linear flow: question, answer, figures, tables, limits.

In: the folder of a result. Out: figures and a `Page`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.studies.linear.findings import TRAINED, read_fit
from imp_rg.plots.linear import linear_plane, linear_prediction
from imp_rg.plots.style import save_figure
from imp_rg.report.columns import number, signed, tabulate
from imp_rg.report.page import Page, Section, limits_section
from imp_rg.report.words import block_list, count_text
from imp_rg.rg.estimate import Estimate
from imp_rg.rg.linear import MAX_CONDITION, MIN_PER_PARAMETER, RIDGES
from imp_rg.runs.files import read_csv, read_json

FEW_SEEDS = 5

CAPTIONS = {
    "plane": "Grey: the fitted vector field dz/dl = b + G z. A fixed point farther off than the "
    "visited range is not drawn.",
    "prediction": "Both models are fitted to all seeds; the errors in the table are those of "
    "left-out seeds.",
}

BESIDE_NULL = {
    "no null": "The run has no null: whether learning makes these cross terms is open.",
    "unknown": "no interval tells the two apart.",
    "as": "all intervals overlap: no effect of learning on the cross terms is shown.",
    "apart": "not all intervals overlap.",
}

FLOW_NOTE = (
    "dz/dl = b + G z: z are log-ratio coordinates of the shares of the surviving magnitude, "
    "l = −ln density. Deviations from the fixed point grow with eigenvalues above zero, fade with "
    "those below, and turn with an imaginary part. G = 0 is the model behind the exponents of "
    "single blocks. Errors are those of left-out seeds, with one seed of the fit itself. Nulls "
    "prune without learning in between."
)


def make_page(folder: Path) -> Page:
    """Draws the figures and makes the page."""
    table, found = read_csv(folder / "linear.csv"), read_json(folder / "findings.json")
    ci = f"{100 * read_json(folder / 'config.json')['ci_level']:g} %"
    trained = table[table["source"] == TRAINED]
    between = trained[trained["quantity"] == "G_group"]
    couplings = trained[trained["quantity"].isin(["b", "G"])]
    on = "G on " + couplings["on"]
    leads = lead_tables(folder)
    members = [{"group": g, "blocks": block_list(names)} for g, names in found["members"].items()]
    return Page(
        title=f"Linear flow of {found['name']}",
        question="How does every part of the network drive every other one as weights are pruned, "
        "and do the data determine it?",
        answers=answers(table, found),
        sections=[
            Section(title="The flow", figures=_figures(folder)),
            *(
                Section(title=title, table=lead, note=note)
                for (title, lead), note in zip(leads.items(), ("", "", FLOW_NOTE), strict=True)
            ),
            Section(
                title="b and G",
                table=_matrix(
                    couplings.assign(on=on.fillna("b")), lambda row: Estimate.at(row).text(2)
                ),
                note=f"{ci} intervals. A coordinate contrasts the geometric mean of the groups so "
                "far with the next group.",
            ),
            Section(
                title="G between groups",
                table=_matrix(between.assign(on="from " + between["on"]), signed("value")),
                note="What the log-ratio of the column's group adds to the exponent of the row's "
                "group; rows sum to zero.",
            ),
            limits_section([*limits(found, scalars(table, TRAINED))]),
            Section(
                title="Groups",
                table=tabulate(members, {"group": "group", "blocks": "blocks"}),
                note="Every fitted number stands in linear.csv.",
            ),
        ],
    )


def _figures(folder: Path) -> list[tuple[Path, str]]:
    fitted = read_fit(folder)
    drawn = {"prediction": linear_prediction(fitted)}
    if len(fitted.groups) == 3:
        drawn = {"plane": linear_plane(fitted), **drawn}
    return [
        (save_figure(figure, folder / "figures", name), CAPTIONS[name])
        for name, figure in drawn.items()
    ]


def lead_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Eigenvalues, fixed point and errors as text; the run first, then its nulls."""
    table, shares = read_csv(folder / "linear.csv"), read_csv(folder / "shares.csv")
    ci = f"{100 * read_json(folder / 'config.json')['ci_level']:g} %"
    sources = list(dict.fromkeys(table["source"]))
    values = [
        {"flow": _source(source), **value}
        for source in sources
        for value in eigenvalues(table, source)
    ]
    errors = [{"flow": _source(source), **scalars(table, source)} for source in sources]
    return {
        "Eigenvalues of G": tabulate(
            values,
            {
                "flow": "flow",
                "eigenvalue": "text",
                f"{ci} interval of the real part": lambda row: row["real"].ends(2),
            },
        ),
        "Drift and fixed point of the trained weights": tabulate(
            _group_rows(table[table["source"] == TRAINED], shares),
            {
                "group": "group",
                "b (drift at equal shares)": signed("drift"),
                "share, dense": number("first"),
                "share, last level": number("last"),
                "visited": lambda row: f"{row['low']:.3f} to {row['high']:.3f}",
                "fixed point": number("fixed_point"),
            },
        ),
        "Prediction error (root mean square, log-ratio coordinates)": tabulate(
            errors,
            {
                "flow": "flow",
                "one level": number("one_step", 4),
                "one level, G = 0": number("one_step_diagonal", 4),
                "all from level 0": number("multi_step", 4),
                "all from level 0, G = 0": number("multi_step_diagonal", 4),
                "condition": number("condition", 0),
                "verdict": lambda row: "identified" if row["identified"] else "not identified",
            },
        ),
    }


def _group_rows(trained: pd.DataFrame, shares: pd.DataFrame) -> Iterator[dict[str, Any]]:
    mean = shares.groupby(["group", "level"], sort=False)["share"].mean()
    for group in dict.fromkeys(shares["group"]):
        of_group = trained[trained["of"] == group].set_index("quantity")
        yield {
            "group": group,
            "drift": of_group["value"]["b_group"],
            "first": mean[group].iloc[0],
            "last": mean[group].iloc[-1],
            "low": of_group["low"]["visited"],
            "high": of_group["high"]["visited"],
            "fixed_point": of_group["value"]["fixed_point"],
        }


def eigenvalues(table: pd.DataFrame, source: str) -> Iterator[dict[str, Any]]:
    """Eigenvalues, one of each conjugate pair: real (an `Estimate`) and text."""
    of_source = table[table["source"] == source]
    real, imag = (
        of_source[of_source["quantity"] == f"eigenvalue_{part}"].to_dict("records")
        for part in ("real", "imag")
    )
    for re, im in zip(real, imag, strict=True):
        # Zero where rounding made it.
        is_real = abs(im["value"]) <= 1e-9 * max(1.0, abs(complex(re["value"], im["value"])))
        if is_real or im["value"] > 0:
            turn = "" if is_real else f" ± {im['value']:.2f}i"
            yield {"real": Estimate.at(re), "text": f"{re['value']:+.2f}{turn}"}


def scalars(table: pd.DataFrame, source: str) -> dict[str, float]:
    """Numbers of a fit that are of no group and no coordinate."""
    of_source = table[(table["source"] == source) & table["of"].isna()]
    return dict(zip(of_source["quantity"], of_source["value"], strict=True))


def _matrix(entries: pd.DataFrame, text: Any) -> pd.DataFrame:
    """One row per `of`, one column per `on`."""
    rows = [
        {"of": of, **{row["on"]: text(row) for row in of_row.to_dict("records")}}
        for of, of_row in entries.groupby("of", sort=False)
    ]
    return pd.DataFrame(rows).rename(columns={"of": "rate of"})


def answers(table: pd.DataFrame, found: Mapping[str, Any]) -> list[str]:
    """Whether the data determine b and G, and what follows; exponents only where they do."""
    fit = scalars(table, TRAINED)
    prediction, misfit = _prediction_sentence(fit, found), _misfit_sentence(found["misfit"])
    if found["reasons"]:
        return [
            f"b and G are not identified: {'; '.join(found['reasons'])}. The numbers below "
            "describe these seeds; they are no exponents.",
            prediction,
            misfit,
        ]
    beside_null = BESIDE_NULL[found["beside_null"]]
    if found["null"]:
        of_null = ", ".join(value["text"] for value in eigenvalues(table, found["null"]))
        beside_null = f"The {found['null']} null has eigenvalues {of_null}; {beside_null}"
    values = "; ".join(
        f"{value['text']} {value['real'].ends(2)}" for value in eigenvalues(table, TRAINED)
    )
    fixed = table[(table["source"] == TRAINED) & (table["quantity"] == "fixed_point")]
    shares = ", ".join(f"{row['of']} {row['value']:.3f}" for row in fixed.to_dict("records"))
    where = f"outside the visited range of {', '.join(found['outside'])}"
    fixed_point = (
        "No fixed point is given: G has no inverse that the data determine."
        if fixed["value"].isna().any()
        else f"Shares that would not flow: {shares}. This fixed point is {found['stability']} and "
        f"lies {where if found['outside'] else 'within the visited ranges'}."
    )
    return [
        f"b and G are identified: {count_text(int(fit['num_transitions']), 'transition')} of "
        f"{count_text(found['num_complete'], 'seed')} for {fit['num_parameters']:.0f} parameters, "
        f"condition number {fit['condition']:.0f}.",
        prediction,
        misfit,
        f"Eigenvalues of G, with intervals of the real parts: {values}. {fixed_point}",
        beside_null,
    ]


def _prediction_sentence(fit: Mapping[str, float], found: Mapping[str, Any]) -> str:
    is_one = found["num_complete"] == 1
    verdict = "help" if found["cross_terms_help"] else "do not help"
    return (
        f"{'The one seed is met, not' if is_one else 'A left-out seed is'} predicted one level "
        f"ahead to {fit['one_step']:.3f} (root mean square, log-ratio coordinates), with G = 0 to "
        f"{fit['one_step_diagonal']:.3f}{'' if is_one else f': cross terms {verdict}'}."
    )


def _misfit_sentence(misfit: Mapping[str, Any] | None) -> str:
    if misfit is None:
        return "One seed does not tell scatter from a misfit of the law."
    verdict = "a constant G is not the whole flow" if misfit["is_misfit"] else "no misfit is seen"
    return (
        "From the dense level on, the flow misses the mean of the seeds by up to "
        f"{misfit['missed']:.3f} (level {misfit['level']}), where that mean has a standard error "
        f"of {misfit['error']:.3f}: {verdict}."
    )


def limits(found: Mapping[str, Any], fit: Mapping[str, float]) -> Iterator[str]:
    """What limits the result: what always does, then what these data do."""
    yield (
        f"Identified means at least {MIN_PER_PARAMETER} transitions a parameter and a condition "
        f"number of at most {MAX_CONDITION:,.0f}, not that every entry is told from zero: "
        f"{found['entries_apart']} of {found['num_entries']} entries of G are."
    )
    yield "Shares sum to one: a group that gains makes the others lose."
    yield "All scatter is taken to enter the flow; that of the measurement looks like a pull back."
    yield "A constant G is the first order: bent paths give eigenvalues and a fixed point anyway."
    num_complete, num_seeds = found["num_complete"], found["num_seeds"]
    if num_complete == 1:
        yield "One seed: no interval exists, and prediction errors are those of the fit itself."
    elif num_complete < FEW_SEEDS:
        yield (
            f"{num_complete} seeds: Student's intervals take as many jack-knife pseudo-values for "
            "normal; eigenvalues are matched by their order."
        )
    if num_complete < num_seeds:
        yield (
            f"{num_seeds - num_complete} of {num_seeds} seeds left out: a level is missing or a "
            "group has no weights left."
        )
    if found["outside"]:
        outside = ", ".join(found["outside"])
        yield f"The fixed point lies outside what was visited in {outside}: an extrapolation."
    if fit["ridge"] > 0:
        yield (
            f"A ridge of {fit['ridge']:g} (of {', '.join(f'{r:g}' for r in RIDGES)}) draws G to "
            "zero; its choice is not in the intervals."
        )
    if found["is_single"]:
        yield "One checkpoint: this is the flow of one-shot pruning, not of IMP."


def _source(name: str) -> str:
    return name if name == TRAINED else f"{name} null"

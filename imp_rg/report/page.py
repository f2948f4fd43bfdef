"""The one page mechanism: question, answers, then sections of text, table, figure and limits.

In: sections as data. Out: a file that needs no other one: figures and style are inside.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from imp_rg.report.words import environment_lines
from imp_rg.rg.estimate import MISSING
from imp_rg.runs.files import read_json, write_bytes


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of a page.

    Attributes:
      title: Its heading; empty for what continues the part above.
      text: Paragraphs.
      figures: SVG files with their captions.
      table: Cells are text (`imp_rg.report.columns.tabulate`); None without one.
      items: A list below the table, such as what limits the result.
      note: In small print at the end.
      links: Names of other pages with their places relative to this one.
      is_folded: Whether it opens on a click.
      name: Of the section in the file, for links and tests; empty without.
    """

    title: str
    text: Sequence[str] = ()
    figures: Sequence[tuple[Path, str]] = ()
    table: pd.DataFrame | None = field(default=None, compare=False)
    items: Sequence[str] = ()
    note: str = ""
    links: Sequence[tuple[str, str]] = ()
    is_folded: bool = False
    name: str = ""


def limits_section(limits: Sequence[str]) -> Section:
    """What limits a result, or that nothing was found. House definition."""
    none = ["None of the limits that this page looks for was found."]
    title = "What limits this result"
    return Section(title=title, text=[] if limits else none, items=limits, name="limits")


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a study has to say; a pure function of its run folder.

    Attributes:
      title: Of the page.
      question: One sentence.
      answers: The first one is the verdict.
      sections: In their order.
    """

    title: str
    question: str
    answers: Sequence[str]
    sections: Sequence[Section]


def write_page(page: Page, folder: Path) -> Path:
    """Writes ``report.html``; what ``environment.json`` beside it says stands at its end.

    Returns:
      Its path.
    """
    path, environment = folder / "report.html", folder / "environment.json"
    content = _template().render(
        page=page,
        environment=environment_lines(read_json(environment)) if environment.exists() else None,
        css=files("imp_rg.report").joinpath("page.css").read_text("utf-8"),
    )
    write_bytes(path, content.encode())
    return path


def _template():
    environment = Environment(
        loader=PackageLoader("imp_rg", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"inline": _inline, "as_html": _as_html}
    return environment.get_template("page.html.j2")


def _inline(svg: Path) -> str:
    """A figure as a source that needs no file."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.read_bytes()).decode()}"


def _as_html(table: pd.DataFrame) -> str:
    """A table; its cells are escaped here."""
    return table.to_html(index=False, border=0, na_rep=MISSING, justify="unset")

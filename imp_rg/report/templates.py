"""Pages from templates: one environment, one style, the words of numbers as filters."""

import base64
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from imp_rg.report.words import estimate_text, interval_text, number_text, percent_text


class Table(NamedTuple):
    """A table on a page; cells are text."""

    head: list[str]
    rows: list[list[str]]


def inline(svg: Path) -> str:
    """A figure as a source that needs no file."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.read_bytes()).decode()}"


def render(template: str, **values: Any) -> bytes:
    """A page that needs no other file.

    Args:
      template: File name in this package.
      **values: What the template names; a name it lacks is an error.

    Returns:
      HTML in UTF-8.
    """
    environment = Environment(
        loader=PackageLoader("imp_rg", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number_text, "percent": percent_text, "inline": inline}
    environment.globals |= {"interval": interval_text, "estimate": estimate_text}
    css = files("imp_rg.report").joinpath("page.css").read_text("utf-8")
    return environment.get_template(template).render(css=css, **values).encode()

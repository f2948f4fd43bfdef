"""A self-contained page of an experiment: question, answers, then sections of text and tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imp_rg.io.files import read_json, write_bytes
from imp_rg.report.templates import render
from imp_rg.report.words import environment_lines


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of a page.

    Attributes:
      title: Its heading.
      text: Paragraphs.
      figures: SVG files with their captions.
      head: Of the table.
      rows: Of the table; none without one.
      note: In small print below.
      links: Names of other pages with their places relative to this one.
    """

    title: str
    text: Sequence[str] = ()
    figures: Sequence[tuple[Path, str]] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    note: str = ""
    links: Sequence[tuple[str, str]] = ()


def write_page(
    path: Path,
    *,
    title: str,
    question: str,
    answers: Sequence[str],
    sections: Sequence[Section],
) -> Path:
    """Writes a page that needs no other file; returns its path.

    What ``environment.json`` beside it says stands at its end.
    """
    environment = path.with_name("environment.json")
    page = render(
        "sections.html.j2",
        title=title,
        question=question,
        answers=answers,
        sections=sections,
        environment=environment_lines(read_json(environment)) if environment.exists() else None,
    )
    write_bytes(path, page)
    return path

"""Reads pages back: their skeleton and the cells of a section's table."""

import html
import re


def skip_figures(monkeypatch, folder):
    """Pages without figures, which take most of the time."""
    (folder / "none.svg").touch()
    drawn = [(folder / "none.svg", "none")]
    for name in ("figures.draw_run", "compare_figures.draw_comparison"):
        monkeypatch.setattr(f"imp_rg.report.{name}", lambda tables, out: drawn)


def text_of(fragment):
    """What is left without tags, in single spaces."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", fragment))).strip()


def skeleton(page):
    """Title, answers, headings, folds, figures and headings of tables, in their order."""
    body = page[page.index("<body>") :]
    kinds = {
        "h1": r"<h1>(.*?)</h1>",
        "answer": r"(?<=answer\">)(.*?)</div>",
        "h2": r"<h2>(.*?)</h2>",
        "fold": r"<summary>(.*?)</summary>",
        "figure": r"<figure id=\"figure-(.*?)\"",
        "table": r"<thead>(.*?)</thead>",
    }
    found = []
    for kind, pattern in kinds.items():
        for match in re.finditer(pattern, body, re.S):
            cells = re.findall(r"<(?:th|p)>(.*?)</(?:th|p)>", match[1], re.S) or [match[1]]
            found.append((match.start(), f"{kind}: {' | '.join(map(text_of, cells))}"))
    return [line for _, line in sorted(found)]


def cells_of(page, section):
    """Cells of every row of the first table of a section, headings first."""
    body = re.search(rf'<section id="{section}">.*?<table.*?>(.*?)</table>', page, re.S)
    assert body is not None, section
    rows = re.findall(r"<tr.*?>(.*?)</tr>", body[1], re.S)
    return [[text_of(c) for c in re.findall(r"<t[hd]>(.*?)</t[hd]>", row, re.S)] for row in rows]

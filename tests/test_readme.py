"""What the README shows is run as it stands."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_library_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    sigma = eval(capsys.readouterr().out, {"np": __import__("numpy")})
    assert sigma["dense0"] > 0.1  # "relevant" without any training, as the text says
    assert len(code.strip().splitlines()) <= 20


def test_the_test_line_is_what_ci_runs():
    (line,) = [line for line in README.splitlines() if line.endswith("-m pytest -q")]
    assert line in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_front_page_of_the_experiments_lists_every_command():
    folder = ROOT / "experiments"
    listed = re.findall(r"^\| `(\w+)` \|", (folder / "README.md").read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(
        path.stem
        for path in folder.glob("*.py")
        if path.stem != "__init__" and "cli.renamed(" not in path.read_text()
    )

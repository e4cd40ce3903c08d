"""The inputs that others tripped over, and what is said or computed of them now: tests/cases.md.

    python tests/cases.py > tests/cases.md

Each row is a test's mark, `pytest.mark.case(kind, example, says)`. Where a message is what counts,
the test takes it from the fixture `says`, so that the table holds what the product really says.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent
KINDS = {
    "text": "Text and ids",
    "model": "Models' files, weights and logits",
    "loss": "Losses and trainers",
    "judge": "Judges",
    "data": "Data files",
    "config": "Configurations and command lines",
    "machine": "The machine around a run",
}
HEAD = """# Inputs that others tripped over

Each row is a test (`python tests/cases.py` prints this table from their marks): what was given, and
what is computed or said now. Where a message is what counts, its test compares the two.
"""


class Case(NamedTuple):
    """A row; `test` is where it is checked."""

    kind: str
    example: str
    says: str
    test: str


def cases() -> list[Case]:
    """The rows of all test files, in the order of kinds, files and lines."""
    found = [case for path in sorted(TESTS.rglob("test_*.py")) for case in cases_of(path)]
    return sorted(found, key=lambda case: list(KINDS).index(case.kind))


def cases_of(path: Path) -> list[Case]:
    """The rows of one test file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    marks = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and is_mark(node.func)]
    marks.sort(key=lambda node: node.lineno)
    place = str(path.relative_to(TESTS))
    return [Case(*(ast.literal_eval(part) for part in mark.args), place) for mark in marks]


def is_mark(function: ast.expr) -> bool:
    """Whether a call is of `mark.case`."""
    return isinstance(function, ast.Attribute) and ast.unparse(function).endswith("mark.case")


def table() -> str:
    """The rows in Markdown, a table a kind."""
    rows, text = cases(), HEAD
    count = Counter(case.kind for case in rows)
    for kind, title in KINDS.items():
        text += f"\n## {title} ({count[kind]})\n\n| given | now | test |\n| --- | --- | --- |\n"
        for case in rows:
            if case.kind == kind:
                cells = (cell(case.example), cell(case.says), f"`{case.test}`")
                text += f"| {' | '.join(cells)} |\n"
    return text


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    print(table(), end="")

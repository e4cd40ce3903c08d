"""The table of cases is that of the tests' marks."""

from __future__ import annotations

import cases


def test_table_is_written_from_the_marks() -> None:
    written = (cases.TESTS / "cases.md").read_text(encoding="utf-8")
    assert written == cases.table(), "run: python tests/cases.py > tests/cases.md"


def test_every_row_is_of_a_known_kind_and_stands_once() -> None:
    rows = cases.cases()
    assert {case.kind for case in rows} <= set(cases.KINDS)
    assert len({(case.kind, case.example) for case in rows}) == len(rows)

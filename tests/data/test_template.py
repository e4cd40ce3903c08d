"""The one prompt template, and what others know it by."""

from __future__ import annotations

import pytest

from atkd.data.template import fingerprint, template


def test_template() -> None:
    assert template("Sort:", "b a") == "Human:\nSort: b a\n\nAssistant:\n"
    assert template("Say it.") == "Human:\nSay it.\n\nAssistant:\n"


def test_the_fingerprint_is_the_training_template_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fingerprint() == template("{instruction}", "{input}") + template("{instruction}")
    assert template("Say it.", "Now.", released=True) == (
        "Human:\n### Instruction:\nSay it.\n\n### Input:\nNow.\n\nAssistant:\n"
    )
    before = fingerprint()
    monkeypatch.setattr("atkd.data.template.CUE", "\n\nAI:\n")
    assert fingerprint() != before

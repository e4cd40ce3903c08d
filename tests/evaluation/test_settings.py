"""Settings of stages that run a model: one place for defaults, unknown keys named."""

from __future__ import annotations

import pytest

from atkd.config import schema
from atkd.evaluation.settings import CrosscheckSettings, EvaluationSettings, FidelitySettings
from atkd.runtime.files import InputError


def test_defaults_are_the_schemas() -> None:
    """A stage run by hand does what a configuration that says nothing asks for."""
    keys = schema()["properties"]["evaluation"]["properties"]
    for name in ("context", "batch_size", "dtype"):
        assert getattr(EvaluationSettings(), name) == keys[name]["default"]
    assert FidelitySettings().batch_size == keys["batch_size"]["default"]
    assert FidelitySettings().tasks == ["dolly", "selfinst", "vicuna", "koala", "wizardlm"]


def test_what_is_given_is_kept_and_unknown_keys_are_named() -> None:
    made = EvaluationSettings.of({"context": 96, "tasks": ["mmlu"]})
    assert (made.context, made.tasks, made.device) == (96, ["mmlu"], "cpu")
    assert CrosscheckSettings.of({"shots": {"mmlu": 2}}).shots == {"mmlu": 2}
    with pytest.raises(InputError, match="settings: found 'contxt', expected batch_size, d"):
        EvaluationSettings.of({"contxt": 96})
    with pytest.raises(InputError, match="found 'context', expected batch_size"):
        FidelitySettings.of({"context": 96})
    assert "tasks, documents" in FidelitySettings.about()

"""Training on two processes equals training on one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trainings import curve, prepared, train

from atkd.runtime.files import read_json, read_jsonl


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the trainings start from."""
    return prepared(tmp_path_factory.mktemp("processes"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["sft", "supervised_kd", "supervised_kd_atkd", "imitkd_atkd", "gkd"]
)
def test_two_processes_train_like_one(root: Path, method: str) -> None:
    options = {"method": method, "base": "base"} | (
        {} if method == "sft" else {"teacher": "teacher"}
    )
    one = train(root, "student", f"{method}-1", **options)
    two = train(root, "student", f"{method}-2", processes=2, **options)
    alone, together = (list(read_jsonl(folder / "metrics.jsonl")) for folder in (one, two))
    assert [row["step"] for row in together] == list(range(1, 9))
    for left, right in zip(alone, together, strict=True):
        for name in ("loss", "grad_norm", "learning_rate", "supervised_tokens"):
            assert left[name] == pytest.approx(right[name], rel=2e-4), (left, right)
    assert read_json(two / "manifest.json")["files"] and not (two / "work").exists()


def test_a_sharded_training_is_the_same(root: Path) -> None:
    one = root / "teacher"
    two = train(root, "teacher", "sharded", processes=2, sharded=True, base="base")
    for left, right in zip(curve(one), curve(two), strict=True):
        assert left == pytest.approx(right, rel=2e-4)
    weights, others = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["one process", "two sharded"])
def test_a_training_goes_on_with_another_number_of_processes(root: Path, first: str) -> None:
    output = f"resumed after {first}"
    alone, shared = {"processes": 1}, {"processes": 2, "sharded": True}
    order = (alone, shared) if first == "one process" else (shared, alone)
    with pytest.raises(AssertionError, match="stopped at step 5"):
        train(root, "teacher", output, **order[0], stop="5", base="base")
    assert [path.name for path in (root / output / "work").glob("step-*")] == ["step-0000003"]
    done = train(root, "teacher", output, **order[1], base="base")
    for left, right in zip(curve(root / "teacher"), curve(done), strict=True):
        assert left == pytest.approx(right, rel=2e-4)


@pytest.mark.slow
def test_what_cannot_be_sharded_is_refused(root: Path) -> None:
    with pytest.raises(AssertionError, match=r"compute\.sharded: found true, but a student that"):
        train(root, "student", "no", sharded=True, method="gkd", base="base", teacher="teacher")

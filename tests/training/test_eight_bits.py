"""AdamW's moments in 8 bits: close to those of 32, kept exactly by a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import ROOT, needed
from trainings import curve, prepared, train

PACKAGES = ROOT / ".venv/extras"  # `make test` installs torchao there: where it is found,
# transformers imports it with every model
KNOBS = {"optimiser": "adamw_8bit", "learning_rate": 1e-3}


@pytest.mark.slow
@needed((PACKAGES / "torchao").is_dir(), "torchao is not installed in .venv/extras")
def test_a_training_with_moments_of_eight_bits_resumes_to_the_same(tmp_path: Path) -> None:
    root, packages = prepared(tmp_path), str(PACKAGES)
    usual = train(root, "teacher", "usual", base="base", knobs={"learning_rate": 1e-3})
    whole = train(root, "teacher", "whole", base="base", knobs=KNOBS, packages=packages)
    with pytest.raises(AssertionError, match="stopped at step 5"):
        train(root, "teacher", "t", base="base", knobs=KNOBS, packages=packages, stop="5")
    resumed = train(root, "teacher", "t", base="base", knobs=KNOBS, packages=packages)
    assert curve(resumed) == curve(whole)
    losses = [[loss for loss, _ in curve(each)] for each in (usual, whole)]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.01)

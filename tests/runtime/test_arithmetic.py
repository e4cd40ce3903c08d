"""`auto` is decided by what the processor says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from atkd.runtime import arithmetic

X86 = "processor\t: 0\nmodel name\t: a\nflags\t\t: fpu avx2 {}\n\nprocessor\t: 1\nflags\t: fpu\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\n"


@pytest.mark.parametrize(
    ("said", "short"),
    [
        (X86.format("avx512_bf16"), True),
        (X86.format("amx_bf16"), True),
        (X86.format("avx512f"), False),
        (ARM.format("bf16 sve"), True),
        (ARM.format("sve"), False),
        ("", False),
    ],
)
def test_instructions_decide(
    said: str, short: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(said)
    monkeypatch.setattr(arithmetic, "PROCESSOR", path)
    given = {"device": "cpu", "dtype": "auto", "compute": {"precision": "auto", "device": "cpu"}}
    found = arithmetic.chosen(given)
    assert found["dtype"] == ("bfloat16" if short else "float32")
    assert found["compute"]["precision"] == ("bf16" if short else "float32")
    assert given["dtype"] == "auto"


def test_what_is_said_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "PROCESSOR", tmp_path / "none")
    given = {"dtype": "bfloat16", "compute": {"precision": "bf16", "teacher_dtype": "float32"}}
    assert arithmetic.chosen(given) == given
    assert arithmetic.chosen({"teacher_dtype": "auto"}) == {"teacher_dtype": "float32"}


def test_a_gpu_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    assert arithmetic.chosen({"device": "cuda", "dtype": "auto"})["dtype"] == "bfloat16"

"""The cache holds what a live teacher would say, refuses damage, and resumes."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from atkd.data import sequences
from atkd.losses.functional import kd_loss
from atkd.models import checkpoints, tokenizers
from atkd.runtime.files import InputError, read_json, write_json, write_jsonl
from atkd.training import teacher_cache
from atkd.training.teacher import LiveTeacher


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A teacher, data, and its cache in small shards."""
    root = tmp_path_factory.mktemp("cache")
    rows = [
        {"id": str(i), "instruction": f"Count to {i}.", "output": " ".join(map(str, range(i + 1)))}
        for i in range(12)
    ]
    write_jsonl(root / "train.jsonl", rows)
    tokenizer = tokenizers.train_tokenizer("opt", [row["output"] for row in rows] * 9, 262)
    shape = {"hidden_size": 16, "layers": 2, "heads": 2, "embed": 8, "rows": 272}
    checkpoints.set_up(0)
    model = checkpoints.build("opt", shape, tokenizer, 96, 1).eval()
    checkpoints.save(model, tokenizer, root / "teacher", {"identity": "test"})
    data = sequences.instructions(str(root / "train.jsonl"), tokenizer, 80)
    facts = {
        "identity": teacher_cache.identity(root / "teacher", root / "train.jsonl", None, "float32")
    }
    facts |= {"max_length": 80}
    found = SimpleNamespace(root=root, model=model, tokenizer=tokenizer, data=data, facts=facts)
    found.live = LiveTeacher(model, len(tokenizer))
    found.size = teacher_cache.SHARD_BYTES
    teacher_cache.SHARD_BYTES = 40 * 40
    found.tokens = teacher_cache.write(
        root / "cache", found.live, data, tokenizer.pad_token_id, facts
    )
    yield found
    teacher_cache.SHARD_BYTES = found.size


def opened(made: SimpleNamespace, folder: Path | None = None) -> teacher_cache.CachedTeacher:
    return teacher_cache.CachedTeacher(folder or made.root / "cache", made.facts["identity"], "cpu")


def test_cached_equals_live_whatever_the_batch(made: SimpleNamespace) -> None:
    teacher = opened(made)
    assert len(list((made.root / "cache").glob("shard-*"))) > 3
    assert torch.equal(teacher.head.weight, made.live.head.weight)
    supply = sequences.FixedBatches(made.data, made.tokenizer.pad_token_id, "cpu")
    for indices in ([3, 0, 11], [7], list(range(12))):
        batch = supply(0, indices)
        for one, two in zip(teacher.signal(batch), made.live.signal(batch), strict=True):
            torch.testing.assert_close(one, two, rtol=2e-5, atol=2e-6)
    logits = made.live.signal(batch).hidden_Nd @ teacher.head.weight.T
    one, two = teacher.signal(batch).hidden_Nd @ teacher.head.weight.T, logits
    assert kd_loss("forward_kl", one, two, batch.targets_N).abs() < 1e-9
    assert len(teacher.uncertainty_M()) == made.tokens == teacher.tokens


def test_a_shorter_context_reads_the_same_cache(made: SimpleNamespace) -> None:
    short = sequences.instructions(str(made.root / "train.jsonl"), made.tokenizer, 40)
    assert 0 < short.too_long < 12
    supply = sequences.FixedBatches(short, made.tokenizer.pad_token_id, "cpu")
    batch = supply(0, [0, len(short) - 1])
    found, live = opened(made).signal(batch), made.live.signal(batch)
    torch.testing.assert_close(found.hidden_Nd, live.hidden_Nd, rtol=2e-5, atol=2e-6)


def test_other_targets_are_refused(made: SimpleNamespace) -> None:
    other = sequences.instructions(
        str(made.root / "train.jsonl"), made.tokenizer, 80, switches=["eos_untaught"]
    )
    batch = sequences.FixedBatches(other, made.tokenizer.pad_token_id, "cpu")(0, [2])
    with pytest.raises(InputError, match=r"data row 2 has .* cached tokens; expected"):
        opened(made).signal(batch)


def copy(made: SimpleNamespace, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.root / "cache", tmp_path / "copy"))


def test_truncated_edited_and_missing_files_are_refused(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    folder = copy(made, tmp_path)
    path = folder / "shard-00001.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(InputError, match=r"shard-00001.*bytes; expected"):
        opened(made, folder)
    path.write_bytes(whole[:-4] + b"\0\1\2\3")
    with pytest.raises(InputError, match=r"shard-00001.*contents changed"):
        opened(made, folder)
    path.unlink()
    with pytest.raises(InputError, match=r"shard-00001.*missing"):
        opened(made, folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"manifest\.json: file not found"):
        opened(made, folder)


def test_a_rerun_makes_a_damaged_shard_anew(made: SimpleNamespace, tmp_path: Path) -> None:
    folder = copy(made, tmp_path)
    path = folder / "shard-00001.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"\0\1\2\3")
    teacher_cache.write(folder, made.live, made.data, made.tokenizer.pad_token_id, made.facts)
    torch.testing.assert_close(opened(made, folder).uncertainty_M(), opened(made).uncertainty_M())
    assert path.read_bytes()[-4:] == whole[-4:]


def test_a_manifest_that_lacks_something_is_refused(made: SimpleNamespace, tmp_path: Path) -> None:
    folder = copy(made, tmp_path)
    write_json(folder / "manifest.json", {})
    with pytest.raises(InputError, match=r"manifest\.json: 'files' is missing; delete the folder"):
        opened(made, folder)


@pytest.mark.parametrize("key", ["teacher", "teacher_dtype", "data", "tokenizer", "versions"])
def test_a_foreign_cache_is_refused(made: SimpleNamespace, tmp_path: Path, key: str) -> None:
    folder = copy(made, tmp_path)
    record = read_json(folder / "manifest.json")
    record["identity"][key] = "another"
    write_json(folder / "manifest.json", record)
    with pytest.raises(InputError, match=f"made with {key} 'another'; expected"):
        opened(made, folder)


def test_an_interrupted_cache_keeps_its_finished_shards(
    made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    original, calls = teacher_cache.shard_tensors, []

    def counted(*args: Any) -> Any:
        calls.append(args[2])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(teacher_cache, "shard_tensors", counted)
    arguments = (tmp_path, made.live, made.data, made.tokenizer.pad_token_id, made.facts)
    with pytest.raises(KeyboardInterrupt):
        teacher_cache.write(*arguments)
    assert not (tmp_path / "manifest.json").exists()
    (tmp_path / "shard-00001.safetensors").write_bytes(b"cut")
    calls.append(None)
    capsys.readouterr()
    count = teacher_cache.write(*arguments)
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"cache: 0 of {count:,} tokens (0%)"
    assert told[-1].startswith(f"cache: {count:,} of {count:,} tokens (100%), ")
    whole = read_json(made.root / "cache/manifest.json")
    assert read_json(tmp_path / "manifest.json")["files"] == whole["files"]
    assert calls[4] != 0  # the first shard was kept, the damaged one made anew


def test_what_it_takes_is_said_and_a_full_disk_is_refused(
    made: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: Any
) -> None:
    size = teacher_cache.forecast(made.data, 8, "bfloat16")
    assert size["bytes"] == made.tokens * (8 * 2 + 8)
    monkeypatch.setattr(teacher_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(InputError, match="GiB free; make room"):
        teacher_cache.room(tmp_path, size)
    assert f"{made.tokens} supervised tokens" in capsys.readouterr().out

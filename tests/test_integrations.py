"""The trainers of other libraries step exactly as `kd_loss` on the whole step says they should.

Run as a script (by torch.distributed.run) it trains one step on every process and saves the result.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from helpers import ROOT
from torch.nn.utils.rnn import pad_sequence

from atkd import kd_loss
from atkd.integrations import KDTrainer, TRLKDTrainer, head_returns, trainer_class

V, PAD, RATE = 40, 1, 0.5
OWN = (
    "processing_class",
    "loss",
    "loss_settings",
    "vocab_size",
    "compute_metrics",
    "eval_dataset",
    "train_dataset",
)
LOSSES = [
    ("atkd", {}),
    ("atkd", {"easy_weight": 0.5, "hard_fraction": 0.3, "split": "topk", "reverse": True}),
    ("forward_kl", {}),
    ("jsd", {"beta": 0.2}),
]


@pytest.fixture(autouse=True, scope="module")
def quick_collections() -> Iterator[None]:
    """The Trainer collects garbage at every start; what was imported need not be searched."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def rows(count: int = 8) -> list[dict[str, Any]]:
    """Sequences of unequal lengths, one with no supervised token, and a column to leave out."""
    noise = torch.Generator().manual_seed(0)
    made = []
    for length in torch.randint(4, 14, (count,), generator=noise).tolist():
        ids = torch.randint(4, V, (length,), generator=noise).tolist()
        made.append({"input_ids": ids, "labels": [-100] * 2 + ids[2:], "text": "not for the model"})
    made[1]["labels"] = [-100] * len(made[1]["labels"])
    return made


def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    def padded(name: str, value: int) -> torch.Tensor:
        return pad_sequence([torch.tensor(row[name]) for row in features], True, value)

    ids = [torch.tensor(row["input_ids"]) for row in features]
    attention = pad_sequence([torch.ones_like(row) for row in ids], True, 0)
    return {
        "input_ids": padded("input_ids", PAD),
        "attention_mask": attention,
        "labels": padded("labels", -100),
    }


def build(family: str, width: int, seed: int, vocabulary: int = V, dropout: float = 0.0) -> Any:
    """A random model; OPT with a projection before its head, as OPT-350m, and a tied head."""
    torch.manual_seed(seed)
    common = {
        "vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 32, "pad_token_id": PAD,
    }  # fmt: skip
    if family == "opt":
        own = {"ffn_dim": 32, "word_embed_proj_dim": 8, "dropout": dropout, "init_std": 0.5}
        return transformers.OPTForCausalLM(transformers.OPTConfig(**common, **own))
    own = {"intermediate_size": 32, "initializer_range": 0.5}
    if family == "pythia":
        return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**common, **own))
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**common, **own))


def arguments(folder: Path, kind: Any = transformers.TrainingArguments, **options: Any) -> Any:
    """One step of plain gradient descent unless told otherwise: parameters show gradients."""
    usual = {
        "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1,
        "use_cpu": True, "dataloader_pin_memory": False, "max_steps": 1, "optim": "sgd",
        "learning_rate": RATE, "max_grad_norm": 0.0, "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 8,
    }  # fmt: skip
    return kind(output_dir=str(folder), **(usual | options))


def trainer(folder: Path, student: Any, teacher: Any, **options: Any) -> Any:
    """A KDTrainer; options of the loss and the trainer by name, the rest are arguments."""
    mine = {"train_dataset": rows(), "data_collator": collate}
    mine |= {name: options.pop(name) for name in (*OWN, "data_collator") if name in options}
    return KDTrainer(student, teacher, args=arguments(folder, **options), **mine)


def full_loss(student: Any, teacher: Any, data: list[Any], loss: str, settings: Any) -> Any:
    """kd_loss of all rows at once, on plain logits cut to V."""
    batch = collate(data)
    labels = batch.pop("labels")[:, 1:]
    with torch.no_grad():
        theirs = teacher.eval()(**batch).logits[:, :-1, :V]
    return kd_loss(loss, student(**batch).logits[:, :-1, :V], theirs, labels, **settings)


def stepped(student: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """The student's parameters after one step of gradient descent on the loss."""
    named = dict(student.named_parameters())
    slopes = torch.autograd.grad(loss, list(named.values()))
    return {n: p.detach() - RATE * g for (n, p), g in zip(named.items(), slopes, strict=True)}


def same(found: Any, wanted: dict[str, torch.Tensor], **tolerance: float) -> None:
    for name, value in found.named_parameters():
        torch.testing.assert_close(value.detach(), wanted[name], **tolerance)


CLOSE = {"rtol": 1e-4, "atol": 3e-6}


@pytest.mark.parametrize("size,accumulate", [(8, 1), (2, 4), (1, 8)])
@pytest.mark.parametrize("loss,settings", LOSSES)
@pytest.mark.parametrize("family", ["opt", "pythia", "llama"])
def test_a_step_is_kd_loss_of_the_whole_step(
    family: str, loss: str, settings: Any, size: int, accumulate: int, tmp_path: Path
) -> None:
    student, teacher = build(family, 16, 1), build(family, 24, 2, dropout=0.3)
    expected = full_loss(student, teacher, rows(), loss, settings)
    wanted = stepped(student, expected)
    teacher.train()
    job = trainer(
        tmp_path, student, teacher, loss=loss, loss_settings=settings,
        per_device_train_batch_size=size, gradient_accumulation_steps=accumulate,
    )  # fmt: skip
    job.train()
    assert job.state.log_history[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)
    same(student, wanted, **CLOSE)


def test_the_last_step_of_an_epoch_has_fewer_micro_batches(tmp_path: Path) -> None:
    student, teacher, data = build("llama", 16, 1), build("llama", 24, 2), rows(10)
    options = {
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_steps": 2,
        "train_sampling_strategy": "sequential", "train_dataset": data,
    }  # fmt: skip
    first = build("llama", 16, 1)
    wanted = stepped(first, full_loss(first, teacher, data[:8], "atkd", {}))
    first.load_state_dict(wanted, strict=False)
    wanted = stepped(first, full_loss(first, teacher, data[8:], "atkd", {}))
    trainer(tmp_path, student, teacher, **options).train()
    same(student, wanted, **CLOSE)


def test_scope_micro_ranks_and_averages_each_micro_batch(tmp_path: Path) -> None:
    student, teacher, data = build("opt", 16, 1), build("opt", 24, 2), rows()
    data[1] = data[0]
    parts = [full_loss(student, teacher, data[i : i + 2], "atkd", {}) for i in range(0, 8, 2)]
    whole = full_loss(student, teacher, data, "atkd", {})
    mean = sum(parts) / 4
    assert abs(mean - whole) > 1e-3
    wanted = stepped(student, mean)
    job = trainer(
        tmp_path, student, teacher, loss_settings={"scope": "micro"}, train_dataset=data,
        per_device_train_batch_size=2, gradient_accumulation_steps=4,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    job.train()
    assert job.state.log_history[0]["loss"] == pytest.approx(mean.item(), rel=1e-5)
    same(student, wanted, **CLOSE)


@pytest.mark.case(
    "loss",
    "KDTrainer with a tokenizer as processing_class whose ids have a hole",
    "vocab_size is its largest id and one, so that no label is outside it",
)
def test_a_tokenizers_largest_id_is_in_the_vocabulary(tmp_path: Path) -> None:
    words = tokenizers.models.WordLevel({"a": 0, "b": V - 1}, unk_token="a")
    backend = tokenizers.Tokenizer(words)
    two = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="a")
    assert len(two) == 2
    student, teacher = build("llama", 16, 1), build("llama", 24, 2)
    job = trainer(tmp_path, student, teacher, processing_class=two)
    assert job.vocab_size == V


def test_rows_beyond_the_vocabulary_play_no_part(tmp_path: Path) -> None:
    student, teacher = build("llama", 16, 1, V + 8), build("llama", 24, 2, V + 4)
    wanted = stepped(student, full_loss(student, teacher, rows(), "atkd", {}))
    with pytest.raises(ValueError, match=r"head has 48 rows, teacher's 44; give vocab_size"):
        trainer(tmp_path, student, teacher)
    trainer(tmp_path, student, teacher, vocab_size=V).train()
    same(student, wanted, **CLOSE)


def test_eos_is_a_target_where_padding_is_eos(tmp_path: Path) -> None:
    data = rows()
    for row in data:
        row["input_ids"] = [*row["input_ids"], PAD]  # the end of the answer
        row["labels"] = [*row["labels"], PAD]
    untaught = [row | {"labels": [*row["labels"][:-1], -100]} for row in data]
    student, teacher = build("llama", 16, 1), build("llama", 24, 2)
    expected = full_loss(student, teacher, data, "atkd", {})
    without = full_loss(student, teacher, untaught, "atkd", {})
    assert abs(expected - without).item() > 1e-3
    wanted = stepped(student, expected)
    job = trainer(tmp_path, student, teacher, train_dataset=data)
    job.train()
    assert job.state.log_history[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)
    same(student, wanted, **CLOSE)


def test_training_builds_no_logits(tmp_path: Path) -> None:
    student, teacher, sizes = build("llama", 16, 1), build("llama", 24, 2), []
    for model in (student, teacher):
        head = model.get_output_embeddings()
        head.register_forward_hook(lambda *call: sizes.append(tuple(call[-1].shape)))
    job = trainer(tmp_path, student, teacher)
    del sizes[:]
    job.train()
    count = sum(label != -100 for row in rows() for label in row["labels"][1:])
    assert sizes == [(count, 24), ()]
    job.evaluate(rows())
    assert sizes == [(count, 24), ()] * 2


def test_evaluation_gives_the_loss_of_each_batch_and_the_models_logits(tmp_path: Path) -> None:
    student, teacher, data, seen = build("opt", 16, 1), build("opt", 24, 2), rows(6), {}

    def keep(prediction: Any) -> dict[str, float]:
        seen.update(logits=prediction.predictions, labels=prediction.label_ids)
        return {"rows": len(prediction.predictions)}

    options = {"per_device_eval_batch_size": 3, "eval_dataset": data}
    parts = [full_loss(student, teacher, data[i : i + 3], "atkd", {}).item() for i in (0, 3)]
    job = trainer(tmp_path, student, teacher, compute_metrics=keep, **options)
    found = job.evaluate()
    assert found["eval_rows"] == 6
    assert found["eval_loss"] == pytest.approx(sum(parts) / 2, rel=1e-5)
    batch = collate(data[:3])
    length = batch["input_ids"].shape[1]
    logits = student.eval()(batch["input_ids"], batch["attention_mask"]).logits.detach()
    torch.testing.assert_close(torch.tensor(seen["logits"][:3, :length]), logits)
    assert (seen["labels"][:3, :length] == batch["labels"].numpy()).all()
    alone = trainer(tmp_path, student, teacher, **options).evaluate()
    assert alone["eval_loss"] == pytest.approx(found["eval_loss"], rel=1e-6)


def test_autocast_stays_close_to_float32(tmp_path: Path) -> None:
    losses = []
    for bf16 in (False, True):
        job = trainer(tmp_path, build("opt", 16, 1), build("opt", 24, 2), bf16=bf16)
        job.train()
        losses.append(job.state.log_history[0]["loss"])
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=1e-2)


def test_the_head_is_put_back_whatever_happens() -> None:
    model = build("llama", 16, 1)
    head, ids = model.get_output_embeddings(), torch.ones((1, 2), dtype=torch.long)
    before = model(ids).logits
    with pytest.raises(RuntimeError), head_returns(model, lambda hidden: hidden):
        raise RuntimeError
    assert "forward" not in head.__dict__ and torch.equal(model(ids).logits, before)
    head.forward = own = lambda hidden: hidden * 0
    with head_returns(model, lambda hidden: hidden):
        pass
    assert head.forward is own


@pytest.mark.parametrize(
    "options,message",
    [
        ({"loss": "kl"}, "loss 'kl' is unknown"),
        ({"loss_settings": {"lambda": 0.2}}, "setting 'lambda' is unknown; expected one of beta, "),
        ({"loss_settings": {"easy_weight": 2}}, "easy_weight is 2"),
        ({"loss_settings": {"scope": "epoch"}}, "scope is 'epoch'; expected one of batch, micro"),
        ({"loss_settings": {"divergence": "kl"}}, "divergence is 'kl'"),
        ({"vocab_size": V + 1}, f"student LlamaForCausalLM: its head has {V} rows; expected"),
        ({"label_smoothing_factor": 0.1}, "KDTrainer does not support label_smoothing_factor"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, build("llama", 16, 1), build("llama", 16, 2), **options)


def test_models_and_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    student, teacher = build("llama", 16, 1), build("llama", 16, 2)
    data = [{"input_ids": [4, 5, 6], "labels": [-100, 5, V - 1]}]
    job = trainer(tmp_path, student, teacher, vocab_size=V - 1, train_dataset=data)
    with pytest.raises(ValueError, match=f"label {V - 1} is outside the vocabulary of {V - 1}"):
        job.train()
    shape = {
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "vocab_size": V, "hidden_size": 16, "head_dim": 8, "intermediate_size": 16,
    }  # fmt: skip
    capped = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**shape))
    with pytest.raises(ValueError, match="teacher Gemma2ForCausalLM: its head's output is scaled"):
        trainer(tmp_path, student, capped)
    student.set_output_embeddings(torch.nn.Sequential(student.get_output_embeddings()))
    with pytest.raises(ValueError, match=r"its head is a torch\.nn\..*Sequential"):
        trainer(tmp_path, student, teacher, vocab_size=V)


def lora(base: Any) -> Any:
    """The base with adapters that change its outputs from the start, in the base itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, to PEFT
        import peft

        torch.manual_seed(3)
        settings = peft.LoraConfig(
            r=4, lora_dropout=0.5, target_modules=["q_proj", "v_proj"], init_lora_weights=False
        )
        return peft.get_peft_model(base, settings)


@pytest.mark.case(
    "loss",
    "KDTrainer(get_peft_model(base), base): a LoRA student over its own teacher",
    "lies in the student's memory, so that the teacher would change with the student",
)
def test_a_teacher_under_the_students_adapters_is_refused(tmp_path: Path, says: str) -> None:
    base = build("llama", 16, 1)
    with pytest.raises(ValueError, match=says):
        trainer(tmp_path, lora(base), base)


@pytest.mark.case(
    "loss",
    "KDTrainer(model, model), and a teacher that shares one matrix with its student",
    "lies in the student's memory, so that the teacher would change with the student",
)
def test_a_teacher_of_the_students_weights_is_refused(tmp_path: Path, says: str) -> None:
    student, teacher = build("llama", 16, 1), build("llama", 16, 2)
    with pytest.raises(ValueError, match=f"the teacher's model.embed_tokens.weight {says}"):
        trainer(tmp_path, student, student)
    teacher.lm_head.weight.data = student.lm_head.weight.data
    with pytest.raises(ValueError, match=f"the teacher's lm_head.weight {says}"):
        trainer(tmp_path, student, teacher)


def test_two_models_of_one_folder_share_nothing(tmp_path: Path) -> None:
    build("llama", 16, 1).save_pretrained(tmp_path)
    load = transformers.LlamaForCausalLM.from_pretrained
    student, teacher = load(tmp_path), load(tmp_path)
    job = trainer(tmp_path, student, teacher, loss="forward_kl")
    job.train()
    assert job.state.log_history[0]["loss"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.case(
    "loss",
    "KDTrainer(get_peft_model(base), None)",
    "taught by the base with the adapters disabled, as by a copy of the base, step by step",
)
def test_no_teacher_stands_for_the_base_without_adapters(tmp_path: Path) -> None:
    found = []
    for teacher in (build("llama", 16, 1), None):
        student = lora(build("llama", 16, 1))
        torch.manual_seed(5)
        job = trainer(tmp_path, student, teacher, max_steps=3)
        job.train()
        losses = [line["loss"] for line in job.state.log_history if "loss" in line]
        found.append((losses, student.state_dict()))
    (losses, wanted), (ours, weights) = found
    assert losses == ours and losses[0] > 1e-3
    torch.testing.assert_close(weights, wanted, rtol=0, atol=0)
    with pytest.raises(ValueError, match="student is a LlamaForCausalLM without adapters"):
        trainer(tmp_path, build("llama", 16, 1), None)


def experts(coefficient: float, router_logits: bool = True) -> Any:
    """A student with a router, whose forward adds the router's loss."""
    torch.manual_seed(4)
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            vocab_size=V, hidden_size=16, intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, num_local_experts=4,
            num_experts_per_tok=2, router_aux_loss_coef=coefficient, pad_token_id=PAD,
            output_router_logits=router_logits, initializer_range=0.5,
        )
    )  # fmt: skip


@pytest.mark.case(
    "loss",
    "A student with experts (Mixtral) whose router's auxiliary loss has the coefficient 10",
    "10 times that loss is added, its mean over micro-batches, as in the model's own forward",
)
@pytest.mark.parametrize("size,accumulate", [(8, 1), (4, 2)])
def test_the_routers_loss_is_added(tmp_path: Path, size: int, accumulate: int) -> None:
    student, teacher, data = experts(10.0), build("llama", 24, 2), rows()
    wanted = full_loss(student, teacher, data, "forward_kl", {})
    for start in range(0, 8, size):
        batch = collate(data[start : start + size])
        own, bare = (student(**batch, output_router_logits=on).loss for on in (True, False))
        wanted = wanted + (own - bare) / accumulate
    expected = stepped(student, wanted)
    job = trainer(
        tmp_path, student, teacher, loss="forward_kl", train_sampling_strategy="sequential",
        per_device_train_batch_size=size, gradient_accumulation_steps=accumulate,
    )  # fmt: skip
    job.train()
    assert job.state.log_history[0]["loss"] == pytest.approx(wanted.item(), rel=1e-5)
    same(student, expected, **CLOSE)


def test_a_router_without_an_output_adds_nothing(tmp_path: Path) -> None:
    found = []
    for student in (experts(0.0), experts(10.0, router_logits=False)):
        trainer(tmp_path, student, build("llama", 24, 2)).train()
        found.append(student.state_dict())
    torch.testing.assert_close(*found)


@pytest.mark.case(
    "loss",
    "KDTrainer whose teacher bans a token that the student allows, under the reverse KL",
    "step 1: the loss is inf; expected a finite number: one of both gives probability to what the "
    "other gives none",
)
def test_an_infinite_loss_stops_training(tmp_path: Path, says: str) -> None:
    student, teacher = build("llama", 16, 1), build("llama", 24, 2)
    head = teacher.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(V).index_fill_(0, torch.tensor([7]), -torch.inf))
    with pytest.raises(ValueError, match=says):
        trainer(tmp_path, student, teacher, loss="reverse_kl").train()
    for row in (data := rows()):
        row["labels"] = [-100 if label == 7 else label for label in row["labels"]]
    job = trainer(tmp_path, student, teacher, train_dataset=data)
    job.train()
    assert 0 < job.state.log_history[0]["loss"] < 100


@pytest.mark.case(
    "loss",
    "KDTrainer whose teacher has a weight that is NaN",
    "step 1: the loss is nan; expected a finite number: the teacher's hidden states are not finite",
)
def test_a_loss_that_is_no_number_stops_training(tmp_path: Path, says: str) -> None:
    student, teacher = build("llama", 16, 1), build("llama", 24, 2)
    with torch.no_grad():
        teacher.model.norm.weight[3] = torch.nan
    with pytest.raises(ValueError, match=says):
        trainer(tmp_path, student, teacher).train()


@pytest.mark.case(
    "loss",
    "KDTrainer on rows without labels",
    "a batch has no 'labels', found input_ids, attention_mask; expected [B, T], -100 where not "
    "supervised",
)
def test_rows_without_labels_are_refused(tmp_path: Path, says: str) -> None:
    def collate_ids(features: list[Any]) -> Any:
        batch = collate([row | {"labels": row["input_ids"]} for row in features])
        return {name: batch[name] for name in ("input_ids", "attention_mask")}

    data = [{"input_ids": row["input_ids"]} for row in rows()]
    job = trainer(
        tmp_path, build("llama", 16, 1), build("llama", 24, 2),
        train_dataset=data, data_collator=collate_ids,
    )  # fmt: skip
    with pytest.raises(ValueError) as error:
        job.train()
    assert says in str(error.value)


def train_two_steps(folder: Path, processes: int, scope: str) -> None:
    """What a process runs: sixteen rows, shared out; the first process saves the result."""
    student, teacher = build("llama", 16, 1), build("llama", 24, 2)
    size = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4 // processes}
    options = {"max_steps": 2, "train_dataset": rows(16), "loss_settings": {"scope": scope}, **size}
    if processes > 1:
        options["ddp_backend"] = "gloo"
    job = trainer(folder, student, teacher, **options)
    job.train()
    if job.is_world_process_zero():
        losses = [line["loss"] for line in job.state.log_history if "loss" in line]
        torch.save((losses, student.state_dict()), folder / f"{processes}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["batch", "micro"])
def test_two_processes_step_like_one(scope: str, tmp_path: Path) -> None:
    train_two_steps(tmp_path, 1, scope)
    line = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__]
    path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run(
        [sys.executable, *line, str(tmp_path), scope],
        env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (alone, one), (together, two) = (torch.load(tmp_path / f"{n}.pt") for n in (1, 2))
    assert alone == pytest.approx(together, rel=1e-5) and len(alone) == 2
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)


def gkd_trainer(folder: Path, kind: Any, student: Any, teacher: Any, **options: Any) -> Any:
    """One of TRL's GKD trainers on the same rows, for base models without a chat template."""
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig

    words = {f"w{number}": number for number in range(V)}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    names = {"pad_token": "w1", "eos_token": "w2", "unk_token": "w0"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, **names)
    mine = {"train_dataset": Dataset.from_list(rows()), "data_collator": collate}
    mine |= {name: options.pop(name) for name in OWN if name in options}
    options = {"lmbda": 0.0, "bf16": False, "activation_checkpointing": False} | options
    args = arguments(folder, GKDConfig, **options)
    return kind(student, teacher, args=args, processing_class=tokenizer, **mine)


@pytest.fixture
def trl(monkeypatch: pytest.MonkeyPatch) -> Any:
    """TRL's GKD module, where the extra `trl` is installed."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    pytest.importorskip("trl", reason="the extra `trl` is not installed")
    from trl.experimental import gkd

    return gkd


@pytest.mark.parametrize("size,accumulate", [(8, 1), (2, 4)])
@pytest.mark.parametrize("loss,settings", LOSSES)
def test_trl_on_fixed_data_steps_as_kd_loss_says(
    trl: Any, loss: str, settings: Any, size: int, accumulate: int, tmp_path: Path
) -> None:
    student, teacher = build("opt", 16, 1), build("opt", 24, 2)
    expected = full_loss(student, teacher, rows(), loss, settings)
    wanted = stepped(student, expected)
    job = gkd_trainer(
        tmp_path, TRLKDTrainer, student, teacher, loss=loss, loss_settings=settings,
        per_device_train_batch_size=size, gradient_accumulation_steps=accumulate,
    )  # fmt: skip
    job.train()
    assert isinstance(job, trl.GKDTrainer)
    assert job.state.log_history[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)
    same(student, wanted, **CLOSE)


def test_trls_own_loss_is_our_jensen_shannon_on_fixed_data(trl: Any, tmp_path: Path) -> None:
    theirs, ours, teacher = build("llama", 16, 1), build("llama", 16, 1), build("llama", 24, 2)
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    gkd_trainer(tmp_path, trl.GKDTrainer, theirs, teacher, beta=0.3, **options).train()
    own = {"loss": "jsd", "loss_settings": {"beta": 0.3}}
    gkd_trainer(tmp_path, TRLKDTrainer, ours, teacher, **own, **options).train()
    same(ours, dict(theirs.named_parameters()), **CLOSE)


def test_trl_evaluates_and_refuses_generated_data(trl: Any, tmp_path: Path) -> None:
    from datasets import Dataset

    student, teacher, data = build("llama", 16, 1), build("llama", 24, 2), Dataset.from_list(rows())
    expected = full_loss(student, teacher, rows(), "atkd", {}).item()
    found = gkd_trainer(tmp_path, TRLKDTrainer, student, teacher, eval_dataset=data).evaluate()
    assert found["eval_loss"] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="TRLKDTrainer needs a teacher; found None"):
        gkd_trainer(tmp_path, TRLKDTrainer, student, None)
    for options in ({"lmbda": 0.5}, {"seq_kd": True}):
        with pytest.raises(ValueError, match="TRLKDTrainer does not support lmbda or seq_kd"):
            gkd_trainer(tmp_path, TRLKDTrainer, student, teacher, **options)


STANDALONE = """
import sys, pkgutil, importlib
sys.modules["fcntl"] = sys.modules["trl"] = None
from atkd import atkd_loss
import atkd.losses
for each in pkgutil.iter_modules(atkd.losses.__path__):
    importlib.import_module(f"atkd.losses.{each.name}")
from transformers import Trainer
from atkd.integrations import KDTrainer, TRLKDTrainer
assert issubclass(KDTrainer, Trainer)
assert not any("runtime" in name for name in sys.modules if name.startswith("atkd."))
try:
    TRLKDTrainer(None, None)
except ImportError as error:
    print(error)
"""


def test_losses_and_trainers_stand_alone_on_any_system() -> None:
    """Without a module that only some systems have, and without TRL until its trainer is made."""
    done = subprocess.run(
        [sys.executable, "-c", STANDALONE], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith('lacks GKDTrainer; pip install "atkd[trl]"')


def test_a_trainer_that_averages_the_loss_itself_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = SimpleNamespace(Trainer=type("Trainer", (), {}))
    monkeypatch.setitem(sys.modules, "old_transformers", old)
    kind = type("Made", (trainer_class("old_transformers", "Trainer", "trainer"),), {})
    with pytest.raises(ImportError, match=r"Trainer needs transformers 5.19 or newer; pip install"):
        kind(None, teacher=None)


if __name__ == "__main__":
    train_two_steps(Path(sys.argv[1]), 2, sys.argv[2])

"""Losses, training steps, on-policy steps and answers on one GPU, in bfloat16, beside peers.

`make bench-gpu` writes gpu.md beside this file, within eight minutes on an H100 or H200. A peer
that is not installed, or does not run, is named in its row and stops nothing: nothing has to be
installed but torch and transformers. `--device cpu --small` runs the same lines anywhere.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from atkd.losses.fused import Head, fused_kd_loss, fused_targets, weighted_fused_loss  # noqa: E402
from atkd.losses.weighting import Mean  # noqa: E402
from atkd.models.checkpoints import head, hidden_states  # noqa: E402
from atkd.models.generation import decode, likeliest  # noqa: E402

PEERS = ("trl", "liger-kernel", "orda-kernel", "cut-cross-entropy", "triton")
RULE = "| --- | ---: | ---: |"
TITLE = """# On a GPU

Written by `{command}` on {machine}; {versions}.

Bfloat16 hidden states, heads and autocast; medians of {rounds} rounds after one that is not
counted; memory is what a pass adds to what was allocated. Weights and states are random: their
shapes are the real ones.
"""


@dataclass(frozen=True)
class Sizes:
    """What is measured: tokens and (V, student width, teacher width) of losses; models of steps."""

    tokens: int
    losses: tuple[tuple[int, int, int], ...]
    student: tuple[int, int, int]
    teachers: dict[str, tuple[int, int, int]]
    vocabulary: int
    rows: int
    length: int
    answer: int


OPT = {
    "125M": (12, 768, 12),
    "1.3B": (24, 2048, 32),
    "6.7B": (32, 4096, 32),
}  # layers, width, heads
REAL = Sizes(
    8192, ((50272, 768, 2048), (128256, 2048, 4096)), OPT["125M"],
    {name: OPT[name] for name in ("1.3B", "6.7B")}, 50272, 16, 512, 128,
)  # fmt: skip
SMALL = Sizes(32, ((64, 8, 16),), (1, 16, 2), {"toy": (2, 32, 2)}, 64, 4, 16, 4)


class Clock:
    """Times calls on a device and watches its memory; `until`: when no more rows are begun."""

    def __init__(self, device: str, rounds: int, budget: float) -> None:
        self.device, self.rounds = torch.device(device), rounds
        self.until = time.monotonic() + budget

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _memory(self, peak: bool = False) -> int:
        if self.device.type != "cuda":
            return 0
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()

    def seconds(self, call: Callable[[], Any]) -> tuple[float, float]:
        """Median seconds of a call, and the GB that it adds at its highest."""
        call()
        self._wait()
        before = self._memory()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        times = []
        for _ in range(self.rounds):
            start = time.perf_counter()
            call()
            self._wait()
            times.append(time.perf_counter() - start)
        return median(times), (self._memory(peak=True) - before) / 1e9

    def row(self, name: str, call: Callable[[], Any], unit: Callable[[float], str]) -> str:
        """A row of a table: what was measured, or why it was not."""
        if time.monotonic() > self.until:
            return f"| {name} | not measured: out of time | |"
        try:
            spent, added = self.seconds(call)
        except Exception as error:  # of peers, of any kind
            why = f"{type(error).__name__}: {error}".splitlines()[0][:90]
            return f"| {name} | not measured: {why} | |"
        finally:
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return f"| {name} | {unit(spent)} | {added:.2f} |"


def milliseconds(seconds: float) -> str:
    """A loss's time."""
    return f"{1000 * seconds:.2f}"


def rate(count: int) -> Callable[[float], str]:
    """Tokens a second, of so many a call."""
    return lambda seconds: f"{count / seconds:,.0f}"


# Losses.


def ends(sizes: tuple[int, int, int], tokens: int, device: torch.device) -> dict[str, Tensor]:
    """Hidden states, heads and targets."""
    vocabulary, student, teacher = sizes
    torch.manual_seed(0)
    make = {"device": device, "dtype": torch.bfloat16}
    found = {
        "student_hidden": torch.randn(tokens, student, **make),
        "student_head": torch.randn(vocabulary, student, **make) * student**-0.5,
        "teacher_hidden": torch.randn(tokens, teacher, **make),
        "teacher_head": torch.randn(vocabulary, teacher, **make) * 4.5 * teacher**-0.5,
        "targets": torch.randint(vocabulary, (tokens,), device=device),
    }
    for name in ("student_hidden", "student_head"):
        found[name].requires_grad_()
    return found


def products(parts: dict[str, Tensor]) -> None:
    """The bare matrix products of a distillation loss whose uncertainty is known."""
    hidden, weight, theirs, their_weight = (each.detach() for each in list(parts.values())[:4])
    slope_NV = hidden @ weight.T
    theirs @ their_weight.T
    slope_NV @ weight
    slope_NV.T @ hidden


def backward(parts: dict[str, Tensor], loss: Callable[[], Tensor]) -> Callable[[], None]:
    """A forward and backward pass."""

    def call() -> None:
        parts["student_hidden"].grad = parts["student_head"].grad = None
        loss().backward()

    return call


def ours(name: str, parts: dict[str, Tensor], **known: Tensor) -> Callable[[], Tensor]:
    """A loss of this package."""
    return lambda: fused_kd_loss(name, *parts.values(), **known)


def ours_alone(parts: dict[str, Tensor]) -> Tensor:
    """This package's cross-entropy."""
    hidden, weight, _, _, targets = parts.values()
    shares = Mean().weights(torch.zeros(len(targets), device=targets.device))
    return weighted_fused_loss(
        "cross_entropy", hidden, Head(weight), None, None, targets, shares, {}
    )


def trl_tiles(parts: dict[str, Tensor], beta: float) -> Tensor:
    """TRL's tiles: 0 is the forward, 1 the reverse KL."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    hidden, weight, theirs, their_weight, _ = parts.values()
    found, _ = ChunkedDivergenceFunction.apply(
        hidden, weight, None, theirs, their_weight, None, beta
    )
    return found.mean()


def liger(parts: dict[str, Tensor]) -> Tensor:
    """Liger's chunked JSD without its hard-label part."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    return LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0)(*parts.values())


def orda(parts: dict[str, Tensor], divergence: str) -> Tensor:
    """orda-kernel's distillation loss, without its cross-entropy."""
    import orda_kernel

    hidden, weight, theirs, their_weight, targets = parts.values()
    teacher = orda_kernel.SeparateTeacher(theirs, their_weight)
    options = {"student_ce_weight": 0.0, "kl_weight": 1.0, "kl_divergence": divergence}
    return orda_kernel.distillation_loss(hidden, weight, targets, teacher, **options).loss


def cut_cross_entropy(parts: dict[str, Tensor]) -> Tensor:
    """Apple's: what a loss without a teacher costs at least."""
    from cut_cross_entropy import linear_cross_entropy

    hidden, weight, _, _, targets = parts.values()
    return linear_cross_entropy(hidden, weight, targets)


def contestants(parts: dict[str, Tensor]) -> dict[str, Callable[[], Tensor]]:
    """Name in the table -> what computes a loss."""
    theirs = parts["teacher_hidden"], Head(parts["teacher_head"]), parts["targets"]
    known = fused_targets(*theirs)._asdict()
    return {
        "ATKD, uncertainty known": ours("atkd", parts, **known),
        "ATKD, unknown": ours("atkd", parts),
        "forward KL": ours("forward_kl", parts),
        "forward KL, TRL's tiles": lambda: trl_tiles(parts, 0.0),
        "forward KL, orda-kernel": lambda: orda(parts, "forward"),
        "reverse KL": ours("reverse_kl", parts),
        "reverse KL, TRL's tiles": lambda: trl_tiles(parts, 1.0),
        "reverse KL, orda-kernel": lambda: orda(parts, "reverse"),
        "JSD": ours("jsd", parts),
        "JSD, TRL's tiles": lambda: trl_tiles(parts, 0.5),
        "JSD, Liger": lambda: liger(parts),
        "JSD, orda-kernel": lambda: orda(parts, "skew_js"),
        "DKD": ours("dkd", parts, **known),
        "DKD, orda-kernel": lambda: orda(parts, "dkd"),
        "cross-entropy": lambda: ours_alone(parts),
        "cross-entropy, cut-cross-entropy": lambda: cut_cross_entropy(parts),
    }


def losses_at(clock: Clock, tokens: int, shape: tuple[int, int, int]) -> str:
    """The table of a vocabulary and two widths."""
    parts = ends(shape, tokens, clock.device)
    rows = [clock.row("four bare products", lambda: products(parts), milliseconds)]
    rows += [
        clock.row(name, backward(parts, loss), milliseconds)
        for name, loss in contestants(parts).items()
    ]
    vocabulary, student, teacher = shape
    about = f"N = {tokens}, V = {vocabulary}, widths {student} / {teacher}:"
    return "\n".join([about, "", "| forward and backward | ms | GB added |", RULE, *rows])


def losses(clock: Clock, sizes: Sizes) -> str:
    """A table for every vocabulary."""
    return "\n\n".join(
        ["## Losses", *(losses_at(clock, sizes.tokens, shape) for shape in sizes.losses)]
    )


# Training steps and answers.


def opt(shape: tuple[int, int, int], vocabulary: int, context: int, device: torch.device) -> Any:
    """OPT's architecture with random weights."""
    from transformers import OPTConfig, OPTForCausalLM

    layers, width, heads = shape
    config = OPTConfig(
        vocab_size=vocabulary, dropout=0.0, num_hidden_layers=layers, hidden_size=width,
        num_attention_heads=heads, ffn_dim=4 * width, word_embed_proj_dim=width,
        max_position_embeddings=context,
    )  # fmt: skip
    with device:
        return OPTForCausalLM(config)


def step(student: Any, loss: Callable[[Tensor], Tensor], ids_BT: Tensor) -> Callable[[], None]:
    """An optimiser step with bfloat16 autocast over float32 weights."""
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-6, fused=True)

    def call() -> None:
        with torch.autocast(ids_BT.device.type, torch.bfloat16):
            hidden_BTd = hidden_states(student, ids_BT, torch.ones_like(ids_BT))
            found = loss(hidden_BTd[:, :-1].flatten(0, 1))
        found.backward()
        optimiser.step()
        optimiser.zero_grad()

    return call


def steps_under(clock: Clock, sizes: Sizes, name: str) -> list[str]:
    """Rows of a teacher: SFT, by its cache, beside it, on the student's own answers."""
    room = sizes.length + sizes.answer
    student = opt(sizes.student, sizes.vocabulary, room, clock.device)
    teacher = opt(sizes.teachers[name], sizes.vocabulary, room, clock.device)
    teacher = teacher.to(torch.bfloat16).eval()
    ids_BT = torch.randint(4, sizes.vocabulary, (sizes.rows, sizes.length), device=clock.device)
    y_N = ids_BT[:, 1:].flatten()
    own, theirs = head(student).weight, head(teacher).weight.detach()

    def taught() -> Tensor:
        with torch.no_grad():
            return hidden_states(teacher, ids_BT, torch.ones_like(ids_BT))[:, :-1].flatten(0, 1)

    kept_Nd = taught()
    known = fused_targets(kept_Nd, Head(theirs), y_N)._asdict()
    shares = Mean().weights(torch.zeros(len(y_N), device=clock.device))
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "SFT": lambda h: weighted_fused_loss(
            "cross_entropy", h, Head(own), None, None, y_N, shares, {}
        ),
        "ATKD, cached": lambda h: fused_kd_loss("atkd", h, own, kept_Nd, theirs, y_N, **known),
        "ATKD, live": lambda h: fused_kd_loss("atkd", h, own, taught(), theirs, y_N),
    }
    rows = [
        clock.row(f"{way}, 125M <- {name}", step(student, loss, ids_BT), rate(len(y_N)))
        for way, loss in ways.items()
    ]
    return [*rows, _on_policy(clock, sizes, student, teacher, name)]


def steps(clock: Clock, sizes: Sizes) -> str:
    """A batch of whole sequences under every teacher."""
    about = f"{sizes.rows} sequences of {sizes.length}; on-policy: answers of {sizes.answer}."
    rows = [row for name in sizes.teachers for row in steps_under(clock, sizes, name)]
    titles = "| step | supervised tokens/s | GB added |"
    return "\n".join(["## Training steps", "", about, "", titles, RULE, *rows])


class Ids:
    """What `decode` asks of a tokenizer, without any text; no id ends an answer."""

    pad_token_id, eos_token_id = 1, -1

    def __init__(self, count: int) -> None:
        self.count = count

    def get_vocab(self) -> dict[str, int]:
        """Ids by name."""
        return {str(each): each for each in range(self.count)}


def _on_policy(clock: Clock, sizes: Sizes, student: Any, teacher: Any, name: str) -> str:
    """A GKD step with ATKD: the student answers, the teacher looks at the answers."""
    half = sizes.length // 2
    asked_BT = torch.randint(4, sizes.vocabulary, (sizes.rows, half), device=clock.device)
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-6, fused=True)
    tokenizer, rooms = Ids(sizes.vocabulary), [sizes.answer] * sizes.rows

    def call() -> None:
        with torch.autocast(clock.device.type, torch.bfloat16):
            told_BS = decode(
                student, asked_BT, torch.ones_like(asked_BT), rooms, tokenizer, likeliest
            )
            ids_BT = torch.cat([asked_BT, told_BS], 1)
            seen_BT = torch.ones_like(ids_BT)
            states = hidden_states(student, ids_BT, seen_BT)[:, half - 1 : -1].flatten(0, 1)
            with torch.no_grad():
                theirs = hidden_states(teacher, ids_BT, seen_BT)[:, half - 1 : -1].flatten(0, 1)
            weights = head(student).weight, theirs, head(teacher).weight.detach()
            fused_kd_loss("atkd", states, *weights, told_BS.flatten()).backward()
        optimiser.step()
        optimiser.zero_grad()

    return clock.row(f"on-policy ATKD, 125M <- {name}", call, rate(sizes.rows * sizes.answer))


def answers_of(clock: Clock, sizes: Sizes, shape: tuple[int, int, int], name: str) -> list[str]:
    """Rows of a model: by this harness, and by `generate`."""
    model = opt(shape, sizes.vocabulary, sizes.length + sizes.answer, clock.device)
    model = model.to(torch.bfloat16).eval()
    ids_BT = torch.randint(4, sizes.vocabulary, (sizes.rows, sizes.length)).to(clock.device)
    seen_BT, rooms = torch.ones_like(ids_BT), [sizes.answer] * sizes.rows
    tokenizer = Ids(sizes.vocabulary)
    model.generation_config.eos_token_id = None
    options = {"max_new_tokens": sizes.answer, "do_sample": False, "pad_token_id": 1}
    ways: dict[str, Callable[[], Tensor]] = {
        "this harness": lambda: decode(model, ids_BT, seen_BT, rooms, tokenizer, likeliest),
        "transformers' generate": lambda: model.generate(
            input_ids=ids_BT, attention_mask=seen_BT, **options
        ),
    }
    unit = rate(sizes.rows * sizes.answer)
    return [clock.row(f"{name}, {who}", call, unit) for who, call in ways.items()]


def answers(clock: Clock, sizes: Sizes) -> str:
    """Greedy answers, here and by `generate`, to the same batches."""
    models = {"125M": sizes.student, **sizes.teachers}
    rows = [row for name, of in models.items() for row in answers_of(clock, sizes, of, name)]
    titles = "| answers | new tokens/s | GB added |"
    return "\n".join(["## Answers", "", titles, RULE, *rows])


def machine(device: torch.device) -> str:
    """The device's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"a processor ({platform.machine()})"


def versions() -> str:
    """Of Python, torch, transformers and the peers."""
    found = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    for name in ("transformers", *PEERS):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def main() -> None:
    """Measures and writes the page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="tiny sizes: a test of this script")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=420, help="seconds; what is left is named")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU; --device cpu --small tests the script without one")
    clock, sizes = Clock(args.device, args.rounds, args.budget), SMALL if args.small else REAL
    command = "python benchmarks/gpu.py" + (" --device cpu --small" if args.small else "")
    about = {"command": command, "machine": machine(clock.device), "versions": versions()}
    parts = [TITLE.format(**about, rounds=args.rounds)]
    for section in (losses, answers, steps):
        parts.append(section(clock, sizes))
        print(parts[-1], "\n", flush=True)
        args.output.write_text("\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

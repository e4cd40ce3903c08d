"""Time and extra peak memory of forward and backward of one loss, all contestants side by side.

Every contestant runs in a process of its own, which first reads the same inputs and then answers
to "time" (one run) and "peak" (one run under watch of its resident memory). Contestants take turns
in rounds, so that a busy moment of the machine meets all alike; the least time of all counts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

V, STUDENT, TEACHER = 50272, 768, 2048
ROUNDS = {
    (512, V, STUDENT, TEACHER): 1,
    (2048, V, STUDENT, TEACHER): 1,
}
THREADS = 2


def inputs(count: int, vocabulary: int, student: int, teacher: int) -> dict[str, Any]:
    """Hidden states, heads, targets drawn from the teacher, whose uncertainty is thus spread."""
    import torch

    from atkd.losses.fused import Head, fused_targets

    torch.manual_seed(0)
    parts = {
        "student_hidden": torch.randn(count, student).requires_grad_(),
        "student_head": (torch.randn(vocabulary, student) * student**-0.5).requires_grad_(),
        "teacher_hidden": torch.randn(count, teacher),
        "teacher_head": torch.randn(vocabulary, teacher) * 4.5 * teacher**-0.5,
    }
    targets = [
        (hidden @ parts["teacher_head"].T).softmax(1).multinomial(1)[:, 0]
        for hidden in parts["teacher_hidden"].split(128)
    ]
    parts["targets"] = torch.cat(targets)
    ends = parts["teacher_hidden"], Head(parts["teacher_head"]), parts["targets"]
    return parts | fused_targets(*ends)._asdict()


def make(size: tuple[int, ...], path: str) -> None:
    """Writes the inputs, so that the contestants need not each make them."""
    import torch

    torch.set_num_threads(THREADS)
    torch.save(inputs(*size), path)


def products(parts: dict[str, Any], count: int) -> None:
    """The bare matrix products of a loss with known (4) or unknown (5) uncertainty."""
    hidden, head, theirs, head_t = (each.detach() for each in list(parts.values())[:4])
    slope = hidden @ head.T
    for _ in range(count - 3):
        theirs @ head_t.T
    slope @ head
    slope.T @ hidden


def naive(name: str, *ends: Tensor) -> Any:
    """The loss as one writes it down: probabilities of all tokens, their logarithms, autograd."""
    from torch.nn.functional import kl_div

    hidden, head, theirs, head_t, y = ends
    s, t = hidden @ head.T, theirs @ head_t.T
    if name == "reverse_kl":
        q, p = s.log_softmax(1), t.log_softmax(1)
        return (q.exp() * (q - p)).sum(1).mean()
    if name == "tvd":
        return 0.5 * (s.softmax(1) - t.softmax(1)).abs().sum(1).mean()
    if name == "jsd":
        q, p = s.softmax(1), t.softmax(1)
        log_m = (0.5 * (q + p)).log()
        return 0.5 * (p * (p.log() - log_m) + q * (q.log() - log_m)).sum(1).mean()
    q, p = s.log_softmax(1), t.softmax(1)
    if name == "forward_kl":
        return kl_div(q, p, reduction="batchmean")
    q_g, p_g = (each.gather(1, y[:, None])[:, 0] for each in (q.exp(), p))
    u, v = 1 - p_g, 1 - q_g
    tkd = p_g * (p_g / q_g).log() + u * (u / v).log()
    p_hat = p.scatter(1, y[:, None], 0.0) / u[:, None]
    q_hat = q.exp() / v[:, None]
    dkd = (p_hat * (p_hat.clamp(min=1e-30).log() - q_hat.log())).sum(1)
    easy = u < u.median()
    return 0.2 * dkd[easy].mean() + 0.8 * (tkd + dkd)[~easy].mean()


def plain(name: str, *ends: Tensor) -> Any:
    """This package's loss on full logits."""
    from atkd import kd_loss

    hidden, head, theirs, head_t, y = ends
    return kd_loss(name, hidden @ head.T, theirs @ head_t.T, y)


def trl_gkd(*ends: Tensor) -> Any:
    """TRL's generalised JSD, beta 0.5, as its GKD trainer calls it."""
    from trl.experimental.gkd import GKDTrainer

    hidden, head, theirs, head_t, y = ends
    return GKDTrainer.generalized_jsd_loss(hidden @ head.T, theirs @ head_t.T, labels=y, beta=0.5)


def liger(*ends: Tensor) -> Any:
    """Liger's chunked JSD, beta 0.5, without its hard-label part."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    options = {"weight_hard_loss": 0.0, "weight_soft_loss": 1.0, "compiled": False}
    return LigerFusedLinearJSDLoss(**options)(*ends)


def contestants(parts: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Name in the table -> what computes a loss (or, for the floors, only multiplies)."""
    from atkd.losses.fused import fused_kd_loss

    ends = list(parts.values())[:5]
    known = {key: parts[key] for key in ("uncertainty", "log_normaliser")}

    def fused(name: str, **settings: Any) -> Callable[[], Any]:
        return lambda: fused_kd_loss(name, *ends, **settings)

    return {
        "four bare products": lambda: products(parts, 4),
        "five bare products": lambda: products(parts, 5),
        "ATKD fused, uncertainty known": fused("atkd", **known),
        "ATKD fused, unknown": fused("atkd"),
        "ATKD fused, known, bfloat16 products": fused("atkd", **known, products="bfloat16"),
        "ATKD plain": lambda: plain("atkd", *ends),
        "ATKD naive torch": lambda: naive("atkd", *ends),
        "forward KL fused": fused("forward_kl"),
        "forward KL fused, bfloat16 products": fused("forward_kl", products="bfloat16"),
        "forward KL plain": lambda: plain("forward_kl", *ends),
        "forward KL naive torch": lambda: naive("forward_kl", *ends),
        "JSD fused": fused("jsd"),
        "JSD Liger, chunked": lambda: liger(*ends),
        "JSD TRL, GKD trainer's": lambda: trl_gkd(*ends),
    }


def step(compute: Callable[[], Any], parts: dict[str, Any]) -> float:
    """Seconds of one forward and backward pass."""
    for each in parts.values():
        each.grad = None
    start = time.perf_counter()
    loss = compute()
    if loss is not None:
        loss.backward()
    return time.perf_counter() - start


def resident(key: str) -> int:
    """A line of /proc/self/status in bytes: VmRSS now, VmHWM at its highest."""
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def peak(compute: Callable[[], Any], parts: dict[str, Any]) -> tuple[float, float]:
    """Seconds, and megabytes by which a pass raises the resident memory at its highest."""
    for each in parts.values():
        each.grad = None
    with open("/proc/self/clear_refs", "w", encoding="utf-8") as control:
        control.write("5")  # VmHWM starts anew
    before = resident("VmRSS")
    seconds = step(compute, parts)
    return seconds, (resident("VmHWM") - before) / 1e6


def serve(name: str, path: str) -> None:
    """A contestant's process: reads its inputs, then answers one line per line asked."""
    import torch

    torch.set_num_threads(THREADS)
    parts = torch.load(path)
    compute = contestants(parts)[name]
    few = {key: each if "head" in key else each[:8] for key, each in parts.items()}
    step(contestants(few)[name], parts)  # what libraries load and set up once is not the loss's
    print("ready", flush=True)
    for line in sys.stdin:
        watched = line.strip() == "peak"
        seconds, mb = peak(compute, parts) if watched else (step(compute, parts), 0.0)
        print(seconds, mb, flush=True)


class Contestant:
    """A process that stays idle until it is its turn."""

    def __init__(self, name: str, path: str) -> None:
        command = [sys.executable, __file__, "--serve", name, "--inputs", path]
        quiet = os.environ | {"TRL_EXPERIMENTAL_SILENCE": "1", "OMP_NUM_THREADS": str(THREADS)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=quiet)
        self.name, self.times = name, list[float]()
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{name}: did not start")

    def ask(self, what: str) -> float:
        """One measurement; its time counts, its memory is returned."""
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        seconds, mb = map(float, self.process.stdout.readline().split())
        self.times.append(seconds)
        return mb

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()


def measure(size: tuple[int, ...], rounds: int, only: str) -> list[dict[str, Any]]:
    """One row per contestant: least seconds and extra megabytes."""
    import torch
    from tqdm import tqdm

    blank = dict.fromkeys([*"abcde", "uncertainty", "log_normaliser"], torch.zeros(1))
    names = [name for name in contestants(blank) if only in name or "four" in name]
    memory, runs = {}, []
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "inputs.pt")
        make(size, path)
        for name in tqdm(names, desc=f"losses {size}"):
            runs.append(Contestant(name, path))
            memory[name] = runs[-1].ask("peak")
    for _ in range(rounds):
        for one in runs:
            one.ask("time")
    for one in runs:
        one.close()
    least = {one.name: min(one.times) for one in runs}
    floor = least[names[0]]
    return [
        {"name": name, "seconds": least[name], "ratio": least[name] / floor, "mb": memory[name]}
        for name in names
    ]


def table(size: tuple[int, ...], rows: list[dict[str, Any]]) -> str:
    """Markdown of one size."""
    count, vocabulary, student, teacher = size
    gradient = vocabulary * student * 4 / 1e6
    lines = [
        f"N = {count}, V = {vocabulary}, widths {student} / {teacher} "
        f"(the head's gradient, {gradient:.0f} MB, is part of the memory):",
        "",
        "| loss | time, s | x four products | extra peak memory, MB |",
        "| --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        seconds = f"{row['seconds']:.3f}" if row["seconds"] >= 0.1 else f"{row['seconds']:.4f}"
        memory = "" if "bare" in row["name"] else f"{row['mb']:.0f}"
        lines.append(f"| {row['name']} | {seconds} | {row['ratio']:.2f} | {memory} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the tables of losses, or serves one contestant."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--inputs", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, nargs=4, help="N V student-width teacher-width")
    parser.add_argument("--rounds", type=int, help="after the first, which watches the memory")
    parser.add_argument("--only", default="", help="contestants whose name holds this text")
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve, args.inputs)
    for size in [tuple(args.size)] if args.size else ROUNDS:
        rounds = args.rounds or ROUNDS.get(size, 3)
        print(table(size, measure(size, rounds, args.only)), "\n", sep="", flush=True)


if __name__ == "__main__":
    main()

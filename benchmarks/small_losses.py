"""What losses cost at small vocabularies, as multiples of their four bare matrix products.

One process on one thread, whose freed memory is kept as in training; contestants take turns, and a
number is the median of their processor times over that of the products. Other processes slow all
of them alike, so that ratios hold on a machine that is not idle, where times would not.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from losses import inputs, naive, products

SIZES = {  # tokens, vocabulary, widths of student and teacher -> rounds
    (600, 1290, 64, 128): 40,
    (2000, 1290, 64, 128): 20,
    (512, 640, 64, 128): 60,
    (512, 4000, 128, 128): 15,
    (2048, 4000, 128, 128): 6,
    (512, 16000, 128, 128): 6,
}
WORLD = 1290  # rows
LOSSES = {
    "forward_kl": "forward KL",
    "reverse_kl": "reverse KL",
    "jsd": "JSD",
    "tvd": "total variation",
    "atkd": "ATKD",
}


def contestants(parts: dict[str, Any]) -> dict[tuple[str, str], Callable[[], Any]]:
    """(loss, form) -> what computes it."""
    from atkd.losses.fused import fused_kd_loss

    ends = list(parts.values())[:5]
    known = {key: parts[key] for key in ("uncertainty", "log_normaliser")}
    found: dict[tuple[str, str], Callable[[], Any]] = {("", "bare"): lambda: products(parts, 4)}
    for name in LOSSES:
        found[name, "naive"] = lambda name=name: naive(name, *ends)
        found[name, "fused"] = lambda name=name: fused_kd_loss(name, *ends)
        found[name, "cached"] = lambda name=name: fused_kd_loss(name, *ends, **known)
    return found


def step(compute: Callable[[], Any], parts: dict[str, Any]) -> float:
    """Processor seconds of one forward and backward pass."""
    for each in parts.values():
        each.grad = None
    start = time.process_time()
    loss = compute()
    if loss is not None:
        loss.backward()
    return time.process_time() - start


def measure(size: tuple[int, ...], rounds: int) -> dict[tuple[str, str], float]:
    """Median of each contestant over that of the bare products."""
    from tqdm import tqdm

    parts = inputs(*size)
    found = contestants(parts)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in found}
    for _ in tqdm(range(rounds + 1), desc=f"small losses {size}"):
        for key, compute in found.items():
            times[key].append(step(compute, parts))
    middle = {key: statistics.median(each[1:]) for key, each in times.items()}
    return {key: each / middle["", "bare"] for key, each in middle.items()}


def rows(size: tuple[int, ...], ratios: dict[tuple[str, str], float]) -> list[str]:
    """Markdown, a row for each loss."""
    count, vocabulary, student, teacher = size
    where = f"{vocabulary}{' (the world)' if vocabulary == WORLD else ''} | {count} | "
    where += f"{student} / {teacher}"
    made = []
    for name, title in LOSSES.items():
        plain, fused, cached = (ratios[name, form] for form in ("naive", "fused", "cached"))
        shown = f"{plain:.2f} | {fused:.2f} | {cached:.2f} | {fused / plain:.2f}"
        made.append(f"| {where} | {title} | {shown} |")
    return made


def main() -> None:
    """Prints the table of losses at small vocabularies."""
    import torch

    from atkd.models.checkpoints import keep_freed_memory

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, help="of every size")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print("| vocabulary | tokens | widths | loss | naive torch | fused | cached | fused / naive |")
    print("| ---: | ---: | ---: | :-- | ---: | ---: | ---: | ---: |")
    for size, rounds in SIZES.items():
        print(*rows(size, measure(size, args.rounds or rounds)), sep="\n", flush=True)


if __name__ == "__main__":
    main()

"""How far the losses are from the equations, and the tiled form from the plain one: worst cases.

`python benchmarks/accuracy.py > benchmarks/accuracy.md`. Its reference is float64.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from atkd import fused_kd_loss, kd_loss
from atkd.losses.divergences import uncertainty

NAMES = ("target_weight", "diversity_weight", "easy_weight", "hard_fraction", "beta")
TEXT = """# Accuracy of the losses

Written by `python benchmarks/accuracy.py --cases {} > benchmarks/accuracy.md`, torch {}.
Worst relative error of a row's cases: 8 to 200 tokens, 3 to 4800 vocabulary rows, logits with a
standard deviation of 0.5 to 4; beta, weights, splits and tiles at random; targets from the teacher
or evenly. A gradient's error is the norm of the difference over its norm; that of the total
variation jumps where p = q, so that rounding may turn the sign of an outcome.

*float64*, *float32*: `kd_loss` on logits of that dtype against a float64 reference written from the
definitions. *tiled*: `fused_kd_loss` in float32 against `kd_loss` on the float32 logits, gradients
of hidden states and head. ATKD's splits all rank the same uncertainties.

| Loss | Cases | float64: value | gradient | float32: value | gradient | tiled: value | hidden | head |
| :-- | --: | --: | --: | --: | --: | --: | --: | --: |"""  # noqa: E501


def kl(a: Tensor, b: Tensor) -> Tensor:
    return (torch.xlogy(a, a) - torch.xlogy(a, b)).sum(-1)


def jsd(p: Tensor, q: Tensor, beta: float) -> Tensor:
    m = beta * p + (1 - beta) * q
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


# D(p, q) of each row of two tables of probabilities, from its definition.
DEFINITIONS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "forward_kl": lambda p, q, beta: kl(p, q),
    "reverse_kl": lambda p, q, beta: kl(q, p),
    "jsd": jsd,
    "tvd": lambda p, q, beta: (p - q).abs().sum(-1) / 2,
    "kl_mixture": lambda p, q, beta: 0.9 * kl(p, q) + 0.1 * kl(q, p),
}
LOSSES = [
    *((name, None) for name in DEFINITIONS),
    *((name, of) for name in ("dkd", "atkd") for of in DEFINITIONS),
]


def is_easy(u: Tensor, share: float, split: str) -> Tensor:
    """Which tokens the split calls easy."""
    ordered, hard = u.sort().values, round(share * len(u))
    if split == "topk":
        return u < ordered[-hard] if hard else u > -1
    below = u < ordered[int((1 - share) * (len(u) - 1))]
    return ~below if split == "inverse" else below


def reference(name: str, logits: Tensor, teacher: Tensor, *ends: Tensor, **settings) -> Tensor:
    """The loss from its definition, in float64."""
    (gold, u), both = ends, [each.double().softmax(1) for each in (teacher, logits)]
    a, b, weight, share, beta = (settings[key] for key in NAMES)
    if name in DEFINITIONS:
        return DEFINITIONS[name](*both, beta).mean()
    others = torch.arange(logits.shape[1]) != gold[:, None]
    rests = [each[others].view(len(gold), -1) for each in both]
    pairs = [torch.stack((p[~others], rest.sum(1)), 1) for p, rest in zip(both, rests, strict=True)]
    rests = [rest / rest.sum(1, keepdim=True) for rest in rests]
    target, diversity = (DEFINITIONS[settings["divergence"]](*x, beta) for x in (pairs, rests))
    if name == "dkd":
        return (a * target + b * diversity).mean()
    easy = is_easy(u, share, settings["split"])
    first = weight * diversity[easy].sum() / max(int(easy.sum()), 1)
    return first + (1 - weight) * (target + diversity)[~easy].sum() / max(int((~easy).sum()), 1)


def errors(ours: Tensor, exact: Tensor, one: list[Tensor], two: list[Tensor]) -> list[float]:
    """Relative error of the value, then of each gradient."""
    found = [ours.detach(), *torch.autograd.grad(ours, one)]
    wanted = [exact.detach(), *torch.autograd.grad(exact, two)]
    return [((a - b).norm() / b.norm()).item() for a, b in zip(found, wanted, strict=True)]


def case(name: str, of: str | None, noise: random.Random) -> list[float]:
    """The errors of one random case, in the order of the table's columns."""
    torch.manual_seed(noise.randrange(2**31))
    n, v = round(8 * 25 ** noise.random()), round(3 * 1600 ** noise.random())
    d, scale = noise.choice((4, 16, 64)), noise.uniform(0.5, 4)
    settings = {
        **{key: noise.uniform(0.05, 0.95) for key in NAMES},
        "divergence": of or "forward_kl",  # a pure divergence does not look at it
        "split": noise.choice(("median", "topk", "inverse")),
    }
    hidden, theirs = (torch.randn(n, d) * scale for _ in range(2))
    head, teacher_head = (torch.randn(v, d) * d**-0.5 for _ in range(2))
    wanted = [hidden.requires_grad_(), head.requires_grad_()]
    logits, teacher, found = hidden @ head.T, theirs @ teacher_head.T, []
    gold = (teacher * (noise.random() < 0.5)).softmax(1).multinomial(1)[:, 0]
    for dtype in (torch.float64, torch.float32):
        one, u = logits.detach().to(dtype).requires_grad_(), uncertainty(teacher.to(dtype), gold)
        two = one.detach().double().requires_grad_()
        ours = kd_loss(name, one, teacher.to(dtype), gold, **settings)
        found += errors(ours, reference(name, two, teacher, gold, u, **settings), [one], [two])
    ends = (hidden, head, theirs, teacher_head, gold)
    tiled = fused_kd_loss(name, *ends, uncertainty=u, tile=noise.randint(1, n), **settings)
    return found + errors(tiled, kd_loss(name, logits, teacher, gold, **settings), wanted, wanted)


def main() -> None:
    """Prints the page."""
    parser = argparse.ArgumentParser(prog="python benchmarks/accuracy.py", description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="random cases a row (default: 200)")
    cases = parser.parse_args().cases
    print(TEXT.format(cases, torch.__version__))
    for name, of in LOSSES:
        noise = random.Random(f"{name}/{of}")
        columns = zip(*(case(name, of, noise) for _ in range(cases)), strict=True)
        worst = " | ".join(f"{max(column):.0e}" for column in columns)
        print(f"| {name}{f' of {of}' if of else ''} | {cases} | {worst} |", flush=True)


if __name__ == "__main__":
    main()

"""How fast a machine is: a few numbers, measured here or assumed of a kind of GPU.

A step of small models takes time by the operation, one of large ones by the floating-point
operations or by the bytes of the weights; the numbers say how much of each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """`start`: seconds that a job with models takes before work begins. `light`: seconds of a job
    without. `layer`: seconds per layer and training step whatever its size. `token`: the same per
    layer and new token of an answer. `operations`: floating-point operations a second in training.
    `bandwidth`: bytes a second at which weights are read. `memory`: bytes for models; 0 if that is
    the host's. `jobs`: how many run at once. `about`: where the numbers come from.
    """

    start: float
    light: float
    layer: float
    token: float
    operations: float
    bandwidth: float
    memory: float = 0.0
    jobs: int = 1
    about: str = ""


GIB = 2.0**30
ASSUMED = (
    "assumed, not measured: 35 % of the peak in bfloat16 (autocast), 60 % of the memory's bandwidth"
)


def gpu(peak: float, bandwidth: float, memory: float) -> Machine:
    """A GPU by its data sheet: operations and bytes a second, GiB."""
    return Machine(
        start=30.0, light=1.0, layer=2.5e-4, token=1.2e-4, operations=0.35 * peak,
        bandwidth=0.6 * bandwidth, memory=memory * GIB, about=ASSUMED,
    )  # fmt: skip


GPUS = {
    "rtx4090": gpu(165e12, 1.0e12, 24),
    "a100-40": gpu(312e12, 1.55e12, 40),
    "a100": gpu(312e12, 2.0e12, 80),
    "h100": gpu(989e12, 3.35e12, 80),
}


def measured(jobs: int = 1) -> Machine:
    """This machine's processor, on one thread: steps of two small models, in ten seconds or so."""
    import torch

    torch.set_num_threads(1)
    small, large = _steps(2, 64), _steps(4, 256)
    # Two shapes, two unknowns: time = layers * layer + operations / rate.
    (time_1, layers_1, work_1), (time_2, layers_2, work_2) = small[:3], large[:3]
    rate = (work_2 / layers_2 - work_1 / layers_1) / (time_2 / layers_2 - time_1 / layers_1)
    layer = max(0.0, time_1 / layers_1 - work_1 / layers_1 / rate)
    return Machine(
        start=_imports(), light=1.0, layer=layer, token=small[3] / layers_1, operations=rate,
        bandwidth=_bandwidth(), jobs=jobs, about="measured on this machine just now, one thread",
    )  # fmt: skip


def _best(run: Callable[[], object], seconds: float = 1.0) -> float:
    """Seconds of the fastest of the runs that fit into a while."""
    run()
    times, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 3:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _steps(layers: int, width: int) -> tuple[float, int, float, float]:
    """Of a LLaMA: seconds of a training step, layers, its operations; seconds of a new token."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from atkd.forecast.shapes import WORDS, Shape
    from atkd.models.one_token import step_of

    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=width, intermediate_size=3 * width,
        num_hidden_layers=layers, num_attention_heads=4,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    ids_BT = torch.randint(WORDS, (16, 40))

    def train() -> None:
        model(input_ids=ids_BT, labels=ids_BT).loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    trained = _best(train)
    shape = Shape(layers, width, 3 * width, WORDS, gated=True)
    with torch.no_grad():
        model.eval()
        step, past = step_of(model), [torch.zeros(16, 4, 20, width // 4)] * (2 * layers)
        mask, places = torch.ones(16, 1, 1, 21, dtype=torch.bool), torch.full((16, 1), 20)
        answered = _best(lambda: step(ids_BT[:, :1], mask, places, *past))
    return trained, layers, 3 * shape.forward(640, 40, 640), answered


def _bandwidth() -> float:
    """Bytes a second of a sum over much more than fits into a cache."""
    import torch

    many = torch.ones(2**25)
    return 4 * 2**25 / _best(lambda: many.sum(), 0.3)


def _imports() -> float:
    """Seconds that a job of a local run takes before its work, its imports done beforehand."""
    return 1.2

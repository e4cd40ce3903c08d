"""How fast a machine is: a few numbers, measured here or assumed of a kind of GPU.

A step of small models takes time by the operation, one of large ones by the floating-point
operations or by the bytes of the weights; the numbers say how much of each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, median


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
START = 1.2  # of a job of a local run, whose imports are done beforehand
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
    """This machine's processor with `jobs` at once, a thread each, as they slow each other down."""
    line = [
        sys.executable,
        "-c",
        f"from atkd.forecast import machines; machines.{_tell.__name__}()",
    ]
    running = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(jobs)]
    found = [json.loads(each.communicate()[0]) for each in running]
    means = {name: fmean(each[name] for each in found) for name in found[0]}
    about = f"measured on this machine just now, {jobs} at once, one thread each"
    return Machine(start=START, light=1.0, **means, jobs=jobs, about=about)


def _tell() -> None:
    """Prints what steps of two small models say of this processor, in ten seconds or so."""
    import torch

    torch.set_num_threads(1)
    (time_1, layers_1, work_1, token), (time_2, layers_2, work_2, _) = _steps(2, 64), _steps(4, 256)
    # Two shapes, two unknowns: time = layers * layer + operations / rate.
    seconds = time_2 / layers_2 - time_1 / layers_1
    rate = (work_2 / layers_2 - work_1 / layers_1) / seconds
    layer = max(0.0, time_1 / layers_1 - work_1 / layers_1 / rate)
    found = {"layer": layer, "token": token / layers_1, "operations": rate}
    print(json.dumps(found | {"bandwidth": _bandwidth()}))


def _usual(run: Callable[[], object], seconds: float = 1.5) -> float:
    """Median seconds of the runs that fit into a while."""
    run()
    times, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 3:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return median(times)


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

    trained = _usual(train)
    shape = Shape(layers, width, 3 * width, WORDS, gated=True)
    with torch.no_grad():
        model.eval()
        step, past = step_of(model), [torch.zeros(16, 4, 20, width // 4)] * (2 * layers)
        mask, places = torch.ones(16, 1, 1, 21, dtype=torch.bool), torch.full((16, 1), 20)
        answered = _usual(lambda: step(ids_BT[:, :1], mask, places, *past))
    return trained, layers, 3 * shape.forward(640, 40, 640), answered


def _bandwidth() -> float:
    """Bytes a second of a sum over much more than fits into a cache."""
    import torch

    many = torch.ones(2**25)
    return 4 * 2**25 / _usual(lambda: many.sum(), 0.3)

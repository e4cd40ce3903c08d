"""A whole optimiser step of OPT-125M taught by OPT-1.3B's shape: SFT, distillation, the old recipe.

Random weights of the real architectures; lengths with the means of Alpaca-GPT4 under OPT's
tokenizer: 181 tokens a sample, 153 of them supervised. `released` does the work of the recipe
published with the paper: every sample padded to 512, logits of both models at every position, a
live float32 teacher, the loss on full probabilities. The others project supervised positions
alone. `cached` is given what a teacher cache holds: hidden states, uncertainty, normaliser. All
take turns in rounds on the same samples; the least time counts.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atkd.data.sequences import Batch, FixedBatches, Sample, Sequences, epoch_batches

if TYPE_CHECKING:
    from torch import Tensor

THREADS, SAMPLES, LONGEST, V = 2, 4, 512, 50272
PROMPT, RESPONSE = 28, 153  # mean tokens


def samples(seed: int = 0) -> tuple[Sequences, list[int]]:
    """Random ids with lengths like Alpaca-GPT4's, and the batch whose mean length is most typical.

    Batches are those of training, of like lengths.
    """
    noise = random.Random(seed)

    def length(mean: float, spread: float) -> int:
        return max(4, round(mean * noise.lognormvariate(-(spread**2) / 2, spread)))

    heads = [length(PROMPT, 0.5) for _ in range(512)]
    tails = [min(length(RESPONSE, 0.75), LONGEST - head) for head in heads]
    ids = [noise.choices(range(4, V), k=h + t) for h, t in zip(heads, tails, strict=True)]
    parts = zip(ids, heads, strict=True)
    made = [Sample(row, ((head, len(row)),), head, len(row)) for row, head in parts]
    data = Sequences(made, list(range(len(made))), 0)
    batches = epoch_batches([len(each) for each in ids], SAMPLES, seed, 0)

    def distance(batch: list[int]) -> float:
        long, told = sum(len(ids[i]) for i in batch), sum(tails[i] for i in batch)
        return abs(long / SAMPLES - PROMPT - RESPONSE) + abs(told / SAMPLES - RESPONSE)

    return data, min(batches, key=distance)


def opt(layers: int, width: int, heads: int) -> Any:
    """OPT's architecture with random weights."""
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=V,
        dropout=0.0,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        ffn_dim=4 * width,
        word_embed_proj_dim=width,
    )
    return OPTForCausalLM(config)


@dataclass
class Bench:
    """Both models, one batch, and the targets [N], drawn from the teacher so that u is spread."""

    student: Any
    teacher: Any
    optimizer: Any
    batch: Batch
    padded: Batch
    targets_N: Tensor

    def student_end(self) -> tuple[Tensor, Tensor]:
        """The student's hidden states [N, d] and head."""
        from atkd.models.checkpoints import head, hidden_states

        hidden_BTd = hidden_states(self.student, *self.batch[:2])
        return hidden_BTd[:, :-1][self.batch.supervised_BS], head(self.student).weight

    def teacher_end(self) -> tuple[Tensor, Tensor]:
        """The teacher's."""
        import torch

        from atkd.models.checkpoints import head, hidden_states

        with torch.no_grad():
            hidden_BTd = hidden_states(self.teacher, *self.batch[:2])
        return hidden_BTd[:, :-1][self.batch.supervised_BS], head(self.teacher).weight

    def step(self, loss: Callable[[], Tensor]) -> float:
        """Seconds of forward, backward and update."""
        start = time.perf_counter()
        loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - start


def prepare() -> Bench:
    """Models, batch and targets."""
    import torch

    from atkd.models.checkpoints import keep_freed_memory

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    keep_freed_memory()
    student, teacher = opt(12, 768, 12), opt(24, 2048, 32).eval().requires_grad_(False)
    teacher.model.decoder.final_layer_norm.weight *= 5  # logits spread like a trained model's
    data, chosen = samples()
    batch = FixedBatches(data, 1, "cpu")(0, chosen)
    missing = LONGEST - batch.input_ids_BT.shape[1]
    fills = (1, 0, False)
    tensors = zip(batch[:3], fills, strict=True)
    padded = [torch.nn.functional.pad(x, (0, missing), value=v) for x, v in tensors]
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5)
    bench = Bench(
        student, teacher, optimizer, batch, Batch(*padded, batch.rows, True), batch.targets_N
    )
    hidden_Nd, head_Vd = bench.teacher_end()
    bench.targets_N = (hidden_Nd @ head_Vd.T).softmax(1).multinomial(1)[:, 0]
    return bench


def contestants(bench: Bench) -> dict[str, Callable[[], Tensor]]:
    """Name in the table -> loss of the batch."""
    import torch

    from atkd.losses.fused import Head, fused_kd_loss, fused_targets, weighted_fused_loss
    from atkd.losses.weighting import Mean

    hidden_Nd, head_Vd = bench.teacher_end()
    y_N = bench.targets_N
    known = fused_targets(hidden_Nd, Head(head_Vd), y_N)._asdict()
    shares = Mean().weights(torch.zeros(len(y_N)))

    def sft() -> Tensor:
        ours, head = bench.student_end()
        return weighted_fused_loss("cross_entropy", ours, Head(head), None, None, y_N, shares, {})

    def cached(**options: Any) -> Tensor:
        ends = (*bench.student_end(), hidden_Nd, head_Vd)
        return fused_kd_loss("atkd", *ends, y_N, **known, **options)

    return {
        "SFT": sft,
        "ATKD cached": cached,
        "ATKD cached, bfloat16 products": lambda: cached(products="bfloat16"),
        "ATKD live": lambda: fused_kd_loss("atkd", *bench.student_end(), *bench.teacher_end(), y_N),
        "ATKD released recipe": lambda: released(bench),
    }


def released(bench: Bench) -> Tensor:
    """The published recipe's work: all positions of 512, both models' full logits, live teacher."""
    import torch

    ids_BT, attention_BT, supervised_BS = bench.padded[:3]
    y_BS1 = ids_BT[:, 1:, None].clone()
    y_BS1[supervised_BS] = bench.targets_N[:, None]
    with torch.no_grad():
        theirs = bench.teacher(input_ids=ids_BT, attention_mask=attention_BT, use_cache=False)
    ours = bench.student(input_ids=ids_BT, attention_mask=attention_BT, use_cache=False)
    q, p = (each.logits[:, :-1].float().softmax(-1) for each in (ours, theirs))
    q_g, p_g = q.gather(-1, y_BS1), p.gather(-1, y_BS1)
    u, v = 1 - p_g, 1 - q_g
    tkd = (p_g * (p_g / q_g).log() + u * (u / v).log())[..., 0]
    p_hat = p.scatter(-1, y_BS1, 0.0) / u
    gap = (p_hat + 1e-30).log() - (q.scatter(-1, y_BS1, 1e-30) / v).log()
    dkd, u = (p_hat * gap).sum(-1)[supervised_BS], u[..., 0][supervised_BS]
    easy, tkd = u < u.median(), tkd[supervised_BS]
    return 0.2 * dkd[easy].mean() + 0.8 * (tkd + dkd)[~easy].mean()


def measure(rounds: int, slow_rounds: int) -> tuple[str, dict[str, float]]:
    """What the batch is, and the least seconds of each contestant."""
    from tqdm import tqdm

    bench = prepare()
    found = contestants(bench)
    bench.step(found["SFT"])  # makes the optimiser's state
    times: dict[str, list[float]] = {name: [] for name in found}
    for round_ in tqdm(range(rounds), desc="steps"):
        for name, loss in found.items():
            if "released" not in name or round_ < slow_rounds:
                times[name].append(bench.step(loss))
    count, longest = bench.batch.input_ids_BT.shape
    real = int(bench.batch.attention_mask_BT.sum())
    what = f"{count} samples, {real} tokens, {len(bench.targets_N)} supervised, padded to {longest}"
    return what, {name: min(each) for name, each in times.items()}


def table(what: str, seconds: dict[str, float]) -> str:
    """Markdown."""
    lines = [
        f"OPT-125M under an OPT-1.3B-shaped teacher, one batch: {what} (released: {LONGEST}):",
        "",
        "| step | time, s | x SFT | released / this |",
        "| --- | ---: | ---: | ---: |",
    ]
    last = seconds["ATKD released recipe"]
    lines += [
        f"| {name} | {each:.2f} | {each / seconds['SFT']:.2f} | {last / each:.1f} |"
        for name, each in seconds.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Prints the table of training steps."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--slow-rounds", type=int, default=1, help="rounds of the released recipe")
    args = parser.parse_args()
    print(table(*measure(args.rounds, args.slow_rounds)))


if __name__ == "__main__":
    main()

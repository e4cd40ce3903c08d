"""One sweep over the tokens of a fused loss, tile by tile: value and gradients, or the teacher's u.

Logits of a tile of rows exist only while its loss and closed-form gradient are formed; tokens x
vocabulary is never built. Vocabulary-sized products: student and teacher logits, the gradients of
hidden states and of the head. Where nobody knows the uncertainty that ATKD's weights rank, tokens
are weighed by a guess and the wrong ones visited again (`guess`), or, where uncertainty ties, one
more product finds it beforehand. Shapes: M supervised tokens, n rows of a tile, V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from atkd.losses.guess import Guess
from atkd.losses.kernels import kernel_of, needs_rest, pair, rest_of
from atkd.losses.matmul import (
    Buffers,
    Head,
    add_to_head,
    choose,
    operand_dtype,
    project,
    sum_dtype,
    to_hidden,
)
from atkd.losses.weighting import Weights, token_weights

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 1 << 19  # logits worked on at a time, so that a CPU's caches hold them


@dataclass(frozen=True)
class Task:
    """A fused loss but for the student: its tokens, the teacher's end and how to multiply.

    `rows_M`: which rows of the hidden states hold the tokens. `weights` None: those of ATKD with
    `settings`, by an uncertainty that is found on the way.
    """

    name: str
    settings: Mapping[str, Any]
    targets_M: Tensor
    rows_M: Tensor
    hidden_Nd: Tensor | None
    teacher: Head | None
    weights: Weights | None
    log_normaliser_M: Tensor | None = None
    tile: int | None = None
    products: str | None = None


def fused_loss(task: Task, hidden_Nd: Tensor, student: Head) -> Tensor:
    """The task's loss, a scalar; differentiable in the student's hidden states, weight and bias."""
    import torch

    task = replace(task, products=choose(task.products, hidden_Nd))
    inputs = (hidden_Nd, student.weight, student.bias)
    live = torch.is_grad_enabled()
    wanted = [live and each is not None and each.requires_grad for each in inputs]
    return _tiled().apply(task, wanted, *inputs)


@cache
def _tiled() -> Any:
    import torch

    class Tiled(torch.autograd.Function):
        """Forms gradients along with the value and hands them over; a second backward redoes it."""

        @staticmethod
        def forward(ctx: Any, task: Task, wanted: list[bool], *inputs: Tensor | None) -> Tensor:
            ctx.save_for_backward(*inputs)
            ctx.task, ctx.wanted = task, wanted
            total, ctx.grads = Sweep(task, inputs, wanted).run()
            return total

        @staticmethod
        def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
            inputs, grads, ctx.grads = ctx.saved_tensors, ctx.grads, None
            if grads is None:
                _, grads = Sweep(ctx.task, inputs, ctx.wanted).run()
            return None, None, *(g if g is None else g.mul_(upstream.to(g.dtype)) for g in grads)

    return Tiled


class Sweep:
    """Buffers and sums of one computation of value and gradients."""

    def __init__(self, task: Task, inputs: Sequence[Tensor | None], wanted: Sequence[bool]) -> None:
        hidden_Nd, weight_Vd, bias_V = self.inputs = inputs
        self.task, self.hidden_Nd, self.teacher = task, hidden_Nd, None
        theirs = [] if task.teacher is None else [task.hidden_Nd, task.teacher.weight]
        self.sums = sum_dtype(hidden_Nd, weight_Vd, *theirs)
        own = operand_dtype(task.products, hidden_Nd, weight_Vd)
        self.student = Head(weight_Vd, bias_V).to(own)
        if theirs:
            self.teacher = task.teacher.to(operand_dtype(task.products, *theirs))
        self.kernel = kernel_of(task.name, task.settings)
        self.needs_rest = needs_rest(task.name, task.settings)
        self.grads = [
            each.new_zeros(each.shape, dtype=self.sums) if wants else None
            for each, wants in zip(inputs, wanted, strict=True)
        ]
        self.value_M = hidden_Nd.new_zeros(len(task.rows_M), dtype=self.sums)
        self.buffers = Buffers(len(weight_Vd), 2 if theirs else 1, task.tile, self.value_M)

    def run(self) -> tuple[Tensor, list[Tensor | None]]:
        """The loss, and the gradients of those inputs whose are wanted."""
        import torch

        with torch.no_grad(), torch.autocast(self.hidden_Nd.device.type, enabled=False):
            if self.task.weights is None and not self._guessed():
                self._look_ahead()
            if self.task.weights is not None:
                for tile_n in self.buffers.tiles(len(self.value_M)):
                    self._visit(tile_n, self.task.weights)
            grads = [
                grad if grad is None else grad.to(each.dtype)
                for grad, each in zip(self.grads, self.inputs, strict=True)
            ]
            return self.value_M.sum(), grads

    def _guessed(self) -> bool:
        """The sweep with guessed weights and its repair; False, with nothing added, on a tie."""
        guess = Guess(self.task.settings, self.value_M)
        for tile_n in self.buffers.tiles(len(self.value_M)):
            self._visit(tile_n, guess)
            if guess.tied:
                return False
        missing, wrong_W = guess.missing()
        for tile_n in self.buffers.tiles(len(wrong_W)):
            self._visit(wrong_W[tile_n], missing)
        return True

    def _look_ahead(self) -> None:
        task, self.buffers.room = self.task, {}
        ends = (task.hidden_Nd, task.teacher, task.targets_M, task.rows_M)
        found = teacher_targets(*ends, task.tile, task.products)
        weights = token_weights(task.name, found.uncertainty.to(self.sums), task.settings)
        self.task = replace(task, weights=weights, log_normaliser_M=found.log_normaliser)

    def _visit(self, tile_n: Tensor, weights: Weights | Guess) -> None:
        """Adds the loss and gradients of these tokens, indices into the M, under the weights."""
        task, rows_n = self.task, self.task.rows_M[tile_n]
        index_n1, hidden_nd = task.targets_M[tile_n, None], self.hidden_Nd[rows_n]
        s_nV, *rest = self.buffers.logits(len(tile_n))
        project(s_nV, hidden_nd, self.student, self.buffers)
        t_nV = rest_n = None
        if self.teacher is not None:
            t_nV = project(rest[0], task.hidden_Nd[rows_n], self.teacher, self.buffers)
            if self.needs_rest or isinstance(weights, Guess):
                rest_n = self._rest(tile_n, t_nV, index_n1)
        if isinstance(weights, Guess):
            target_n = t_nV.gather(1, index_n1)[:, 0]
            weights.learn(tile_n, pair(target_n, rest_n).log_other_n.exp())
            if weights.tied:
                return
            weights = weights.weights
        pieces = (s_nV, t_nV, index_n1, rest_n)
        for part in chunks(s_nV):
            chunk = (each if each is None else each[part] for each in pieces)
            chosen = Weights(*(each[tile_n[part]] for each in weights))
            self.value_M[tile_n[part]] += self.kernel(*chunk, chosen)
        self._collect(s_nV, rows_n, hidden_nd)

    def _rest(self, tile_n: Tensor, t_nV: Tensor, index_n1: Tensor) -> Tensor:
        if self.task.log_normaliser_M is not None:
            return self.task.log_normaliser_M[tile_n].to(self.sums)
        return rest_by_chunk(t_nV, index_n1)

    def _collect(self, slope_nV: Tensor, rows_n: Tensor, hidden_nd: Tensor) -> None:
        grad_hidden_Nd, grad_weight_Vd, grad_bias_V = self.grads
        if grad_bias_V is not None:
            grad_bias_V += slope_nV.sum(0)
        own = self.student.weight.dtype
        if own != self.sums and not (grad_hidden_Nd is None and grad_weight_Vd is None):
            slope_nV = self.buffers.low(len(slope_nV), own).copy_(slope_nV)
        if grad_hidden_Nd is not None:
            grad_nd = to_hidden(slope_nV, self.student.weight)
            grad_hidden_Nd.index_add_(0, rows_n, grad_nd.to(self.sums))
        if grad_weight_Vd is not None:
            add_to_head(grad_weight_Vd, slope_nV, hidden_nd.to(own))


def chunks(logits_nV: Tensor) -> Iterator[slice]:
    """Rows to work on at a time: few enough for a CPU's caches, all on a GPU."""
    rows, vocabulary = logits_nV.shape
    most = max(1, CHUNK // vocabulary) if logits_nV.is_cpu else max(1, rows)
    step = -(-rows // max(1, -(-rows // most)))
    return (slice(start, start + step) for start in range(0, rows, step))


def rest_by_chunk(logits_nV: Tensor, index_n1: Tensor) -> Tensor:
    """`kernels.rest_of` of a whole tile [n]."""
    import torch

    return torch.cat([rest_of(logits_nV[part], index_n1[part]) for part in chunks(logits_nV)])


class Targets(NamedTuple):
    """What a loss needs of a teacher besides its hidden states, per token [N].

    `uncertainty` is u = 1 - p_g in [0, 1]. `log_normaliser` is the log-sum-exp, in nats, of the
    teacher's logits over all rows BUT the target: with the target's logit it gives log p_g, log u
    and the distribution of the rest exactly, also where p_g rounds to 1 and u underflows.
    """

    uncertainty: Tensor
    log_normaliser: Tensor


def teacher_targets(
    hidden_Nd: Tensor,
    head: Head,
    targets_M: Tensor,
    rows_M: Tensor,
    tile: int | None,
    products: str | None,
) -> Targets:
    """Uncertainty and log-normaliser [M] of the tokens at these rows, by one product."""
    import torch

    sums = sum_dtype(hidden_Nd, head.weight)
    head = head.to(operand_dtype(choose(products, hidden_Nd), hidden_Nd, head.weight))
    rest_M = hidden_Nd.new_empty(len(rows_M), dtype=sums)
    target_M = torch.empty_like(rest_M)
    buffers = Buffers(len(head.weight), 1, tile, rest_M)
    with torch.no_grad(), torch.autocast(hidden_Nd.device.type, enabled=False):
        for tile_n in buffers.tiles(len(rows_M)):
            (logits_nV,) = buffers.logits(len(tile_n))
            project(logits_nV, hidden_Nd[rows_M[tile_n]], head, buffers)
            index_n1 = targets_M[tile_n, None]
            rest_M[tile_n] = rest_by_chunk(logits_nV, index_n1)
            target_M[tile_n] = logits_nV.gather(1, index_n1)[:, 0]
        return Targets(pair(target_M, rest_M).log_other_n.exp(), rest_M)

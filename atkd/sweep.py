"""One sweep over the tokens of a fused loss, tile by tile: value and gradients, or the teacher's u.

Logits of a tile of rows exist only while its loss and closed-form gradient are formed; tokens x
vocabulary is never built. Vocabulary-sized products: student and teacher logits, the gradients of
hidden states and of the head. ATKD's weights rank the teacher's uncertainty over all tokens: where
nobody knows it beforehand, every token is first weighed by its rank among the tokens seen so far,
and the few whose group turns out wrong are visited again with the difference, which is exact since
value and gradient are linear in the weights. Shapes: M supervised tokens, n rows of a tile, V
vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from atkd.kernels import kernel_of, pair, rest_of
from atkd.products import Head, operand_dtype, project, send_back, sum_dtype
from atkd.weighting import Weights, easy_tokens, token_weights

if TYPE_CHECKING:
    from torch import Tensor

TILE_BYTES = {"cpu": 120_000_000, "cuda": 1 << 30}  # of logits, student's and teacher's together
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
        hidden_Nd, weight_Vd, bias_V = inputs
        self.task, self.hidden_Nd, self.student = task, hidden_Nd, Head(weight_Vd, bias_V)
        theirs = [] if task.teacher is None else [task.hidden_Nd, task.teacher.weight]
        self.sums = sum_dtype(hidden_Nd, weight_Vd, *theirs)
        self.ours = operand_dtype(task.products, hidden_Nd, weight_Vd)
        self.theirs = operand_dtype(task.products, *theirs) if theirs else None
        self.kernel = kernel_of(task.name, task.settings)
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
            if self.task.weights is None:
                self._guess()
            else:
                for tile_n in self.buffers.tiles(len(self.value_M)):
                    self._visit(tile_n, self.task.weights)
            grads = [
                grad if grad is None else grad.to(each.dtype)
                for grad, each in zip(self.grads, (self.hidden_Nd, *self.student), strict=True)
            ]
            return self.value_M.sum(), grads

    def _guess(self) -> None:
        guess = Guess(self.task.settings, self.value_M)
        for tile_n in self.buffers.tiles(len(self.value_M)):
            self._visit(tile_n, guess)
        missing, wrong_W = guess.missing()
        for tile_n in self.buffers.tiles(len(wrong_W)):
            self._visit(wrong_W[tile_n], missing)

    def _visit(self, tile_n: Tensor, weights: Weights | Guess) -> None:
        """Adds the loss and gradients of these tokens, indices into the M, under the weights."""
        task, rows_n = self.task, self.task.rows_M[tile_n]
        index_n1, hidden_nd = task.targets_M[tile_n, None], self.hidden_Nd[rows_n]
        s_nV, *rest = self.buffers.views(len(tile_n))
        project(s_nV, hidden_nd, self.student, self.ours)
        t_nV = rest_n = None
        if task.teacher is not None:
            t_nV = project(rest[0], task.hidden_Nd[rows_n], task.teacher, self.theirs)
            rest_n = self._rest(tile_n, t_nV, index_n1)
        if isinstance(weights, Guess):
            target_n = t_nV.gather(1, index_n1)[:, 0]
            weights.learn(tile_n, pair(target_n, rest_n).log_other_n.exp())
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
        wants = grad_hidden_Nd is not None
        ends = (hidden_nd, self.student.weight, self.ours)
        grad_nd = send_back(slope_nV, *ends, grad_weight_Vd, wants)
        if wants:
            grad_hidden_Nd.index_add_(0, rows_n, grad_nd)
        if grad_bias_V is not None:
            grad_bias_V += slope_nV.sum(0)


class Guess:
    """ATKD's weights before all uncertainties are known: each token's group among those seen."""

    def __init__(self, settings: Mapping[str, Any], like_M: Tensor) -> None:
        import torch

        self.settings = settings
        self.rule = (settings.get("hard_fraction", 0.5), settings.get("split", "median"))
        ranks_M = torch.arange(len(like_M), dtype=like_M.dtype, device=like_M.device)
        untied = token_weights("atkd", ranks_M, settings)  # the groups' sizes, unless u ties
        easy_M = easy_tokens(ranks_M, *self.rule)
        self.easy, self.hard = (self._first(untied, chosen) for chosen in (easy_M, ~easy_M))
        self.weights = Weights(torch.zeros_like(like_M), torch.zeros_like(like_M))
        self.uncertainty_M = torch.zeros_like(like_M)
        self.seen = like_M.new_zeros(0)

    @staticmethod
    def _first(weights: Weights, chosen_M: Tensor) -> list[float]:
        return [each[chosen_M][0].item() if bool(chosen_M.any()) else 0.0 for each in weights]

    def learn(self, tile_n: Tensor, uncertainty_n: Tensor) -> None:
        """Weighs a tile's tokens by their rank among all seen so far; the last tile knows all."""
        import torch

        self.uncertainty_M[tile_n] = uncertainty_n
        self.seen = torch.cat((self.seen, uncertainty_n))
        if len(self.seen) == len(self.uncertainty_M):
            known = token_weights("atkd", self.uncertainty_M, self.settings)
            pieces = [each[tile_n] for each in known]
        else:
            easy_n = easy_tokens(self.seen, *self.rule)[-len(tile_n) :]
            pieces = [
                torch.where(easy_n, easy, hard).to(uncertainty_n.dtype)
                for easy, hard in zip(self.easy, self.hard, strict=True)
            ]
        for each_M, piece_n in zip(self.weights, pieces, strict=True):
            each_M[tile_n] = piece_n

    def missing(self) -> tuple[Weights, Tensor]:
        """What the true weights have more than those given, and where it is not nothing [W]."""
        known = token_weights("atkd", self.uncertainty_M, self.settings)
        short = Weights(*(k - g for k, g in zip(known, self.weights, strict=True)))
        return short, ((short[0] != 0) | (short[1] != 0)).nonzero()[:, 0]


class Buffers:
    """Room for the logits of one tile, and the tiles that fit it."""

    def __init__(self, vocabulary: int, models: int, tile: int | None, like: Tensor) -> None:
        self.vocabulary, self.models, self.like = vocabulary, models, like
        room = TILE_BYTES.get(like.device.type, TILE_BYTES["cuda"])
        self.most = tile or max(1, room // (vocabulary * models * like.element_size()))
        self.room: Tensor | None = None

    def tiles(self, count: int) -> Iterator[Tensor]:
        """Every so many-th token, so that each tile is a fair sample of the batch."""
        import torch

        pieces = -(-count // self.most)
        return (torch.arange(k, count, pieces, device=self.like.device) for k in range(pieces))

    def views(self, rows: int) -> Tensor:
        """Uninitialised logits [models, rows, V]."""
        if self.room is None or self.room.shape[1] < rows:
            self.room = self.like.new_empty(self.models, rows, self.vocabulary)
        return self.room[:, :rows]


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

"""The losses of `functional` from hidden states and heads, without the logits of all tokens.

Same value and gradients as the plain form, which defines the mathematics. Logits of a tile of
tokens exist only while `kernels` forms their loss and its closed-form gradient; tokens x vocabulary
is never built, unless it is small: up to `AT_ONCE` logits, one call of the kernel takes all tokens.
Vocabulary-sized products: student and teacher logits, the gradients of hidden states and of the
head.

ATKD's weights rank the teacher's uncertainty over the whole scope. A kernel that takes all tokens
weighs them when it knows all uncertainties, but the loop over tiles learns them tile by tile. Where
nobody knows them beforehand, each token first gets a provisional weight, by its rank among the
tokens seen so far. The sizes of the groups, hence the two groups' weights, are
known beforehand unless uncertainties tie at their border. Loss and gradients are linear in the
weights: visiting the few tokens whose group was wrong with the difference of the weights makes the
sums exact. Where uncertainty ties, one more product finds it beforehand.

Shapes: N tokens, M of them supervised, n of a tile, V vocabulary rows, d and e the widths of
student and teacher.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from atkd.losses.functional import (
    Loss,
    check_loss,
    check_targets,
    resolve,
    supervised,
)
from atkd.losses.kernels import kernel_of, needs_rest, pair, rest_of
from atkd.losses.matmul import (
    Buffers,
    Head,
    Slopes,
    choose,
    operand_dtype,
    project,
    sum_dtype,
)
from atkd.losses.weighting import Index, Weighting, Weights

CHUNK = 1 << 19  # logits worked on at a time, so that a CPU's caches hold them
# Logits of all tokens (tokens x vocabulary, 16 MiB a model in float32) up to which one call of the
# kernel takes them. On a CPU it spares up to a fifth of ATKD's time where uncertainties are not
# known, down to none at this size; beyond, its temporary tensors would cost memory alone.
AT_ONCE = 1 << 22


class Targets(NamedTuple):
    """What a loss needs of a teacher besides its hidden states, per token [N].

    `uncertainty` is u = 1 - p_g in [0, 1]. `log_normaliser` is the log-sum-exp, in nats, of the
    teacher's logits over all rows BUT the target: with the target's logit it gives log p_g, log u
    and the distribution of the rest exactly, also where p_g rounds to 1 and u underflows.
    """

    uncertainty: Tensor
    log_normaliser: Tensor


class End(NamedTuple):
    """Where a model ends: hidden states [N, d] and the head that makes logits of them."""

    hidden_Nd: Tensor
    head: Head


@dataclass(frozen=True)
class Task:
    """A fused loss but for the student: its tokens, the teacher's end and how to multiply.

    `rows_M`: which rows of the hidden states hold the tokens. `weights` None: those of the loss's
    own weighting, by an uncertainty that is found on the way.
    """

    loss: Loss
    targets_M: Tensor
    rows_M: Tensor
    teacher: End | None
    weights: Weights | None
    log_normaliser_M: Tensor | None = None
    tile: int | None = None
    products: str | None = None


def fused_targets(
    hidden_Nd: Tensor,
    head: Head,
    targets_N: Tensor,
    tile: int | None = None,
    *,
    products: str | None = None,
) -> Targets:
    """Uncertainty and log-normaliser of every token by one product, tile by tile.

    Args:
        hidden_Nd: the teacher's hidden states at supervised positions.
        head: the teacher's, cut to the vocabulary.
        targets_N: the next token at each position.
        tile, products: as in `fused_kd_loss`.
    Shape:
        hidden states [N, d], targets [N].
    Returns:
        `Targets` [N] in at least float32, without gradient.
    Raises:
        ValueError: an unknown `products`.
    """
    every_N = torch.arange(len(targets_N), device=targets_N.device)
    return teacher_targets(End(hidden_Nd, head), targets_N, every_N, tile, products)


def weighted_fused_loss(
    name: str,
    student_hidden_Nd: Tensor,
    student: Head,
    teacher_hidden_Nd: Tensor | None,
    teacher: Head | None,
    targets_N: Tensor,
    weights: Weights,
    settings: Mapping[str, Any],
    tile: int | None = None,
    *,
    log_normaliser: Tensor | None = None,
    products: str | None = None,
) -> Tensor:
    """`functional.weighted_loss` without its logits: a piece of a step's loss.

    Args:
        name, weights, settings: as in `functional.weighted_loss`.
        student, teacher: heads cut to the vocabulary; no teacher for the cross-entropy.
        log_normaliser: that of `Targets` [N], where it is known.
        tile, products: as in `fused_kd_loss`.
    Shape:
        hidden states [N, d] and [N, e], targets [N].
    Returns:
        Scalar in nats, differentiable in the student's hidden states and head alone.
    Raises:
        ValueError: an unknown name or `products`, a setting out of range.
    """
    end = None
    if teacher_hidden_Nd is not None and teacher is not None:
        end = End(teacher_hidden_Nd, teacher)
    task = Task(
        loss=resolve(name, settings),
        targets_M=targets_N,
        rows_M=torch.arange(len(targets_N), device=targets_N.device),
        teacher=end,
        weights=weights,
        log_normaliser_M=log_normaliser,
        tile=tile,
        products=products,
    )
    return fused_loss(task, End(student_hidden_Nd, student))


def fused_kd_loss(
    name: str,
    student_hidden: Tensor,
    student_head: Tensor,
    teacher_hidden: Tensor,
    teacher_head: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    student_bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    uncertainty: Tensor | None = None,
    log_normaliser: Tensor | None = None,
    vocab_size: int | None = None,
    tile: int | None = None,
    products: str | None = None,
    **settings: Any,
) -> Tensor:
    """`kd_loss` from hidden states and heads.

    Args:
        name, targets, mask, settings: as in `kd_loss`.
        uncertainty, log_normaliser: those of `fused_targets`, where they are known.
        vocab_size: cuts head rows beyond the tokenizer.
        tile: tokens whose logits exist at a time; by default as many as fit 90 MB on a CPU and
            1 GiB on a GPU (`matmul.TILE_BYTES`), worked on at once up to `AT_ONCE` logits.
        products: "float32" leaves operands in their own dtype, "bfloat16" rounds them and keeps
            float32 sums, None is "bfloat16" under bfloat16 autocast.
    Shape:
        hidden states [N, d] and [N, e], heads [V, d] and [V, e], biases [V], all others [N].
    Returns:
        Scalar in nats, differentiable in the student's tensors alone. Gradients are formed along
        with the value; a second backward pass forms them anew.
    Raises:
        ValueError: as in `kd_loss`; a `vocab_size`, `tile` or `products` that cannot be.
    Source:
        Zhong et al., ACL 2024, section 2 and eq. 5; the gradients are derived in `kernels`.
    """
    loss = check_loss(name, settings)
    student, teacher = Head(student_head, student_bias), Head(teacher_head, teacher_bias)
    given = (uncertainty, log_normaliser)
    _check_shapes(student_hidden, student, teacher_hidden, teacher, targets, (mask, *given))
    _check_sizes(len(student_head), vocab_size, tile)
    student, teacher = student.cut(vocab_size), teacher.cut(vocab_size)
    rows_M = _supervised(targets, mask, len(student.weight)).nonzero()[:, 0]
    known_M, rest_M = (each if each is None else each[rows_M].detach() for each in given)
    end, weighting = End(teacher_hidden, teacher), loss.weighting
    if known_M is None and weighting.needs_uncertainty and not weighting.provisional:
        known_M, rest_M = teacher_targets(end, targets[rows_M], rows_M, tile, products)
    task = Task(
        loss=loss,
        targets_M=targets[rows_M],
        rows_M=rows_M,
        teacher=end,
        weights=_weights(loss, known_M, student_hidden, len(rows_M)),
        log_normaliser_M=rest_M,
        tile=tile,
        products=products,
    )
    return fused_loss(task, End(student_hidden, student))


def _weights(loss: Loss, known_M: Tensor | None, like: Tensor, count: int) -> Weights | None:
    """The tokens' weights, unless they rank an uncertainty that is yet to be found."""
    if known_M is None and loss.weighting.provisional and count:
        return None
    if known_M is None:  # nobody looks at it
        known_M = like.new_zeros(count, dtype=sum_dtype(like))
    return loss.weighting.weights(known_M)


def _check_shapes(
    hidden: Tensor,
    student: Head,
    theirs: Tensor,
    teacher: Head,
    targets: Tensor,
    per_token: tuple[Tensor | None, ...],
) -> None:
    count, rows = hidden.shape[:1], student.weight.shape[:1]
    mask, uncertainty, log_normaliser = per_token
    wanted = {
        "student hidden": (hidden, (*count, *hidden.shape[-1:])),
        "student head": (student.weight, (*rows, *hidden.shape[-1:])),
        "teacher hidden": (theirs, (*count, *theirs.shape[-1:])),
        "teacher head": (teacher.weight, (*rows, *theirs.shape[-1:])),
        "targets": (targets, count),
        "student bias": (student.bias, rows),
        "teacher bias": (teacher.bias, rows),
        "mask": (mask, count),
        "uncertainty": (uncertainty, count),
        "log_normaliser": (log_normaliser, count),
    }
    given = {name: (each, shape) for name, (each, shape) in wanted.items() if each is not None}
    if any(tensor.shape != shape for tensor, shape in given.values()):
        shown = ", ".join(f"{name} {tuple(tensor.shape)}" for name, (tensor, _) in given.items())
        raise ValueError(
            f"shapes do not match: {shown}; expected hidden [N, d] and [N, e], heads [V, d] and "
            "[V, e], biases [V], all others [N]"
        )


def _check_sizes(rows: int, vocab_size: int | None, tile: int | None) -> None:
    if not 2 <= (rows if vocab_size is None else vocab_size) <= rows:
        raise ValueError(
            f"vocab_size is {vocab_size}, heads have {rows} rows; expected 2 to {max(rows, 2)}"
        )
    if tile is not None and tile < 1:
        raise ValueError(f"tile is {tile}; expected at least 1 token")


def _supervised(targets: Tensor, mask: Tensor | None, vocabulary: int) -> Tensor:
    keep = supervised(targets, mask)
    check_targets(targets[keep], vocabulary, f"targets {tuple(targets.shape)}")
    return keep


def fused_loss(task: Task, student: End) -> Tensor:
    """The task's loss, a scalar; differentiable in the student's hidden states, weight and bias."""
    task = replace(task, products=choose(task.products, student.hidden_Nd))
    if task.loss.softening.temperature != 1:
        task = _ranked(task)
    inputs = (student.hidden_Nd, *student.head)
    live = torch.is_grad_enabled()
    wanted = [live and each is not None and each.requires_grad for each in inputs]
    return FusedLoss.apply(task, wanted, *inputs)


def _ranked(task: Task) -> Task:
    """A loss at a temperature: tokens are ranked first, by the teacher as it is."""
    weights = task.weights
    if weights is None and task.teacher is not None:
        ranked = (task.targets_M, task.rows_M, task.tile, task.products)
        weights = task.loss.weighting.weights(teacher_targets(task.teacher, *ranked).uncertainty)
    weights = weights and weights * task.loss.softening.factor
    return replace(task, weights=weights, log_normaliser_M=None)


class FusedLoss(torch.autograd.Function):
    """Forms gradients along with the value and hands them over; a second backward redoes it."""

    @staticmethod
    def forward(ctx: Any, task: Task, wanted: list[bool], *inputs: Any) -> Tensor:
        ctx.save_for_backward(*inputs)
        ctx.task, ctx.wanted = task, wanted
        total, ctx.grads = TileLoop(task, wanted, *inputs).run()
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        inputs, grads, ctx.grads = ctx.saved_tensors, ctx.grads, None
        if grads is None:
            _, grads = TileLoop(ctx.task, ctx.wanted, *inputs).run()
        given = (None if g is None else g.mul_(upstream.to(g.dtype)) for g in grads)
        pairs = zip(given, inputs, strict=True)
        return None, None, *(g if g is None else g.to(each.dtype) for g, each in pairs)


class Tile(NamedTuple):
    """Tokens that are worked on together: rows of the hidden states, and what a kernel takes.

    The kernel leaves the gradient of the student's logits in their place.
    """

    rows_n: Tensor
    hidden_nd: Tensor
    s_nV: Tensor
    t_nV: Tensor | None
    index_n1: Tensor
    rest_n: Tensor | None

    @property
    def logits(self) -> tuple[Tensor | None, ...]:
        """Logits of student and teacher, targets, log-sum of the teacher's rest."""
        return self[2:]


class TileLoop:
    """Buffers and sums of one computation of value and gradients, tile by tile."""

    def __init__(
        self,
        task: Task,
        wanted: Sequence[bool],
        hidden_Nd: Tensor,
        weight_Vd: Tensor,
        bias_V: Tensor | None,
    ) -> None:
        self.task, self.hidden_Nd, self.teacher = task, hidden_Nd, task.teacher
        theirs = [] if task.teacher is None else [task.teacher.hidden_Nd, task.teacher.head.weight]
        self.sums = sum_dtype(hidden_Nd, weight_Vd, *theirs)
        own = operand_dtype(task.products, hidden_Nd, weight_Vd)
        self.student = Head(weight_Vd, bias_V).to(own)
        if task.teacher is not None:
            head = task.teacher.head.to(operand_dtype(task.products, *theirs))
            self.teacher = task.teacher._replace(head=head)
        divergence, splits = task.loss.divergence, task.loss.weighting.splits
        self.kernel, self.needs_rest = kernel_of(divergence, splits), needs_rest(divergence, splits)
        self.inputs = (hidden_Nd, weight_Vd, bias_V)
        self.grads = [
            each.new_zeros(each.shape, dtype=self.sums) if wants and each is not None else None
            for each, wants in zip(self.inputs, wanted, strict=True)
        ]
        self.temperature = task.loss.softening.temperature
        self.value_M = hidden_Nd.new_zeros(len(task.rows_M), dtype=self.sums)
        self.buffers = Buffers(len(weight_Vd), 2 if theirs else 1, task.tile, self.value_M)

    def run(self) -> tuple[Tensor, list[Tensor | None]]:
        """The loss, and the gradients of those inputs whose are wanted, in the sums' dtype.

        They are rounded to the inputs' own after the upstream factor, a loss scale perhaps, is in.
        """
        with torch.no_grad(), torch.autocast(self.hidden_Nd.device.type, enabled=False):
            if self._fit_at_once():
                self._visit_at_once()
            elif self.task.weights is not None:
                self._visit_all(self.task.weights)
            elif self.task.teacher is not None and not self._weighed_on_the_way():
                self._visit_all(self._weights_beforehand(self.task.teacher))
            return self.value_M.sum(), self.grads

    def _fit_at_once(self) -> bool:
        """Whether there are tokens, and few enough for one call of the kernel."""
        return 0 < len(self.value_M) <= min(self.buffers.most, AT_ONCE // self.buffers.vocabulary)

    def _visit_at_once(self) -> None:
        """All tokens in one call of the kernel, which ranks their uncertainties if it must."""
        tile = self._project(slice(None))
        weights, found = self.task.weights, list[Weights]()

        def rank(uncertainty_M: Tensor) -> Weights:
            found.append(self._rank(uncertainty_M))
            return found[0]

        self.value_M = self.kernel(*tile.logits, weights or rank)
        self._collect(tile, weights or found[0])

    def _rank(self, uncertainty_M: Tensor) -> Weights:
        return self.task.loss.weighting.weights(uncertainty_M.to(self.sums))

    def _visit_all(self, weights: Weights) -> None:
        for tile_n in self.buffers.tiles(len(self.value_M)):
            self._visit(tile_n, weights)

    def _weighed_on_the_way(self) -> bool:
        """All tiles under provisional weights, then repair; False, nothing added, on a tie."""
        provisional = ProvisionalWeights(self.task.loss.weighting, self.value_M)
        for tile_n in self.buffers.tiles(len(self.value_M)):
            self._visit(tile_n, provisional)
            if provisional.tied:
                return False
        missing, wrong_W = provisional.missing()
        for tile_n in self.buffers.tiles(len(wrong_W)):
            self._visit(wrong_W[tile_n], missing)
        return True

    def _weights_beforehand(self, teacher: End) -> Weights:
        """The weights by one product more."""
        task, self.buffers.room = self.task, {}
        found = teacher_targets(teacher, task.targets_M, task.rows_M, task.tile, task.products)
        self.task = replace(task, log_normaliser_M=found.log_normaliser)
        return self._rank(found.uncertainty)

    def _visit(self, tile_n: Tensor, weights: Weights | ProvisionalWeights) -> None:
        """Adds the loss and gradients of these tokens, indices into the M, under the weights."""
        if isinstance(weights, ProvisionalWeights):
            tile = self._project(tile_n, weights)
            if weights.tied:
                return
            weights = weights.weights
        else:
            tile = self._project(tile_n)
        weights = weights[tile_n]
        for part in chunks(tile.s_nV):
            chunk = (each if each is None else each[part] for each in tile.logits)
            self.value_M[tile_n[part]] += self.kernel(*chunk, weights[part])
        self._collect(tile, weights)

    def _project(self, tile_n: Index, provisional: ProvisionalWeights | None = None) -> Tile:
        """These tokens' logits; provisional weights learn the tokens' uncertainty."""
        rows_n, index_n1 = self.task.rows_M[tile_n], self.task.targets_M[tile_n, None]
        hidden_nd, t_nV, rest_n = self.hidden_Nd[rows_n], None, None
        s_nV, *room = self.buffers.logits(len(rows_n))
        self._soften_(project(s_nV, hidden_nd, self.student, self.buffers))
        if self.teacher is not None:
            theirs_nd = self.teacher.hidden_Nd[rows_n]
            t_nV = self._soften_(project(room[0], theirs_nd, self.teacher.head, self.buffers))
            if self.task.log_normaliser_M is not None:
                rest_n = self.task.log_normaliser_M[tile_n].to(self.sums)
            elif provisional is not None or self.needs_rest:
                rest_n = rest_by_chunk(t_nV, index_n1)
            if provisional is not None and rest_n is not None:
                target_n = t_nV.gather(1, index_n1)[:, 0]
                provisional.learn(tile_n, pair(target_n, rest_n).log_other_n.exp())
        return Tile(rows_n, hidden_nd, s_nV, t_nV, index_n1, rest_n)

    def _soften_(self, logits_nV: Tensor) -> Tensor:
        """Logits at the loss's temperature, or gradients in logits from those at it; in place."""
        return logits_nV if self.temperature == 1 else logits_nV.div_(self.temperature)

    def _collect(self, tile: Tile, weights: Weights) -> None:
        """Adds a tile's part of the wanted gradients, from those that stand for its logits."""
        rows_n, hidden_nd, slope_nV = tile[:3]
        self._soften_(slope_nV)
        grad_hidden_Nd, grad_weight_Vd, grad_bias_V = self.grads
        if grad_bias_V is not None:
            grad_bias_V += slope_nV.sum(0)
        if grad_hidden_Nd is None and grad_weight_Vd is None:
            return
        own = self.student.weight.dtype
        slopes = Slopes.rounded(slope_nV, weights, self.buffers, own)
        if grad_hidden_Nd is not None:
            grad_nd = slopes.to_hidden(self.student.weight, self.sums)
            grad_hidden_Nd.index_add_(0, rows_n, grad_nd)
        if grad_weight_Vd is not None:
            slopes.add_to_head(grad_weight_Vd, hidden_nd.to(own))


class ProvisionalWeights:
    """Two groups' weights before all uncertainties are known: each token's rank among those seen.

    `weights` [M] holds those given so far; `tied` says that they cannot be had this way.
    """

    def __init__(self, weighting: Weighting, like_M: Tensor) -> None:
        self.weighting = weighting
        ranks_M = torch.arange(len(like_M), dtype=like_M.dtype, device=like_M.device)
        untied = weighting.weights(ranks_M)  # the groups' sizes, unless u ties
        easy_M = weighting.easy(ranks_M)
        self.easy, self.hard = (_one_of(untied[chosen_M]) for chosen_M in (easy_M, ~easy_M))
        self.weights = Weights(torch.zeros_like(like_M), torch.zeros_like(like_M))
        self.uncertainty_M = torch.zeros_like(like_M)
        self.seen = like_M.new_zeros(0)
        self.tied = False

    def learn(self, tile_n: Index, uncertainty_n: Tensor) -> None:
        """Weighs a tile's tokens by their rank among all seen so far; the last tile knows all.

        Sets `tied` if the first tile has a tie at the border of its groups.
        """
        self.uncertainty_M[tile_n] = uncertainty_n
        first, self.seen = not len(self.seen), torch.cat((self.seen, uncertainty_n))
        if len(self.seen) == len(self.uncertainty_M):
            self.weights[tile_n] = self.weighting.weights(self.uncertainty_M)[tile_n]
            return
        easy_n = self.weighting.easy(self.seen)[-len(uncertainty_n) :]
        ranks_n = torch.arange(len(uncertainty_n), device=easy_n.device)
        self.tied = first and bool(easy_n.sum() != self.weighting.easy(ranks_n).sum())
        self.weights[tile_n] = Weights.where(easy_n, self.easy, self.hard)

    def missing(self) -> tuple[Weights, Tensor]:
        """What the true weights have more than those given, and where it is not nothing [W]."""
        short = self.weighting.weights(self.uncertainty_M) - self.weights
        return short, ((short.target_N != 0) | (short.diversity_N != 0)).nonzero()[:, 0]


def _one_of(weights: Weights) -> Weights:
    """The weights of one token of a group, all being equal; zeros for an empty group."""
    return Weights(weights.target_N[:1].sum(), weights.diversity_N[:1].sum())


def chunks(logits_nV: Tensor) -> Iterator[slice]:
    """Rows to work on at a time: few enough for a CPU's caches, all on a GPU."""
    rows, vocabulary = logits_nV.shape
    most = max(1, CHUNK // vocabulary) if logits_nV.is_cpu else max(1, rows)
    step = -(-rows // max(1, -(-rows // most)))
    return (slice(start, start + step) for start in range(0, rows, step))


def rest_by_chunk(logits_nV: Tensor, index_n1: Tensor) -> Tensor:
    """`kernels.rest_of` of a whole tile [n]."""
    return torch.cat([rest_of(logits_nV[part], index_n1[part]) for part in chunks(logits_nV)])


def teacher_targets(
    teacher: End,
    targets_M: Tensor,
    rows_M: Tensor,
    tile: int | None,
    products: str | None,
) -> Targets:
    """Uncertainty and log-normaliser [M] of the tokens at these rows, by one product."""
    hidden_Nd, head = teacher
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

"""The losses inside other people's trainers: transformers' `Trainer`, and TRL's GKD on fixed data.

`KDTrainer` and `TRLKDTrainer` are built when first asked for, so importing this module loads
neither torch nor transformers nor trl. Shapes: B sequences of T ids, S = T - 1 predictions, N
supervised tokens of a micro-batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from atkd.losses.functional import IGNORE, check_loss
from atkd.losses.fused import Head, fused_targets, weighted_fused_loss
from atkd.losses.weighting import Gather, Weights, gatherer, step_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import Trainer as _Trainer
else:
    _Trainer = object

BASES = {
    "KDTrainer": ("transformers", "Trainer"),
    "TRLKDTrainer": ("trl.experimental.gkd", "GKDTrainer"),
}
VIEW = "atkd_view"  # the key under which a micro-batch carries its view through the Trainer's code
PROBE = 4096.0


@dataclass(frozen=True)
class View:
    """What the loss needs of a micro-batch before the student sees it.

    Not a tuple: the Trainer takes those apart.
    """

    supervised_BS: Tensor
    targets_N: Tensor
    hidden_Nd: Tensor
    weights: Weights
    log_normaliser_N: Tensor | None


@contextlib.contextmanager
def head_returns(model: Any, function: Callable[[Tensor], Tensor]) -> Iterator[torch.nn.Linear]:
    """Within the block the model's head gives function(hidden states [B, T, d]) for its logits.

    The model is still called as a whole, and its output ends in the loss: what DDP and FSDP need.
    """
    head = model.get_output_embeddings()
    before = head.__dict__.get("forward")
    head.forward = function
    try:
        yield head
    finally:
        del head.forward
        if before is not None:
            head.forward = before


def check_model(role: str, model: Any, vocab_size: int) -> None:
    """ValueError unless its logits are a linear head's output, unchanged, of enough rows."""
    import torch

    head, what = model.get_output_embeddings(), f"{role} {type(model).__name__}: its head"
    if not isinstance(head, torch.nn.Linear):
        found = f"{type(head).__module__}.{type(head).__name__}"
        raise ValueError(f"{what} is a {found}; expected torch.nn.Linear")
    if head.out_features < vocab_size:
        raise ValueError(f"{what} has {head.out_features} rows; expected {vocab_size} or more")
    was_training, ids_BT = model.training, torch.ones((1, 2), dtype=torch.long, device=model.device)
    probe = torch.tensor(PROBE, device=head.weight.device)
    with torch.no_grad(), head_returns(model.eval(), lambda _: probe):
        passed = model(input_ids=ids_BT).logits
    model.train(was_training)
    if passed.numel() != 1 or passed.item() != PROBE:
        raise ValueError(f"{what}'s output is scaled or capped before it is returned: unsupported")


def check_settings(loss: str, settings: Mapping[str, Any]) -> None:
    """ValueError on an unknown loss, scope or setting, or a value out of range."""
    import torch

    check_loss(loss, {name: value for name, value in settings.items() if name != "scope"})
    step_weights(loss, [torch.zeros(1)], settings, _alone)


def _alone(local_n: Tensor) -> tuple[Tensor, int]:
    return local_n, 0


class Distils(_Trainer):
    """A Trainer whose loss is `kd_loss(loss, ..., **loss_settings)` of a step's supervised tokens.

    `loss`: one of `objectives.LOSSES`; `loss_settings`: its settings, and `scope`, `batch` (all
    tokens of the optimiser step, on all processes) or `micro` (each micro-batch by itself, as the
    official code). `vocab_size` cuts head rows beyond the tokenizer; by default the number of ids
    of `processing_class`, or all rows. Other options are the Trainer's. Batches hold `input_ids`,
    `labels` (not shifted, -100 where not supervised) and whatever else both models take.

    The teacher runs in its own dtype, over all micro-batches of a step before the student sees the
    first. Logits are never built in training. An evaluation batch is a step by itself. ValueError
    on settings, models or labels that do not fit.
    """

    loss_is_scaled_for_ga = True  # the tokens' weights already add up over the step
    passes_teacher = False  # whether the trainer below wants `teacher_model` and prepares it
    teacher_model: Any

    def __init__(
        self,
        model: Any,
        teacher: Any,
        *,
        loss: str = "atkd",
        loss_settings: Mapping[str, Any] | None = None,
        vocab_size: int | None = None,
        **options: Any,
    ) -> None:
        self.loss_name, self.loss_settings = loss, dict(loss_settings or {})
        check_settings(loss, self.loss_settings)
        if self.passes_teacher:
            options["teacher_model"] = teacher
        super().__init__(model, **options)
        if self.passes_teacher:
            teacher = self.accelerator.unwrap_model(self.teacher_model)
        elif not hasattr(teacher, "hf_device_map"):
            teacher.to(self.args.device)
        self.teacher = teacher.eval()
        self._refuse()
        self.vocab_size = vocab_size or self._vocabulary()
        check_model("student", self.model, self.vocab_size)
        check_model("teacher", self.teacher, self.vocab_size)

    def _refuse(self) -> None:
        args = self.args
        found = {
            "a teacher that is the student": self.teacher is self.model,
            "compute_loss_func": self.compute_loss_func is not None,
            "label_smoothing_factor": args.label_smoothing_factor != 0,
            "torch_compile (every step has a loss of its own)": args.torch_compile,
            "several GPUs in one process (start one process for each)": args.n_gpu > 1,
            "lmbda or seq_kd other than 0 (fixed data only)": getattr(args, "lmbda", 0) != 0
            or getattr(args, "seq_kd", False),
        }
        for name, present in found.items():
            if present:
                raise ValueError(f"{type(self).__name__} does not support {name}")

    def _vocabulary(self) -> int:
        from transformers import PreTrainedTokenizerBase

        if isinstance(self.processing_class, PreTrainedTokenizerBase):
            return len(self.processing_class)
        models: tuple[Any, Any] = (self.model, self.teacher)
        student, teacher = (each.get_output_embeddings().out_features for each in models)
        if student != teacher:
            raise ValueError(
                f"student's head has {student} rows, teacher's {teacher}; give vocab_size, the "
                "number of the tokenizer's ids, or the tokenizer as processing_class"
            )
        return student

    def _head(self, layer: torch.nn.Linear) -> Head:
        return Head(layer.weight, layer.bias).cut(self.vocab_size)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """A step's micro-batches, each with what the teacher says of it and its tokens' weights."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        views = self._views(batches, gatherer(self.accelerator)) if batches else []
        return [{**b, VIEW: view} for b, view in zip(batches, views, strict=True)], count

    def _views(self, batches: Sequence[Mapping[str, Any]], gather: Gather) -> list[View]:
        seen = [self._teach(batch) for batch in batches]
        found: list[Any] = [(hidden.new_zeros(len(hidden)).float(), None) for *_, hidden in seen]
        if self.loss_name == "atkd":
            head = self._head(self.teacher.get_output_embeddings())
            # Under the student's autocast, so that the loss meets the same rounded logits.
            with self.accelerator.autocast():
                found = [fused_targets(hidden, head, targets) for _, targets, hidden in seen]
        unsure, normalisers = zip(*found, strict=True)
        weights = step_weights(self.loss_name, unsure, self.loss_settings, gather)
        made = zip(seen, weights, normalisers, strict=True)
        return [View(*parts, weight, normaliser) for parts, weight, normaliser in made]

    def _teach(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Which predictions are supervised [B, S], their targets [N], teacher's hidden [N, d]."""
        import torch

        inputs = self._prepare_inputs(dict(batch))
        targets_BS = inputs.pop("labels")[:, 1:]
        supervised_BS = targets_BS != IGNORE
        targets_N = targets_BS[supervised_BS]
        rows = self.vocab_size
        strange = targets_N[(targets_N < 0) | (targets_N >= rows)]
        if len(strange):
            raise ValueError(f"label {int(strange[0])} is outside the vocabulary of {rows}")
        with (
            torch.no_grad(),
            head_returns(self.teacher, lambda hidden_BTd: hidden_BTd[:, :-1][supervised_BS]),
        ):
            hidden_Nd = self.teacher(**inputs, use_cache=False).logits
        return supervised_BS, targets_N, hidden_Nd

    def compute_loss(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """This micro-batch's part of the step's loss; a batch from elsewhere is a step of its own.

        Times the number of processes in a step, because DDP takes the mean of gradients and the
        log the mean of losses. `return_outputs` adds the model's output with all logits.
        """
        import torch

        inputs, scale, logits = dict(inputs), self.accelerator.num_processes, []
        view = inputs.pop(VIEW, None)
        if view is None:
            (view,), scale = self._views([inputs], _alone), 1
        del inputs["labels"]

        def loss_of(hidden_BTd: Tensor) -> Tensor:
            if return_outputs:
                logits.append(torch.nn.functional.linear(hidden_BTd, head.weight, head.bias))
            return scale * self._loss(hidden_BTd, head, view)

        with head_returns(self.model, loss_of) as head:
            outputs = model(**inputs, use_cache=False)
        loss = outputs.logits
        if not return_outputs:
            return loss
        outputs.logits = logits[0]
        return loss, outputs

    def _loss(self, hidden_BTd: Tensor, head: torch.nn.Linear, view: View) -> Tensor:
        return weighted_fused_loss(
            self.loss_name,
            hidden_BTd[:, :-1][view.supervised_BS],
            self._head(head),
            view.hidden_Nd,
            self._head(self.teacher.get_output_embeddings()),
            view.targets_N,
            view.weights,
            self.loss_settings,
            log_normaliser=view.log_normaliser_N,
        )

    def prediction_step(
        self,
        model: Any,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Any, Any, Any]:
        """As the Trainer's, but logits exist only where somebody looks at them."""
        import torch

        if not prediction_loss_only or "labels" not in inputs:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None


if TYPE_CHECKING:

    class KDTrainer(Distils):
        """transformers' `Trainer`."""

    class TRLKDTrainer(Distils):
        """TRL's GKD trainer."""


def __getattr__(name: str) -> Any:
    if name not in BASES:
        raise AttributeError(f"module 'atkd.integrations' has no attribute {name!r}")
    base = getattr(import_module(BASES[name][0]), BASES[name][1])
    if not hasattr(base, "loss_is_scaled_for_ga"):
        raise ImportError(f"{name} needs transformers 5.19 or newer")
    parts = {"__doc__": Distils.__doc__, "__module__": __name__}
    made = type(name, (Distils, base), parts | {"passes_teacher": name == "TRLKDTrainer"})
    globals()[name] = made
    return made

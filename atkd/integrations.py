"""The losses inside other people's trainers: transformers' `Trainer`, and TRL's GKD on fixed data.

Neither library is needed to import this module: a trainer whose library is missing says so when it
is made. Shapes: B sequences of T ids, S = T - 1 predictions, N supervised tokens of a micro-batch.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atkd.losses.functional import IGNORE, check_loss
from atkd.losses.fused import Head, fused_targets, weighted_fused_loss
from atkd.losses.weighting import (
    DEFAULT_SCOPE,
    Gather,
    Weighting,
    Weights,
    alone,
    gatherer,
    step_weights,
)

# What a micro-batch carries through the Trainer's code: its TaughtBatch and its tokens' Weights.
SIGNAL, WEIGHTS = "teacher_signal", "token_weights"
PROBE = 4096.0


def trainer_class(module: str, name: str, extra: str) -> Any:
    """Another library's trainer; where there is none, a class that cannot be made and says why."""
    reason = f'atkd: {module} is missing or lacks {name}; pip install "atkd[{extra}]"'
    cause: Exception | None = None
    try:
        with warnings.catch_warnings():
            # TRL warns all who import its experimental part, but here nobody may have asked for it.
            warnings.filterwarnings("ignore", "You are importing from 'trl.experimental'")
            found = getattr(import_module(module), name)
        if hasattr(found, "loss_is_scaled_for_ga"):
            return found
        reason = f'atkd: {name} needs transformers 5.19 or newer; pip install "atkd[{extra}]"'
    except (ImportError, AttributeError) as error:
        cause = error

    class Missing:
        """Stands in for the trainer."""

        def __new__(cls, *args: Any, **options: Any) -> Any:
            raise ImportError(reason) from cause

    return Missing


@dataclass(frozen=True)
class TaughtBatch:
    """What the teacher says of a micro-batch; not a tuple, since the Trainer takes those apart.

    `uncertainty_N` is 0 and `log_normaliser_N` None where the weights do not ask for them. `share`
    is the micro-batch's of the step, for what is a mean over micro-batches.
    """

    supervised_BS: Tensor
    targets_N: Tensor
    hidden_Nd: Tensor
    uncertainty_N: Tensor
    log_normaliser_N: Tensor | None
    share: float


class AdaptersOff:
    """The base under a student's adapters (PEFT), as its teacher: the same weights, no dropout."""

    def __init__(self, model: Any) -> None:
        if not hasattr(model, "disable_adapter"):
            raise ValueError(
                f"teacher is None, which stands for a PEFT student's base, but the student is a "
                f"{type(model).__name__} without adapters; expected a model"
            )
        self.model = model

    def __call__(self, **inputs: Any) -> Any:
        was_training = self.model.training
        self.model.eval()
        try:
            with self.model.disable_adapter():
                return self.model(**inputs)
        finally:
            self.model.train(was_training)

    def get_output_embeddings(self) -> torch.nn.Module:
        """The head, which the student has too."""
        return self.model.get_output_embeddings()


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


def shared_parameter(student: torch.nn.Module, teacher: torch.nn.Module) -> str | None:
    """The teacher's first parameter that lies in the student's storage, if any does."""

    def place(parameter: Tensor) -> tuple[torch.device, int]:
        return parameter.device, parameter.untyped_storage().data_ptr()

    own = {place(parameter) for parameter in student.parameters()}
    for name, parameter in teacher.named_parameters():
        if parameter.untyped_storage().data_ptr() and place(parameter) in own:
            return name
    return None


def auxiliary_weight(model: Any) -> float:
    """What multiplies a mixture-of-experts student's router loss, as its own forward has it."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    text = model.config.get_text_config()
    for holder, name in (
        (model, "router_aux_loss_coef"),
        (text, "router_aux_loss_coef"),
        (model, "aux_loss_coef"),
        (text, "aux_loss_coef"),
    ):
        if getattr(holder, name, None) is not None:
            return float(getattr(holder, name))
    raise ValueError(
        f"student {type(model).__name__} returns an aux_loss whose coefficient is not known here; "
        "expected router_aux_loss_coef in its configuration"
    )


def checked_weighting(loss: str, settings: Mapping[str, Any]) -> Weighting:
    """The loss's weighting; ValueError on an unknown loss, scope or setting, or a value's range."""
    own = {name: value for name, value in settings.items() if name != "scope"}
    weighting = check_loss(loss, own).weighting
    step_weights(weighting, [torch.zeros(1)], settings.get("scope", DEFAULT_SCOPE), alone)
    return weighting


if TYPE_CHECKING:
    from transformers import Trainer as _Below
else:
    _Below = object


class DistillationMixin(_Below):
    """What makes a distilling trainer of the Trainer behind it in the order of classes.

    The teacher runs in its own dtype, over all micro-batches of a step before the student sees the
    first. Logits are never built in training. An evaluation batch is a step by itself.
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
        self.weighting = checked_weighting(loss, self.loss_settings)
        if self.passes_teacher:
            if teacher is None:
                raise ValueError(f"{type(self).__name__} needs a teacher; found None")
            options["teacher_model"] = teacher
        super().__init__(model, **options)
        if self.passes_teacher:
            teacher = self.accelerator.unwrap_model(self.teacher_model)
        elif teacher is not None and not hasattr(teacher, "hf_device_map"):
            teacher.to(self.args.device)
        self.teacher = AdaptersOff(self.model) if teacher is None else teacher.eval()
        self._refuse()
        self.vocab_size = vocab_size or self._vocabulary()
        check_model("student", self.model, self.vocab_size)
        if teacher is not None:
            self._check_shared()
            check_model("teacher", teacher, self.vocab_size)

    def _check_shared(self) -> None:
        """ValueError if training the student would change the teacher."""
        name = shared_parameter(self.model, self.teacher)
        if name is not None:
            raise ValueError(
                f"the teacher's {name} lies in the student's memory, so that the teacher would "
                "change with the student, adapters included; load the teacher separately, or pass "
                "teacher=None for the base of a PEFT student with its adapters disabled"
            )

    def _refuse(self) -> None:
        args = self.args
        found = {
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
            return max(self.processing_class.get_vocab().values()) + 1  # ids may have holes
        models: tuple[Any, Any] = (self.model, self.teacher)
        student, teacher = (each.get_output_embeddings().out_features for each in models)
        if student != teacher:
            raise ValueError(
                f"student's head has {student} rows, teacher's {teacher}; give vocab_size, the "
                "tokenizer's largest id and one, or the tokenizer as processing_class"
            )
        return student

    def _head(self, layer: torch.nn.Linear) -> Head:
        return Head(layer.weight, layer.bias).cut(self.vocab_size)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """A step's micro-batches, each with what the teacher says of it and its tokens' weights."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        return self._taught(batches, gatherer(self.accelerator)) if batches else [], count

    def _taught(self, batches: Sequence[Mapping[str, Any]], gather: Gather) -> list[dict[str, Any]]:
        signals = [self._teach(batch, 1 / len(batches)) for batch in batches]
        known = [signal.uncertainty_N for signal in signals]
        scope = self.loss_settings.get("scope", DEFAULT_SCOPE)
        weights = step_weights(self.weighting, known, scope, gather)
        rows = zip(batches, signals, weights, strict=True)
        return [{**batch, SIGNAL: signal, WEIGHTS: own} for batch, signal, own in rows]

    def _targets(self, hidden_Nd: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor | None]:
        """Uncertainty and log-normaliser where the weights ask for them."""
        if not self.weighting.asks:
            return hidden_Nd.new_zeros(len(hidden_Nd)).float(), None
        # Under the student's autocast, so that the loss meets the same rounded logits.
        with self.accelerator.autocast():
            head = self._head(self.teacher.get_output_embeddings())
            return fused_targets(hidden_Nd, head, targets_N)

    def _teach(self, batch: Mapping[str, Any], share: float) -> TaughtBatch:
        """Runs the teacher; ValueError on labels that are missing or outside the vocabulary."""
        inputs = self._prepare_inputs(dict(batch))
        if inputs.get("labels") is None:
            found = ", ".join(inputs)
            raise ValueError(
                f"a batch has no 'labels', found {found}; expected [B, T], -100 where "
                "not supervised (does the data collator make them?)"
            )
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
        known = self._targets(hidden_Nd, targets_N)
        return TaughtBatch(supervised_BS, targets_N, hidden_Nd, *known, share)

    def compute_loss(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """This micro-batch's part of the step's loss; a batch from elsewhere is a step of its own.

        Times the number of processes in a step, because DDP takes the mean of gradients and the
        log the mean of losses. The router's loss of a mixture of experts, where its output has one,
        is added as the model's own forward adds it. `return_outputs` adds the model's output with
        all logits. ValueError if a loss to train on is not finite.
        """
        inputs, scale, logits = dict(inputs), self.accelerator.num_processes, list[Tensor]()
        if SIGNAL not in inputs:
            (inputs,), scale = self._taught([inputs], alone), 1
        signal, weights = inputs.pop(SIGNAL), inputs.pop(WEIGHTS)
        del inputs["labels"]

        def loss_of(hidden_BTd: Tensor) -> Tensor:
            if return_outputs:
                logits.append(torch.nn.functional.linear(hidden_BTd, head.weight, head.bias))
            return scale * self._loss(hidden_BTd, head, signal, weights)

        with head_returns(self.model, loss_of) as head:
            outputs = model(**inputs, use_cache=False)
        loss = outputs.logits
        if (auxiliary := getattr(outputs, "aux_loss", None)) is not None:
            loss = loss + signal.share * auxiliary_weight(self.model) * auxiliary.to(loss.device)
        if self.model.training:
            self._check_finite(loss, signal)
        if not return_outputs:
            return loss
        outputs.logits = logits[0]
        return loss, outputs

    def _check_finite(self, loss: Tensor, signal: TaughtBatch) -> None:
        """ValueError, since the Trainer logs a loss that is no number as 0."""
        if loss.isfinite():
            return
        if not signal.hidden_Nd.isfinite().all():
            why = "the teacher's hidden states are not finite"
        elif loss.isnan():
            why = "the student's hidden states or a head's weights are not finite"
        else:
            why = "one of both gives probability to what the other gives none (logits of -inf)"
        step = self.state.global_step + 1
        raise ValueError(f"step {step}: the loss is {loss.item()}; expected a finite number: {why}")

    def _loss(
        self, hidden_BTd: Tensor, head: torch.nn.Linear, signal: TaughtBatch, weights: Weights
    ) -> Tensor:
        return weighted_fused_loss(
            self.loss_name,
            hidden_BTd[:, :-1][signal.supervised_BS],
            self._head(head),
            signal.hidden_Nd,
            self._head(self.teacher.get_output_embeddings()),
            signal.targets_N,
            weights,
            self.loss_settings,
            log_normaliser=signal.log_normaliser_N,
        )

    def prediction_step(
        self,
        model: Any,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Any, Any, Any]:
        """As the Trainer's, but logits exist only where somebody looks at them."""
        if not prediction_loss_only or "labels" not in inputs:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None


Trainer: Any = trainer_class("transformers", "Trainer", "trainer")
GKDTrainer: Any = trainer_class("trl.experimental.gkd", "GKDTrainer", "trl")


class KDTrainer(DistillationMixin, Trainer):
    """transformers' `Trainer` with a distillation loss of a step's supervised tokens.

    Args:
        model, teacher: causal language models over one vocabulary whose logits are a linear head's
            output, unchanged. They share no weights; a teacher of None stands for the base of a
            PEFT student, its adapters disabled.
        loss: one of `losses.functional.LOSSES`.
        loss_settings: its settings, as in `kd_loss`, and `scope`: `batch` (all tokens of the
            optimiser step, on all processes) or `micro` (each micro-batch by itself, as the
            official code).
        vocab_size: cuts head rows beyond the tokenizer; by default one more than the largest id
            of `processing_class`, or all rows.
        options: the Trainer's. Batches hold `input_ids`, `labels` (not shifted, -100 where not
            supervised) and whatever else both models take.
    Raises:
        ValueError: settings, models or labels that do not fit.
        ImportError: transformers is missing or too old.
    Source:
        Zhong et al., ACL 2024.
    """


class TRLKDTrainer(DistillationMixin, GKDTrainer):
    """TRL's experimental `GKDTrainer` on fixed data, with any of the losses.

    Args and Raises as in `KDTrainer`; options are the GKDTrainer's, but for `lmbda` and `seq_kd`,
    which must be 0 and False.
    """

    passes_teacher = True

"""What models say at every token of some texts, for a reader to look into.

A teacher, two students (distilled without ATKD and with) and, in the world, the truth: their
likeliest next tokens at each token of references and training rows, the teacher's uncertainty, on
which side of the split the token falls, and the two terms of each student's loss.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from atkd.analysis.uncertainty import training_texts
from atkd.evaluation.probe import Given, add_options, opened
from atkd.evaluation.references import Text, View, read_texts, targets_of, view
from atkd.evaluation.settings import ExplorerSettings
from atkd.losses.functional import token_terms
from atkd.losses.weighting import easy_tokens
from atkd.models import tokenizers
from atkd.runtime.files import write_json
from atkd.runtime.provenance import Stage

Said = list[tuple[str, float]]  # tokens and their probabilities, likeliest first
DIGITS = 4


class Reader:
    """Tokens as people read them."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.end = tokenizer, tokenizer.eos_token_id

    def token(self, number: int) -> str:
        """One token's text; the end has a name."""
        return "(end)" if number == self.end else str(self.tokenizer.decode([number]))

    def text(self, ids: Sequence[int]) -> str:
        """The text of a prompt."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def likeliest(log_p_NV: Tensor, reader: Reader, count: int) -> list[Said]:
    """The likeliest tokens at each position."""
    top = log_p_NV.exp().topk(min(count, log_p_NV.shape[1]), dim=1)
    return [
        [(reader.token(token), round(p, DIGITS)) for token, p in zip(*row, strict=True)]
        for row in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]


def true_tokens(chances: dict[int, float], reader: Reader, count: int) -> Said:
    """The likeliest tokens of a true distribution."""
    ordered = sorted(chances.items(), key=lambda item: -item[1])[:count]
    return [(reader.token(token), round(p, DIGITS)) for token, p in ordered]


def token_rows(
    texts: Sequence[Text], views: Sequence[View], reader: Reader, settings: ExplorerSettings
) -> Iterator[dict[str, Any]]:
    """Every response token of all texts; the split is over all of them together.

    `views`: the teacher's, then each student's.
    """
    targets_N = targets_of(texts)
    rows = slice(0, len(targets_N))
    logits = [seen.log_p(rows).cpu() for seen in views]
    terms = [token_terms(student, logits[0], targets_N) for student in logits[1:]]
    easy = easy_tokens(terms[0]["uncertainty"]).tolist()
    said = [likeliest(log_p, reader, settings.shown) for log_p in logits]
    truths = [
        text.truth[at] if text.truth else {} for text in texts for at in range(len(text.response))
    ]
    for at, target in enumerate(targets_N.tolist()):
        yield {
            "token": reader.token(target),
            "uncertainty": round(terms[0]["uncertainty"][at].item(), DIGITS),
            "easy": easy[at],
            "says": [each[at] for each in said],
            "p": [round(log_p[at, target].exp().item(), DIGITS) for log_p in logits],
            "truth": true_tokens(truths[at], reader, settings.shown),
            "terms": [
                {name: round(each[name][at].item(), DIGITS) for name in ("tkd", "dkd")}
                for each in terms
            ],
        }


def documents(
    texts: Sequence[Text], rows: Iterator[dict[str, Any]], reader: Reader
) -> list[dict[str, Any]]:
    """The texts with their tokens."""
    return [
        {
            "task": text.task,
            "prompt": reader.text(text.prompt),
            "tokens": [next(rows) for _ in text.response],
        }
        for text in texts
    ]


def explore(given: Given, settings: ExplorerSettings, stage: Stage) -> dict[str, Any]:
    """All that the page shows; models in the order teacher, student without ATKD, with."""
    tokenizer = given.tokenizer(stage)
    texts = read_texts(given.tasks, given.prompts, tokenizer, settings)
    texts += training_texts(given.data, tokenizer, settings.max_length, settings.rows)
    vocabulary, reader = tokenizers.vocabulary_size(tokenizer), Reader(tokenizer)
    views = [view(folder, texts, vocabulary, settings) for folder in given.folders.values()]
    with torch.inference_mode():
        rows = token_rows(texts, views, reader, settings)
        return {"runs": list(given.folders), "documents": documents(texts, rows, reader)}


def main() -> None:
    """Writes what the token explorer shows."""
    parser = argparse.ArgumentParser(prog="python -m atkd explorer", description=main.__doc__)
    add_options(parser, ExplorerSettings, training=True)
    args = parser.parse_args()
    given, settings, stage = opened("explorer", ExplorerSettings, args)
    found = explore(given, settings, stage)
    write_json(args.output, found)
    stage.write(args.output.with_suffix(".provenance.json"))
    print(f"{args.output}: {len(found['documents'])} texts")

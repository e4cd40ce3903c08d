"""What the token explorer shows, against whole logits; its page holds it, escaped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from looked_at import command, numbered_rows, trained_on, write_files, write_models

from atkd import token_terms
from atkd.analysis import explorer
from atkd.data import prompts
from atkd.models import tokenizers
from atkd.reporting import pages
from atkd.runtime.files import read_json

GRAMMAR = "{Mia|She*3} is <town=Rome> ."
RUNS = ("opt/-/2b/teacher/1", "opt/1m/2b/supervised_kd/1", "opt/1m/2b/supervised_kd_atkd/1")
SETTINGS = {"tasks": ["dolly"], "batch_size": 3, "documents": 2, "rows": 2, "shown": 3}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("explorer")
    rows = numbered_rows(4, output="She is Rome.", grammar=GRAMMAR)
    rows = [row | {"instruction": f"Say <b>{n}</b>."} for n, row in enumerate(rows)]
    tokenizer = trained_on(rows, 275, ["Mia is Rome."])
    models = list(write_models(folder, RUNS, tokenizer).values())
    write_files(folder, rows, tokenizer)
    argv = command("explorer", folder, RUNS, json.dumps(SETTINGS), "analyses/explorer.json")
    argv += ["--data", str(folder / "train.jsonl")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", argv)
        explorer.main()
    shown = read_json(folder / "analyses/explorer.json")
    return {
        "folder": folder,
        "rows": rows,
        "tokenizer": tokenizer,
        "models": models,
        "shown": shown,
    }


def test_every_token_is_what_whole_logits_say(found: dict[str, Any]) -> None:
    tokenizer = found["tokenizer"]
    vocabulary = tokenizers.vocabulary_size(tokenizer)
    document = found["shown"]["documents"][0]
    asked = tokenizers.encode_prompt(tokenizer, prompts.template(found["rows"][0]["instruction"]))
    said = tokenizers.encode_response(tokenizer, "She is Rome.", eos=True)
    logits = []
    for model in found["models"]:
        with torch.no_grad():
            whole = model(torch.tensor([asked + said])).logits[0, len(asked) - 1 : -1, :vocabulary]
        logits.append(whole.double())
    targets = torch.tensor(said)
    assert len(document["tokens"]) == len(said) and document["tokens"][-1]["token"] == "(end)"
    for at, token in enumerate(document["tokens"]):
        for n, each in enumerate(logits):
            p = each[at].softmax(-1)
            assert token["p"][n] == pytest.approx(p[said[at]].item(), abs=1e-4)
            best = p.topk(3)
            assert [q for _, q in token["says"][n]] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert token["uncertainty"] == pytest.approx(
            1 - logits[0][at].softmax(-1)[said[at]].item(), abs=1e-4
        )
        for n in (1, 2):
            terms = token_terms(logits[n], logits[0], targets)
            for name in ("tkd", "dkd"):
                assert token["terms"][n - 1][name] == pytest.approx(
                    terms[name][at].item(), abs=1e-4
                )


def test_the_split_is_over_all_tokens_shown(found: dict[str, Any]) -> None:
    tokens = [token for document in found["shown"]["documents"] for token in document["tokens"]]
    values = sorted(token["uncertainty"] for token in tokens)
    middle = values[(len(values) - 1) // 2]
    for token in tokens:
        if abs(token["uncertainty"] - middle) > 2e-4:
            assert token["easy"] == (token["uncertainty"] < middle)


def test_the_truth_is_told_where_it_is_known(found: dict[str, Any]) -> None:
    references = [d for d in found["shown"]["documents"] if d["task"] == "dolly"]
    others = [d for d in found["shown"]["documents"] if d["task"] != "dolly"]
    assert len(references) == len(others) == 2
    assert sum(p for _, p in references[0]["tokens"][0]["truth"]) == pytest.approx(1)
    assert all(not token["truth"] for document in others for token in document["tokens"])


def test_the_page_escapes_its_texts_and_works_without_its_script(found: dict[str, Any]) -> None:
    page = pages.explorer(found["folder"]).read_text(encoding="utf-8")
    assert "Say &lt;b&gt;0&lt;/b&gt;." in page and "<b>" not in page
    assert page.count("<details") == sum(len(d["tokens"]) for d in found["shown"]["documents"])
    assert page.count('<button type="button" class="token') == page.count("<details")
    assert "script-src 'sha256-" in page and "Supervised KD + ATKD (1M" in page


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(pages.InputError, match="explorer"):
        pages.explorer(tmp_path)

"""What the environment says of connections, and models and tokenizers of a hub out of reach."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from atkd.models import checkpoints, tokenizers
from atkd.runtime import network
from atkd.runtime.files import InputError


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in network.VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_reasons_are_one_line_without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert network.reason(OSError("refused\nmore")) == "refused"
    assert network.reason(TimeoutError()) == "TimeoutError"
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy")
    monkeypatch.setenv("SSL_CERT_DIR", "")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    told = "refused; the environment sets SSL_CERT_FILE, https_proxy, which connections obey"
    assert network.reason(OSError("refused")) == told


@pytest.mark.case(
    "machine",
    "A model and a tokenizer of the hub through ALL_PROXY=socks5://... without socksio",
    "(Using SOCKS proxy, but the 'socksio' package is not installed.; the environment sets "
    "ALL_PROXY, which connections obey)",
)
def test_a_hub_out_of_reach_is_one_message(says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ImportError("Using SOCKS proxy, but the 'socksio' package is not installed.\nMore.")

    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@proxy:1080")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    source = {"hub": "owner/name", "revision": "abc"}
    with pytest.raises(InputError) as caught:
        checkpoints.open_source(source, "opt", None, 64, 1)
    assert str(caught.value) == f"model owner/name: cannot be opened {says}"
    with pytest.raises(InputError) as caught:
        tokenizers.open_tokenizer(source, "opt")
    assert says in str(caught.value) and "owner/name" in str(caught.value)

"""The settings of a language model as judge; `config.schema.yaml` describes and checks them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atkd import config


def well_formed(text: str) -> str:
    """Text that UTF-8 can hold: `?` in place of half a surrogate pair."""
    return text.encode(errors="replace").decode()


@dataclass(frozen=True)
class JudgeSettings:
    """The keys of the schema's `$defs.judge`; None where one without a default is absent."""

    endpoint: str
    model: str
    key_variable: str
    orders: int
    concurrency: int
    timeout_s: float
    retries: int
    backoff_s: float
    reply_tokens: int
    request: Mapping[str, Any]
    prompt: str | None = None
    max_calls: int | None = None
    max_tokens: int | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> JudgeSettings:
        """Settings checked and filled by the schema; InputError names a bad key."""
        return cls(**config.checked_part("judge", given))

    def body(self, prompt: str) -> dict[str, Any]:
        """A request's fields, the model apart; `request` replaces fields, null removes one."""
        fields = {"temperature": 0, "max_tokens": self.reply_tokens} | dict(self.request)
        kept = {name: value for name, value in fields.items() if value is not None}
        messages = [{"role": "user", "content": well_formed(prompt)}]
        return {"messages": messages} | kept


def described() -> str:
    """Every setting on a line: name, meaning, default."""
    lines = []
    for name, key in config.schema()["$defs"]["judge"]["properties"].items():
        shown = f" [{json.dumps(key['default'])}]" if "default" in key else ""
        lines.append(f"  {name:<13} {key['description'].rstrip('.')}{shown}\n")
    return "".join(lines)

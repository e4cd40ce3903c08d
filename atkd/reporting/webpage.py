"""What this project's HTML pages share: their look, and a frame that runs no foreign code."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape

UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

STYLE = """
:root{color-scheme:light dark;--ink:#1d2329;--soft:#5b6670;--line:#d9dee3;--paper:#fdfdfc;
--tint:#f2f4f6;--good:#176b45;--bad:#a4262c}
@media(prefers-color-scheme:dark){:root{--ink:#e3e7ea;--soft:#9aa5ae;--line:#3a424a;
--paper:#16191d;--tint:#20252a;--good:#63c496;--bad:#ff8a80}}
body{font:16px/1.55 Charter,Georgia,serif;color:var(--ink);background:var(--paper);
margin:0 auto;max-width:76rem;padding:2.5rem 1.5rem 5rem}
h1{font-size:2rem;line-height:1.2;margin:0 0 .3rem}
h2{margin:3rem 0 .8rem;padding-top:.8rem;border-top:1px solid var(--line);font-size:1.35rem}
h3{font-size:1.02rem;margin:1.8rem 0 .4rem}p{max-width:46rem}
.soft,.note,figcaption{color:var(--soft);font-size:.88rem;line-height:1.45;max-width:60rem}
.verdict{border-left:5px solid var(--good);background:var(--tint);padding:.7rem 1rem;
font-weight:600}.verdict.bad{border-color:var(--bad);color:var(--bad)}.scroll{overflow-x:auto}
table{border-collapse:collapse;font:13px/1.35 ui-sans-serif,system-ui,sans-serif;
font-variant-numeric:tabular-nums;border:solid var(--ink);border-width:2px 0}
th,td{padding:.28rem .6rem;text-align:right;white-space:nowrap}
th{white-space:normal;vertical-align:bottom;border-bottom:1px solid var(--ink)}
th:nth-child(-n+2),td:nth-child(-n+2){text-align:left}
tr.rule td{border-top:1px solid var(--line)}tr:hover td{background:var(--tint)}
.wide td{text-align:left;white-space:normal}
figure{margin:1.2rem 0 2rem}nav a{margin-right:1.1rem}a{color:inherit}
figure img{background:#fff;max-width:100%;border-radius:4px;padding:.6rem;box-sizing:border-box}
"""


def clean(text: str) -> str:
    """Text escaped for HTML, in attributes too; control characters and surrogates become U+FFFD."""
    return escape(UNFIT.sub("\ufffd", text), quote=True)


def frame(title: str, body: str, style: str = "", script: str = "") -> str:
    """A self-contained page: `body` is HTML already, `title` is not.

    Its policy loads nothing from anywhere and runs `script` alone, known by its hash.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if script else "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    head += f"<title>{clean(title)}</title><style>{STYLE}{style}</style>"
    code = f"<script>{script}</script>" if script else ""
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body>\n{body}\n{code}</body></html>\n'
    )

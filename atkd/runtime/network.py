"""What the environment says of connections, for messages about those that fail."""

from __future__ import annotations

import os

from atkd.runtime.files import first_line

VARIABLES = (
    "ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip


def obeyed() -> str:
    """Which environment variables connections obey; not their values, which may hold passwords."""
    found = [name for name, value in os.environ.items() if name.upper() in VARIABLES and value]
    names = ", ".join(sorted(found))
    return f"; the environment sets {names}, which connections obey" if found else ""


def reason(error: BaseException) -> str:
    """Why a connection failed, on one line, and what it `obeyed`."""
    cause = getattr(error, "reason", None)
    return first_line(cause if isinstance(cause, BaseException) else error) + obeyed()

"""What the environment says of connections, for messages about those that fail."""

from __future__ import annotations

import os

VARIABLES = (
    "ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip


def reason(error: BaseException) -> str:
    """Why a connection failed, on one line, and which environment variables it obeyed.

    Their values, which may hold passwords, are not told.
    """
    said = str(error).strip().splitlines()[:1] or [type(error).__name__]
    found = [name for name, value in os.environ.items() if name.upper() in VARIABLES and value]
    obeyed = f"; the environment sets {', '.join(sorted(found))}, which connections obey"
    return said[0] + (obeyed if found else "")

"""The URL of the package index with a password, which must not get into an image."""

import os
import subprocess
import sys
from urllib.parse import urlsplit

PASSWORD = "s3cret"  # noqa: S105 - not a real password


def private_index():
    """Return the URL of the package index in use, with a user and a password."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    configured = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    index = os.environ.get("UV_DEFAULT_INDEX") or configured or "https://pypi.org/simple"
    url = urlsplit(index)
    return url._replace(netloc=f"tests:{PASSWORD}@{url.netloc}").geturl()


PRIVATE_INDEX = private_index()

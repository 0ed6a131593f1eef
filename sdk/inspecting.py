"""The verb `inspect`: what is in a bundle, read and checked, nothing loaded."""

import os

from sdk_runtimes.bundle import Bundle, open_bundle


def inspect(path: str | os.PathLike[str]) -> Bundle:
    """Reads a bundle and checks every hash; `print(sdk.inspect(path))` shows its programs and verdicts.

    Args:
        path: the bundle's folder.

    Raises:
        BundleError: there is none, or it is truncated, altered or malicious.
    """
    return open_bundle(path)

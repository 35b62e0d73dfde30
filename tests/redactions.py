"""Redactions as an operator would write them, named by the tests as `tests.redactions:NAME`."""

import re


def mask_digits(text: str) -> str | None:
    """Return the text without its digits, None for one that says secret."""
    return None if "secret" in text else re.sub(r"\d", "#", text)


def fail(text: str) -> str:
    """Raise, as a bad redaction does."""
    raise ValueError(text)

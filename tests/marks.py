"""Marks that many tests share."""

from typing import Any

import pytest

MORE = pytest.mark.slow_all
"""For `make test-all`: the ordinary suite has 25 minutes on two cores."""


def more(*values: Any, id: str | None = None) -> Any:
    """Parameters of a test that is for `make test-all` with them."""
    return pytest.param(*values, marks=MORE, id=id)

"""Ctrl-C while compiled code calls back into Python: it comes behind the block, never lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from backsweep.runtime.stop import interrupt_deferred


@pytest.fixture(autouse=True)
def a_handler_of_python() -> Iterator[None]:
    """Workers of xdist ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_comes_behind_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupt_deferred():
        signal.raise_signal(signal.SIGINT)
        done.append("the rest of the block")
    assert done


def test_an_error_does_not_swallow_the_interrupt():
    with pytest.raises(KeyboardInterrupt) as info, interrupt_deferred():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("of the block")
    assert str(info.value.__context__) == "of the block"


def test_a_second_interrupt_comes_at_once():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupt_deferred():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("the rest of the block")
    assert not done


def test_the_handler_is_what_it_was():
    before = signal.getsignal(signal.SIGINT)
    with interrupt_deferred():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before

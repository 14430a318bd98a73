"""Powers of two taken from and put into the representation of floats, on NumPy arrays.

codegen/native_math.py has the same for scalars in kernels. Zero, negative and non-finite
operands give some number: who uses these functions selects another result there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Layout:
    """How a dtype is represented, as integers.

    Attributes
    ----------
    width, n_mantissa : int
        Bits in all, and of the mantissa.
    bias : int
        Of the exponent.
    rounder : float
        1.5 * 2**n_mantissa: after adding it, the lowest bits are those of an integer.
    root_half : int
        Representation of sqrt(1/2), where mantissas begin.
    root_magic : int
        Less half the representation of x, it is that of 1/sqrt(x) to 3.5 %.
    """

    width: int
    n_mantissa: int
    bias: int
    rounder: float
    root_half: int
    root_magic: int

    @property
    def unsigned(self) -> Any:
        return np.dtype(f"u{self.width // 8}").type

    @property
    def one(self) -> int:
        return self.bias << self.n_mantissa

    @property
    def upper(self) -> int:
        """Mask of sign, exponent and the half of the mantissa whose square is exact."""
        return (1 << self.width) - (1 << (self.n_mantissa // 2 + 1))

    @property
    def integer(self) -> int:
        """Representation of 2**n_mantissa: with an integer in its lowest bits it is the sum."""
        return (self.bias + self.n_mantissa) << self.n_mantissa


LAYOUTS = {
    np.dtype(np.float64): Layout(
        64, 52, 1023, 1.5 * 2.0**52, 0x3FE6A09E667F3BCD, 0x5FE6EB50C7B537A9
    ),
    np.dtype(np.float32): Layout(32, 23, 127, 1.5 * 2.0**23, 0x3F3504F3, 0x5F375A86),
}


def _opened(x: Any) -> tuple[Layout, Any, np.dtype]:
    x = np.asarray(x)
    layout = LAYOUTS[x.dtype]
    return layout, x.view(layout.unsigned), x.dtype


def power_of_two(shifted: Any) -> Any:
    """2**n, given n + rounder; n from 1 - bias to bias."""
    layout, bits, dtype = _opened(shifted)
    u = layout.unsigned
    return ((bits + u(layout.bias)) << u(layout.n_mantissa)).view(dtype)


def exponent(x: Any) -> Any:
    """k of x = mantissa 2**k, as a float; x > 0 and not denormal."""
    layout, bits, dtype = _opened(x)
    u = layout.unsigned
    moved = (bits + u(layout.one - layout.root_half)) >> u(layout.n_mantissa)
    offset = dtype.type(2.0**layout.n_mantissa + layout.bias)
    return (moved | u(layout.integer)).view(dtype) - offset


def mantissa(x: Any) -> Any:
    """The factor in [sqrt(1/2), sqrt(2)) beside `exponent`."""
    layout, bits, dtype = _opened(x)
    u = layout.unsigned
    moved = (bits + u(layout.one - layout.root_half)) & u((1 << layout.n_mantissa) - 1)
    return (moved + u(layout.root_half)).view(dtype)


def root_guess(x: Any) -> Any:
    """1/sqrt(x) to 3.5 %; x > 0 and not denormal.

    C. Lomont, Fast inverse square root, Purdue University 2003; the constant for doubles by
    M. Robertson, A brief history of InvSqrt, University of New Brunswick 2012.
    """
    layout, bits, dtype = _opened(x)
    u = layout.unsigned
    return (u(layout.root_magic) - (bits >> u(1))).view(dtype)


def upper_half(x: Any) -> Any:
    """x without the lower half of its mantissa: its square is exact."""
    layout, bits, dtype = _opened(x)
    return (bits & layout.unsigned(layout.upper)).view(dtype)

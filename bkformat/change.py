"""What became of an array's values: how many differ, how far, and in which direction.

    max_abs     the largest |b - a|; exact where both arrays are of the same integer dtype
    max_rel     the largest |b - a| / |a|, of the elements that are not zero in A
    norm        of b - a, as one long vector: the square root of the sum of its squares
    cosine      (a . b) / (norm of a x norm of b)

All figures are over the elements that are finite in both arrays, worked out in float64; sums of
squares have an exponent of their own, so that none overflows or vanishes. The rest are counted. A
complex element is one number, |x| its modulus. Bits are compared first: where a block has the same
ones, only its norm is worked out.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from bkformat.pairs import Stored, read_pairs

__all__ = ["Change", "Tally"]

_Array = np.ndarray[Any, Any]

_LEAST = 1e-270
"""A sum of squares below this may have lost some to underflow."""


class Change(NamedTuple):
    """Two arrays, or all arrays of two files, compared by value.

    Attributes:
        num_elements: of either.
        identical: every element has the same bits, and the dtype is the same.
        num_different: elements of another value; a NaN is no other than a NaN, nor 0.0 than -0.0.
        max_abs: largest |b - a|, an int for integers and bools.
        max_rel: largest |b - a| / |a| where a is not zero.
        norm: of the change, b - a.
        norm_a, norm_b: of the arrays.
        cosine: of the angle between them, -1 to 1; None where one has norm 0.
        nan_a, nan_b, inf_a, inf_b: elements that are NaN, and infinite.

    What is over no element, or past the range of float64, is None.
    """

    num_elements: int
    identical: bool
    num_different: int
    max_abs: float | None
    max_rel: float | None
    norm: float | None
    norm_a: float | None
    norm_b: float | None
    cosine: float | None
    nan_a: int
    nan_b: int
    inf_a: int
    inf_b: int

    @property
    def bits_alone(self) -> bool:
        """Whether nothing but bits differs: the sign of a zero, the bits of a NaN, the dtype."""
        return not self.identical and not self.num_different

    @property
    def finite(self) -> bool:
        """Whether no element of either is NaN or infinite."""
        return not (self.nan_a or self.nan_b or self.inf_a or self.inf_b)


class _Sum:
    """A sum of floats, as value * 2**exponent, that neither overflows nor vanishes."""

    __slots__ = ("exponent", "value")

    def __init__(self) -> None:
        self.value, self.exponent = 0.0, 0

    def add(self, value: float, exponent: int) -> None:
        if not value:
            return
        value, more = math.frexp(value)
        exponent += more
        if not self.value:
            self.value, self.exponent = value, exponent
            return
        most = max(exponent, self.exponent)
        self.value = math.ldexp(self.value, self.exponent - most)
        self.value += math.ldexp(value, exponent - most)
        self.exponent = most

    def root(self) -> float | None:
        """The square root; None where it is past the range of float64."""
        odd = self.exponent % 2
        try:
            return math.ldexp(math.sqrt(self.value * (1 + odd)), (self.exponent - odd) // 2)
        except OverflowError:
            return None


class Tally:
    """The figures of one pair of arrays, or of many together."""

    def __init__(self) -> None:
        self._num_elements = self._num_different = 0
        self._identical = True
        self._max_abs: float | None = None
        self._max_rel: float | None = None
        self._squares, self._squares_a, self._squares_b = _Sum(), _Sum(), _Sum()
        self._product = _Sum()
        self._nan_a = self._nan_b = self._inf_a = self._inf_b = 0

    def compare(self, a: Stored, b: Stored) -> None:
        """Read two arrays of one shape and add them up.

        Where dtypes differ, values are compared as float64 or complex128, which rounds integers
        past 2**53.

        Raises:
            UpdateChangedError: a file was cut short meanwhile.
        """
        self._num_elements += a.array.size
        same_dtype = a.array.dtype == b.array.dtype
        self._identical = self._identical and same_dtype
        with np.errstate(all="ignore"):
            for part_a, part_b in read_pairs(a, b):
                wide_a = _wide(part_a, a)
                if same_dtype and np.array_equal(_bits(part_a), _bits(part_b)):
                    self._add_same(wide_a, part_a.dtype.kind in "iu")
                else:
                    self._identical = False
                    self._add(part_a, part_b, wide_a, _wide(part_b, b))

    def merge(self, other: Tally) -> None:
        """Add what another tally has found."""
        self._num_elements += other._num_elements
        self._num_different += other._num_different
        self._identical = self._identical and other._identical
        self._note(other._max_abs, other._max_rel)
        for name in ("_squares", "_squares_a", "_squares_b", "_product"):
            part: _Sum = getattr(other, name)
            getattr(self, name).add(part.value, part.exponent)
        self._nan_a += other._nan_a
        self._nan_b += other._nan_b
        self._inf_a += other._inf_a
        self._inf_b += other._inf_b

    def change(self) -> Change:
        """The figures of all that was compared so far."""
        nothing = self._max_abs is None
        norm, norm_a, norm_b = (
            None if nothing else total.root()
            for total in (self._squares, self._squares_a, self._squares_b)
        )  # fmt: skip
        return Change(
            self._num_elements, self._identical, self._num_different,
            _finite(self._max_abs), _finite(self._max_rel), norm, norm_a, norm_b, self._cosine(),
            self._nan_a, self._nan_b, self._inf_a, self._inf_b,
        )  # fmt: skip

    def _cosine(self) -> float | None:
        a, b, product = self._squares_a, self._squares_b, self._product
        if not (a.value and b.value):
            return None
        exponent = a.exponent + b.exponent
        odd = exponent % 2
        root = math.sqrt(a.value * b.value * (1 + odd))  # of a vector with itself, the exact square
        cosine = math.ldexp(product.value / root, product.exponent - (exponent - odd) // 2)
        return max(-1.0, min(1.0, cosine))

    def _note(self, max_abs: float | None, max_rel: float | None) -> None:
        self._max_abs = _larger(self._max_abs, max_abs)
        self._max_rel = _larger(self._max_rel, max_rel)

    def _add_same(self, a: _Array, whole: bool) -> None:
        """A block that has the same bits in both files."""
        finite = np.isfinite(a)
        if not finite.all():
            self._count_unfinite(a, a)
            a = a[finite]
        if a.size:
            _, exponent, squares = _scaled(_parts(a))
            for total in (self._squares_a, self._squares_b, self._product):
                total.add(squares, 2 * exponent)
            self._note(0 if whole else 0.0, 0.0 if squares else None)

    def _add(self, part_a: _Array, part_b: _Array, a: _Array, b: _Array) -> None:
        """A block in which something differs: as it is stored, and widened."""
        finite = np.isfinite(a) & np.isfinite(b)
        if not finite.all():
            self._count_unfinite(a, b)
            x, y = a[~finite], b[~finite]
            self._num_different += int(np.count_nonzero((x != y) & ~(np.isnan(x) & np.isnan(y))))
            part_a, part_b, a, b = part_a[finite], part_b[finite], a[finite], b[finite]
        if not a.size:
            return
        gap, largest, exponent = _gap(part_a, part_b, a, b)
        self._num_different += int(np.count_nonzero(gap))
        self._note(largest, _largest_ratio(gap, np.abs(a), exponent))
        _, more, squares = _scaled(gap)
        self._squares.add(squares, 2 * (exponent + more))
        scaled_a, exponent_a, squares_a = _scaled(_parts(a))
        scaled_b, exponent_b, squares_b = _scaled(_parts(b))
        self._squares_a.add(squares_a, 2 * exponent_a)
        self._squares_b.add(squares_b, 2 * exponent_b)
        self._product.add(_dot(scaled_a, scaled_b), exponent_a + exponent_b)

    def _count_unfinite(self, a: _Array, b: _Array) -> None:
        nan_a, nan_b = (int(np.count_nonzero(np.isnan(x))) for x in (a, b))
        self._nan_a += nan_a
        self._nan_b += nan_b
        self._inf_a += int(np.count_nonzero(~np.isfinite(a))) - nan_a
        self._inf_b += int(np.count_nonzero(~np.isfinite(b))) - nan_b


# --- one block -------------------------------------------------------------------------------


def _bits(part: _Array) -> _Array:
    return part.view(f"u{min(part.dtype.itemsize, 8)}")


def _wide(part: _Array, stored: Stored) -> _Array:
    """The values as float64, or complex128."""
    if stored.array.dtype == "bool":
        part = part != 0
    return part.astype(np.complex128 if part.dtype.kind == "c" else np.float64)


def _parts(wide: _Array) -> _Array:
    """Real numbers that have the same squares in sum."""
    return wide.view(np.float64)


def _dot(a: _Array, b: _Array) -> float:
    # Not np.dot: BLAS would hand long vectors to threads of its own.
    return float(np.einsum("i,i->", a, b))


def _scaled(values: _Array) -> tuple[_Array, int, float]:
    """`values` as scaled * 2**exponent, and the sum of the squares of scaled, which is in range."""
    squares = _dot(values, values)
    if _LEAST < squares < math.inf or not values.any():
        return values, 0, squares
    exponent = math.frexp(float(np.abs(values).max()))[1]
    values = np.ldexp(values, -exponent)
    return values, exponent, _dot(values, values)


def _gap(part_a: _Array, part_b: _Array, a: _Array, b: _Array) -> tuple[_Array, float, int]:
    """|b - a| as gap * 2**exponent, and its largest: an int for integers, infinite past float64."""
    whole = part_a.dtype.kind in "iu" and part_b.dtype.kind in "iu"
    if whole and part_a.dtype == part_b.dtype and part_a.dtype.itemsize == 8:
        x, y = part_a.view("<u8"), part_b.view("<u8")  # the larger less the smaller fits
        exact = np.where(part_a < part_b, y - x, x - y)
        return exact.astype(np.float64), int(exact.max()), 0
    gap = np.abs(b - a)
    largest = float(gap.max())
    if math.isinf(largest):
        return np.abs(b / 4 - a / 4), largest, 2
    return gap, int(largest) if whole else largest, 0


def _largest_ratio(gap: _Array, sizes: _Array, exponent: int) -> float | None:
    if not sizes.all():
        gap, sizes = gap[sizes != 0], sizes[sizes != 0]
    return float(np.ldexp((gap / sizes).max(), exponent)) if sizes.size else None


def _larger(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)


def _finite(figure: float | None) -> float | None:
    return figure if figure is None or math.isfinite(figure) else None

"""A layout side by side with what a schema expects: each mismatch, and what it most likely means.

Arrays are compared by position, exactly, never by broadcasting. Where they do not line up, the
first finding carries a hint in the manner of a diff: one is missing, two are swapped, all are
shifted, some are transposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from bkformat import rules
from bkformat.arrays import ArrayLayout
from bkformat.dtypes import ITEMSIZES
from bkformat.findings import Finding, finding, quoted

if TYPE_CHECKING:
    from bkformat.layout import UpdateLayout
    from bkformat.schema import ArraySpec, UpdateSchema

__all__ = ["compare_layout"]

_T = TypeVar("_T")
_U = TypeVar("_U")
_Fits = Callable[["ArrayLayout", "ArraySpec"], bool]


def compare_layout(
    layout: UpdateLayout, schema: UpdateSchema, *, positions: bool = True
) -> list[Finding]:
    """Every mismatch between what a file says and what a schema expects (BK501 to BK505, BK507).

    `positions` False leaves out what compares arrays by position, where they stand in no list.
    """
    found = [*_file_size(layout, schema), *_num_samples(layout, schema)]
    arrays, places = layout.parameters, layout.positions
    if schema.dtypes is not None:
        found += _allowed_dtypes(places or range(len(arrays)), arrays, schema.dtypes)
    if positions and schema.parameters is not None:
        if places is None:
            found += _parameters(arrays, schema.parameters)
        else:
            found += _placed(places, arrays, schema.parameters)
    return found


def _file_size(layout: UpdateLayout, schema: UpdateSchema) -> Iterator[Finding]:
    if schema.max_nbytes is not None and layout.nbytes > schema.max_nbytes:
        message = f"{layout.nbytes:,} bytes, the schema allows {schema.max_nbytes:,}"
        yield finding(rules.FILE_TOO_LARGE, message)


def _num_samples(layout: UpdateLayout, schema: UpdateSchema) -> Iterator[Finding]:
    count, bounds = layout.num_samples, schema.num_samples
    if count is None or bounds is None:
        return
    if bounds.min is not None and count < bounds.min:
        message = f"{count:,}, the schema asks for at least {bounds.min:,}"
        yield finding(rules.NUM_SAMPLES_BOUNDS, message, where="num_samples")
    if bounds.max is not None and count > bounds.max:
        message = f"{count:,}, the schema allows at most {bounds.max:,}"
        yield finding(rules.NUM_SAMPLES_BOUNDS, message, where="num_samples")


def _allowed_dtypes(
    places: Sequence[int], arrays: Sequence[ArrayLayout], allowed: Sequence[str]
) -> Iterator[Finding]:
    for index, array in zip(places, arrays, strict=True):
        if array.dtype not in allowed and array.dtype in ITEMSIZES:
            message = f"{array.dtype}, the schema allows {', '.join(allowed) or 'none'}"
            where = f"parameters[{index}].dtype"
            yield finding(rules.DTYPE_NOT_ALLOWED, message, offset=array.offset, where=where)


def _placed(
    places: Sequence[int], arrays: Sequence[ArrayLayout], specs: Sequence[ArraySpec]
) -> Iterator[Finding]:
    """Each array by itself, where other items, refused already, stand between them."""
    for index, array in zip(places, arrays, strict=True):
        if index < len(specs):
            yield from _mismatches(index, array, specs[index], None)


def _parameters(arrays: Sequence[ArrayLayout], specs: Sequence[ArraySpec]) -> list[Finding]:
    found: list[Finding] = []
    hint = None
    if not _all_fit(arrays, specs):
        hint = _alignment_hint(arrays, specs)
    if len(arrays) != len(specs):
        arrays_found = f"{len(arrays):,} array{'s' if len(arrays) != 1 else ''}"
        message = f"{arrays_found}, expected {len(specs):,}"
        found.append(finding(rules.PARAMETER_COUNT, message, where="parameters", hint=hint))
    for index, (array, spec) in enumerate(zip(arrays, specs, strict=False)):
        found += _mismatches(index, array, spec, hint)
    # What is wrong with the whole is said once; where arrays are missing, none is compared with its
    # own counterpart, and what each should become is not known.
    if hint is not None or len(arrays) != len(specs):
        found[1:] = [replace(mismatch, hint=None) for mismatch in found[1:]]
    return found


def _mismatches(
    index: int, array: ArrayLayout, spec: ArraySpec, hint: str | None
) -> Iterator[Finding]:
    name = f" ({quoted(spec.name)})" if spec.name is not None else ""
    # A dtype that no update may hold was refused already, with another remedy.
    if spec.dtype is not None and array.dtype != spec.dtype and array.dtype in ITEMSIZES:
        message = f"{array.dtype}, expected {spec.dtype}{name}"
        yield finding(
            rules.DTYPE_MISMATCH, message, offset=array.offset, where=f"parameters[{index}].dtype",
            hint=hint or f"convert it: x.astype({spec.dtype!r})",
        )  # fmt: skip
    if not _shape_fits(array, spec):
        message = f"{_shape(array.shape)}, expected {_shape(spec.shape)}{name}"
        if hint is None and _transposed(array, spec):
            hint = "this looks transposed: save x.T"
        yield finding(
            rules.SHAPE_MISMATCH, message, offset=array.offset,
            where=f"parameters[{index}].shape", hint=hint,
        )  # fmt: skip


def _shape(dims: Sequence[int | None] | None) -> str:
    """A shape as people write it, "?" for a free dimension."""
    dims = dims or ()
    text = ", ".join("?" if dim is None else str(dim) for dim in dims)
    return quoted(f"({text},)" if len(dims) == 1 else f"({text})")[1:-1]


def _shape_fits(array: ArrayLayout, spec: ArraySpec) -> bool:
    if spec.shape is None:
        return True
    return len(array.shape) == len(spec.shape) and all(
        wanted is None or dim == wanted for dim, wanted in zip(array.shape, spec.shape, strict=True)
    )


def _fits(array: ArrayLayout, spec: ArraySpec) -> bool:
    return (spec.dtype is None or array.dtype == spec.dtype) and _shape_fits(array, spec)


def _transposed(array: ArrayLayout, spec: ArraySpec) -> bool:
    turned = array._replace(shape=array.shape[::-1])
    return array.shape != turned.shape and _shape_fits(turned, spec)


def _fits_turned(array: ArrayLayout, spec: ArraySpec) -> bool:
    return _shape_fits(array, spec) or _transposed(array, spec)


def _all_fit(
    arrays: Sequence[ArrayLayout], specs: Sequence[ArraySpec], fits: _Fits | None = None
) -> bool:
    return len(arrays) == len(specs) and all(map(fits or _fits, arrays, specs))


# --- hints -----------------------------------------------------------------------------------


def _alignment_hint(arrays: Sequence[ArrayLayout], specs: Sequence[ArraySpec]) -> str | None:
    """What would make everything match: gaps, a swap, another order, another dtype; or None."""
    hint = _order_hint(arrays, specs, _fits)
    if hint is not None:
        return hint
    dtypes = _dtype_hint(arrays, specs)
    if len(arrays) == len(specs) and all(map(_shape_fits, arrays, specs)):
        return dtypes
    hint = _order_hint(arrays, specs, _shape_fits)
    if hint is not None:
        return f"by their shapes, {hint}" + (f"; {dtypes}" if dtypes else "")
    hint = _order_hint(arrays, specs, _fits_turned) if len(arrays) != len(specs) else None
    return f"{hint}; others look transposed" if hint is not None else None


def _order_hint(
    arrays: Sequence[ArrayLayout], specs: Sequence[ArraySpec], fits: _Fits
) -> str | None:
    first = next(
        (i for i, (a, s) in enumerate(zip(arrays, specs, strict=False)) if not fits(a, s)),
        min(len(arrays), len(specs)),
    )
    if len(arrays) < len(specs):
        return _gap_hint(arrays, specs, first, fits, specs, "missing")
    if len(arrays) > len(specs):
        return _gap_hint(
            specs, arrays, first, lambda spec, array: fits(array, spec), (), "not expected"
        )
    return _swap_hint(arrays, specs, first, fits) or _move_hint(arrays, specs, first, fits)


class _Gap(NamedTuple):
    """Items of the longer list that the shorter one lacks.

    Attributes:
        first: the least index where they may begin.
        last: the greatest one; another than `first` where neighbours are alike.
        length: how many they are.
    """

    first: int
    last: int
    length: int


def _gap_hint(
    shorter: Sequence[_T],
    longer: Sequence[_U],
    first: int,
    fits: Callable[[_T, _U], bool],
    specs: Sequence[ArraySpec],
    what: str,
) -> str | None:
    """Whether the lists match when some items of the longer one are left out, and which.

    `first` is where they first differ; `specs` are the longer list where it has names.
    """
    by = len(longer) - len(shorter)
    if all(map(fits, shorter[first:], longer[first + by :])):
        gaps = [_slid(shorter, longer, first, first, by, fits, 0)]
    else:
        gaps = _gaps(shorter, longer, fits)
    if not gaps:
        return None
    shown = [_gap_text(gap, specs) for gap in gaps[:3]]
    shown += ["others"] if len(gaps) > 3 else []
    text = " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
    text += f" {'is' if len(gaps) == 1 and by == 1 else 'are'} {what}"
    if len(gaps) > 1:
        return f"{text}; all else matches in its order"
    last = gaps[0].last
    if last == len(shorter):
        return f"{text}; all before matches"
    return f"{text}: from parameters[{last}] on, everything matches when shifted by {_number(by)}"


def _gaps(
    shorter: Sequence[_T], longer: Sequence[_U], fits: Callable[[_T, _U], bool]
) -> list[_Gap]:
    """What to leave out of the longer list to get the shorter one; [] where that is impossible.

    Each item takes the next that it fits: if there is a way at all, this is one.
    """
    gaps: list[_Gap] = []
    at = begun = 0  # `begun`: where the shorter list goes on after the last gap
    for index, item in enumerate(shorter):
        start = at
        while at < len(longer) and not fits(item, longer[at]):
            at += 1
        if at == len(longer):
            return []
        if at > start:
            gaps.append(_slid(shorter, longer, index, start, at - start, fits, begun))
            begun = index
        at += 1
    if at < len(longer):
        index = len(shorter)
        gaps.append(_slid(shorter, longer, index, at, len(longer) - at, fits, begun))
    return gaps


def _slid(
    shorter: Sequence[_T],
    longer: Sequence[_U],
    index: int,
    at: int,
    count: int,
    fits: Callable[[_T, _U], bool],
    least: int,
) -> _Gap:
    """The gap before `shorter[index]`, which begins at `longer[at]` or earlier."""
    first = index
    while first > least and fits(shorter[first - 1], longer[at - (index - first) - 1 + count]):
        first -= 1
    return _Gap(at - (index - first), at, count)


def _gap_text(gap: _Gap, specs: Sequence[ArraySpec]) -> str:
    span = gap.last - gap.first + gap.length
    names = [
        quoted(spec.name) for spec in specs[gap.first : gap.first + 3] if spec.name is not None
    ]
    more = ", ..." if span > len(names) else ""
    text = _span(gap.first, span) + (f" ({', '.join(names)}{more})" if names else "")
    return text if gap.first == gap.last else f"{_number(gap.length)} of {text}"


def _swap_hint(
    arrays: Sequence[ArrayLayout], specs: Sequence[ArraySpec], first: int, fits: _Fits
) -> str | None:
    wrong = [i for i in range(first, len(arrays)) if not fits(arrays[i], specs[i])]
    if len(wrong) != 2:
        return None
    one, other = wrong
    if fits(arrays[one], specs[other]) and fits(arrays[other], specs[one]):
        return f"parameters[{one}] and parameters[{other}] look swapped"
    return None


def _move_hint(
    arrays: Sequence[ArrayLayout], specs: Sequence[ArraySpec], first: int, fits: _Fits
) -> str | None:
    """One array that moved: the rest matches when it is taken out and put where it belongs."""
    wrong = [i for i in range(first, len(arrays)) if not fits(arrays[i], specs[i])]
    if len(wrong) < 2:
        return None
    last = wrong[-1]
    if fits(arrays[first], specs[last]) and _all_fit(
        arrays[first + 1 : last + 1], specs[first:last], fits
    ):
        return f"parameters[{first}] looks moved: its place is parameters[{last}]"
    if fits(arrays[last], specs[first]) and _all_fit(
        arrays[first:last], specs[first + 1 : last + 1], fits
    ):
        return f"parameters[{last}] looks moved: its place is parameters[{first}]"
    if fits is _fits and _same_arrays(arrays, specs):
        return f"from parameters[{first}] on, the same arrays stand in another order"
    return None


def _dtype_hint(arrays: Sequence[ArrayLayout], specs: Sequence[ArraySpec]) -> str | None:
    """All arrays are of one dtype, and all should be of another."""
    have, want = {array.dtype for array in arrays}, {spec.dtype for spec in specs}
    if len(have) != 1 or len(want) != 1 or have == want or None in want or len(arrays) == 1:
        return None
    (have_one,), (want_one,) = have, want
    return f"all are {have_one}; convert them: [x.astype({want_one!r}) for x in arrays]"


def _same_arrays(arrays: Sequence[ArrayLayout], specs: Sequence[ArraySpec]) -> bool:
    """Whether the arrays are the schema's in another order; not asked where a spec leaves room."""
    if any(spec.dtype is None or spec.shape is None or None in spec.shape for spec in specs):
        return False
    have = sorted((array.dtype, array.shape) for array in arrays)
    want = sorted((spec.dtype or "", tuple(d or 0 for d in spec.shape or ())) for spec in specs)
    return have == want


def _span(first: int, count: int) -> str:
    return f"parameters[{first}]" if count == 1 else f"parameters[{first}:{first + count}]"


def _number(count: int) -> str:
    return "one" if count == 1 else f"{count:,}"

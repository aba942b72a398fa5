"""Lists of arrays side by side."""

from __future__ import annotations

from random import Random

import pytest

from bkformat import ArrayLayout, alignment
from bkformat.alignment import Place, align


def arrays(text: str) -> list[ArrayLayout]:
    """A letter for a shape; a capital one is of another dtype."""
    return [
        ArrayLayout("float64" if letter.isupper() else "float32", (ord(letter.lower()),), "C", 0, 4)
        for letter in text
    ]


def places(a: str, b: str) -> list[Place]:
    found = align(arrays(a), arrays(b))
    assert found.exact
    return found.places


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("", "", []),
        ("ab", "ab", [(0, 0), (1, 1)]),
        ("ab", "", [(0, None), (1, None)]),
        ("", "a", [(None, 0)]),
        ("abc", "xabc", [(None, 0), (0, 1), (1, 2), (2, 3)]),
        ("abc", "ac", [(0, 0), (1, None), (2, 1)]),
        ("abc", "axc", [(0, 0), (1, 1), (2, 2)]),
        ("abc", "axyc", [(0, 0), (1, None), (None, 1), (None, 2), (2, 3)]),
        ("abcd", "bcda", [(0, None), (1, 0), (2, 1), (3, 2), (None, 3)]),
        # Another dtype of the same shape is found by its shape.
        ("abc", "ABC", [(0, 0), (1, 1), (2, 2)]),
        ("abc", "AxBC", [(0, 0), (None, 1), (1, 2), (2, 3)]),
        ("abcd", "aCd", [(0, 0), (1, None), (2, 1), (3, 2)]),
        # Neighbours that are alike: the first of them stay.
        ("aab", "ab", [(0, 0), (1, None), (2, 1)]),
    ],
)
def test_places(a: str, b: str, expected: list[Place]) -> None:
    assert places(a, b) == expected


def longest(a: str, b: str) -> int:
    """Length of a longest common subsequence, by the book."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
            )
    return table[-1][-1]


@pytest.mark.parametrize("letters", ["a", "ab", "abc", "abcdefgh"])
def test_as_many_as_possible_stay(letters: str) -> None:
    random = Random(len(letters))
    for _ in range(150):
        a, b = ("".join(random.choices(letters, k=random.randrange(40))) for _ in range(2))
        found = places(a, b)
        same = [(i, j) for i, j in found if i is not None and j is not None and a[i] == b[j]]
        assert len(same) == longest(a, b)
        assert [i for i, _ in found if i is not None] == list(range(len(a)))
        assert [j for _, j in found if j is not None] == list(range(len(b)))


def test_thousands_of_arrays_of_few_shapes() -> None:
    random = Random(1)
    a = random.choices("abc", k=5000)
    b = [*a[:700], "d", *a[700:4000], *a[4003:]]
    found = places("".join(a), "".join(b))
    assert len(found) == 5001
    assert sum(i is None for i, _ in found) == 1
    assert sum(j is None for _, j in found) == 3
    assert found[700] == (None, 700)


def test_past_the_bound_arrays_are_paired_by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "MAX_CELLS", 8)
    found = align(arrays("abcd"), arrays("bcda"))
    assert found == ([(0, 0), (1, 1), (2, 2), (3, 3)], False)
    found = align(arrays("abcab"), arrays("cbacbaa"))
    assert not found.exact
    assert (1, 1) in found.places
    assert [i for i, _ in found.places if i is not None] == list(range(5))
    assert [j for _, j in found.places if j is not None] == list(range(7))
    # What is the same at the beginning and the end, or in one list alone, costs nothing.
    assert align(arrays("abcdefgh"), arrays("abcdxefgh")).exact
    assert align(arrays("abcdefgh"), arrays("uvwxyzst")).exact


def test_lists_that_have_no_order_in_common_end() -> None:
    random = Random(2)
    a, b = ([random.choice("abc") for _ in range(200_000)] for _ in range(2))
    assert not align(arrays("".join(a)), arrays("".join(b))).exact

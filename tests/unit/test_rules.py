"""Every rule has a permanent code, one name, and says what, why and how to mend."""

from __future__ import annotations

import re

import pytest

from bkformat import RULES, Rule, rules


def test_codes_are_sorted_and_their_own_keys() -> None:
    assert list(RULES) == sorted(RULES)
    assert all(code == rule.code for code, rule in RULES.items())
    assert all(re.fullmatch(r"BK[1-6]\d\d", code) for code in RULES)


def test_names_are_kebab_case_and_used_once() -> None:
    names = [rule.name for rule in RULES.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)


def test_only_advice_is_a_warning() -> None:
    for rule in RULES.values():
        assert rule.severity == ("warning" if rule.code.startswith("BK6") else "error")


@pytest.mark.parametrize("code", sorted(RULES))
def test_every_text_is_one_line_of_ascii(code: str) -> None:
    for text in RULES[code]:
        assert text
        assert text.isprintable()
        assert text.isascii()
    assert RULES[code].what.endswith(".")
    assert RULES[code].why.endswith(".")


def test_every_constant_is_a_rule_of_the_table() -> None:
    constants = [value for value in vars(rules).values() if type(value) is Rule]
    assert sorted(rule.code for rule in constants) == sorted(RULES)


def test_a_code_is_never_given_twice() -> None:
    before = dict(RULES)
    with pytest.raises(ValueError, match="BK101 is defined twice"):
        rules._rule("BK101", "again", what="", why="", example="", fix="", source="")
    assert before == RULES

"""What Hypothesis runs when it is imported, so that `st.from_type(Update)` draws valid updates.

Every test run of everybody who has both installed comes here: neither numpy nor pydantic is
imported before an update is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bkformat.load import Update

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["register"]


def register() -> None:
    """Tell Hypothesis what an `Update` is drawn from."""
    from hypothesis.strategies import register_type_strategy

    register_type_strategy(Update, _updates)


def _updates(_: type[Update]) -> SearchStrategy[Update]:
    from bkformat.strategies import updates

    return updates()

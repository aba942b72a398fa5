"""Hypothesis strategies for updates, files and schemas, for tests of code that takes them.

    updates()             an `Update`: a count and arrays
    aggregates()          an `Update` with or without a count
    update_files()        the bytes of valid files: canonical, and as every numpy writes them
    faulty_files()        the bytes of a file with a single fault, and the code of that rule
    schemas()             an `UpdateSchema`
    updates_for(schema)   updates that fit a schema

Arguments are by keyword and follow `hypothesis.extra.numpy`: a value, or a strategy to draw it
from; what can't be drawn is an `InvalidArgument`.
"""

try:
    import hypothesis  # noqa: F401  (asked for first, so that its absence is told in one line)
except ImportError as exc:
    raise ImportError(
        'bkformat.strategies needs Hypothesis: pip install "bkformat[strategies]"',
        name="hypothesis",
    ) from exc

from bkformat.strategies.faults import faulty_files
from bkformat.strategies.files import update_files
from bkformat.strategies.schemas import schemas, updates_for
from bkformat.strategies.updates import aggregates, updates

__all__ = ["aggregates", "faulty_files", "schemas", "update_files", "updates", "updates_for"]

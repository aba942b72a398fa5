"""Run where a published client is installed: judges the files named on standard input."""

from __future__ import annotations

import json
import sys


def main() -> None:
    from branchkey.client import Client  # not here when pytest looks for doctests

    client = object.__new__(Client)  # no service is needed to judge a file
    for line in sys.stdin:
        with open(line.rstrip("\n"), "rb") as file:
            try:
                verdict = str(client.validate_weight_shape(file))
            except Exception as exc:  # noqa: BLE001  (the client raises bare ones)
                verdict = f"{type(exc).__name__}: {exc}"
        print(json.dumps(verdict))  # noqa: T201


if __name__ == "__main__":
    main()

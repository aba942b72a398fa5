"""The public surface of bktransport, and what importing it loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bktransport


def test_all_is_exactly_this_list() -> None:
    assert bktransport.__all__ == [
        "AggregationQueue",
        "AuthenticationError",
        "BkTransportError",
        "BrokerError",
        "Client",
        "Credentials",
        "DeadlineError",
        "InvalidAggregateError",
        "InvalidMessageError",
        "NoResponseError",
        "OutcomeUnknownError",
        "ResponseError",
        "StateError",
        "UploadRecord",
        "load_credentials",
    ]


def test_every_public_name_is_there() -> None:
    for name in bktransport.__all__:
        assert getattr(bktransport, name).__name__ == name
    assert set(bktransport.__all__) <= set(dir(bktransport))


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bktransport.nothing


def test_public_errors_form_the_drawn_tree() -> None:
    assert issubclass(bktransport.DeadlineError, bktransport.NoResponseError)
    assert issubclass(bktransport.DeadlineError, TimeoutError)
    assert issubclass(bktransport.AuthenticationError, bktransport.ResponseError)
    assert issubclass(bktransport.InvalidAggregateError, bktransport.ResponseError)
    for name in bktransport.__all__:
        if name.endswith("Error"):
            assert issubclass(getattr(bktransport, name), bktransport.BkTransportError)


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )


def test_importing_the_package_loads_nothing_else() -> None:
    run = _run("import bktransport, sys; print(*sorted(sys.modules))")
    assert not {"requests", "pika", "pydantic", "numpy", "bkformat"} & set(run.stdout.split())


@pytest.mark.parametrize("missing", ["requests", "pika", "stamina", "platformdirs"])
def test_a_missing_extra_says_what_to_install(missing: str) -> None:
    run = _run(f"import sys; sys.modules[{missing!r}] = None\nfrom bktransport import Client")
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == (
        f"ImportError: {missing} is not installed; pip install 'bkformat[transport]'"
    )


def test_the_console_script_says_what_to_install() -> None:
    run = _run(
        "import sys; sys.modules['requests'] = None\n"
        "from bktransport.__main__ import main; sys.argv = ['bktransport', 'login']; main()"
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "bktransport: requests is not installed; pip install 'bkformat[sandbox]'\n"

"""What every test shares: how Hypothesis runs."""

import os

from hypothesis import HealthCheck, settings

# No deadlines: how long one example takes says more about the machine than about the code.
settings.register_profile("local", deadline=None)

# The same examples on every run, and each failure with the line that reproduces it.
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)

settings.load_profile("ci" if os.environ.get("CI") else "local")

"""To come."""

SCENARIOS = ()

"""One leaf at the service: upload updates, hear of aggregates, download them, report metrics."""

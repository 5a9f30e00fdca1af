"""Serving a workload for real: the replay loop, its backends, its metrics."""

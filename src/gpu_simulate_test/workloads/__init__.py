"""Deterministic workloads: prompts, token lengths, arrival schedules."""

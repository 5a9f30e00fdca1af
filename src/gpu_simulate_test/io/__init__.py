"""Artifact contracts, atomic run directories and provenance: where stages meet."""

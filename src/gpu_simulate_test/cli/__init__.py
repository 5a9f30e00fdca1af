"""Entry points: one thin Hydra application a stage."""

"""``hydra/sweeper=capacity``; Hydra takes sweepers from this package only."""

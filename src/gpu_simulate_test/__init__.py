"""Compare a real LLM-serving run with a Vidur simulation of the same workload."""

__version__ = "0.1.0"

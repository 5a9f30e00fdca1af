"""How far the simulator is from every real run we have: ``python -m benchmarks.fidelity``.

A whole run writes ``docs/fidelity/index.md``; with names of data sets it prints what it finds of these. Run it alone
on the machine, for two of its data sets are measured here.
"""

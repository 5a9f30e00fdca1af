"""How far the simulator is from every real run we have.

``python -m benchmarks.fidelity`` measures every data set, or those that are named, keeps the figures in
``docs/fidelity/figures`` and writes the pages beside it from all that are kept. Run it alone on the machine, for two
engines are measured here.
"""

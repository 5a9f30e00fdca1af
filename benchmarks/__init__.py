"""How fast we are, against what each figure is measured against: ``python -m benchmarks``.

A module here with a function ``rows(scale)`` is a benchmark; its name is the module's. Run them alone on the machine.
"""

"""How far a simulated run is from the real one: loading, pairing, statistics, report."""

"""How often the right cause is named: `python -m tests.accuracy`, every fault of the simulated installation at work."""

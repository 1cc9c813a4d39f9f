"""How fast Jobwire is, as ratios to what else was measured in the same run: see docs/benchmarks.md."""

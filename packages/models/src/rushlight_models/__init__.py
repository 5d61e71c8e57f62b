"""The networks that examples, configs and benchmarks share."""

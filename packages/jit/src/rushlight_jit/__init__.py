"""Tracer, graph, passes and code generation."""

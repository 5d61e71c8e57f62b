"""Module, Parameter, layers, functional, init."""

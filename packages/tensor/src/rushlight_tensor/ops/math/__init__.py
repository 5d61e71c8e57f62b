"""Element by element: arithmetic, functions, comparison, conversion."""

"""Other shapes of the same elements: views, joining, padding."""

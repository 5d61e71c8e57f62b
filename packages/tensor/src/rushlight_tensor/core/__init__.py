"""The core: Tensor, records, dispatch, graph, dtypes and devices.  It imports no other room of the package."""

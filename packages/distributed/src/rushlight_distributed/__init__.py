"""Process groups, collectives and data parallelism over MPI."""

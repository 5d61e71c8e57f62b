"""Elements picked and written by index."""

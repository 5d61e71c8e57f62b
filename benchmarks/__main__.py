"""`python -m benchmarks [NAME …] [--rounds N] [--only TEXT]`: each benchmark in a process of its own, in turn."""

from __future__ import annotations

import subprocess
import sys

ALL = ("overhead", "chains", "steps", "loader", "allreduce", "scaling")


def main() -> int:
    """Run the named benchmarks, or all; exit code 1 if one failed."""
    names = [a for a in sys.argv[1:] if a in ALL]
    options = [a for a in sys.argv[1:] if a not in ALL]
    failed = [n for n in names or ALL if subprocess.run([sys.executable, "-m", f"benchmarks.{n}", *options]).returncode]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

"""`make test-mpi`: pytest on N ranks of this environment's mpirun, with what Open MPI wants, as root, too.

Usage: python -m tests.mpi.run RANKS [pytest's arguments]; without any that names tests, all of `tests/mpi`.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rushlight_launch.channel import memory_folder
from rushlight_launch.mpi import environment, files_in, find_mpi


def main(ranks, *args):
    named = any(Path(a.partition("::")[0]).exists() for a in args)
    program = [sys.executable, "-m", "pytest", "--with-mpi", *args, *([] if named else ["tests/mpi"])]
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        env = {**environment(os.environ, ranks), **files_in(folder)}
        return subprocess.run([*find_mpi().command(ranks, None, ()), *program], env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))

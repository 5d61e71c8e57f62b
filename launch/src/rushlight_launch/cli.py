"""The command `rushlight`: one word per command, found by the entry points of what is installed."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import EntryPoint, entry_points, version
from typing import TextIO

from rushlight_launch.mpi import LaunchError
from rushlight_launch.runner import launch as run_job


def main(argv: list[str] | None = None) -> int:
    """Run `rushlight COMMAND ARGS…`; the exit code is the command's."""
    words = sys.argv[1:] if argv is None else argv
    commands = {point.name: point for point in entry_points(group="rushlight.commands")}
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage(commands))
        return 0
    if words[0] in ("-V", "--version"):
        print("rushlight", version("rushlight-launch"))
        return 0
    if words[0] not in commands:
        print(f"rushlight: no command {words[0]!r}; there are: {', '.join(sorted(commands))}", file=sys.stderr)
        return 2
    code: int = commands[words[0]].load()(words[1:])
    return code


def _usage(commands: dict[str, EntryPoint]) -> str:
    purposes = {name: point.dist.metadata["Summary"] if point.dist else "" for name, point in sorted(commands.items())}
    rows = [f"  {name:<9}{purpose}" for name, purpose in purposes.items()]
    return "\n".join(["usage: rushlight COMMAND [ARGS…]", "", *rows, "", "rushlight COMMAND --help tells more."])


def launch(argv: list[str]) -> int:
    """Run `rushlight launch`: exit code 0 only if every rank finished."""
    ours, program = _split(argv)
    parser = _parser()
    options = parser.parse_args(ours)
    module = program[:1] == ["-m"]
    words = program[1:] if module else program
    if not words:
        parser.error("no script given; try: rushlight launch -n 2 train.py")
    try:
        result = run_job(
            words[0],
            words[1:],
            ranks=options.n,
            hostfile=options.hostfile,
            timeout_s=options.timeout,
            log_dir=options.log_dir,
            module=module,
        )
    except LaunchError as error:
        print(f"rushlight launch: {error}", file=sys.stderr)
        return 2
    _say(sys.stdout, "")
    _say(sys.stderr, result.report)
    return result.exit_code


def _say(stream: TextIO, text: str) -> None:
    """Write to a stream that may be closed (`| head`): then nothing more goes there, or Python complains at its end."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """The launcher's options, and the program with its own: from the first word that is no option, or from -m, on."""
    at = 0
    while at < len(argv) and argv[at].startswith("-") and argv[at] != "-m":
        at += 2 if argv[at] in ("-n", "--hostfile", "--timeout", "--log-dir") else 1
    return argv[:at], argv[at:]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rushlight launch",
        description="Run a Python script, or a module with -m, on N MPI ranks; exit code 0 only if all finished.",
        usage="rushlight launch -n N [--hostfile F] [--timeout S] [--log-dir D] (SCRIPT | -m MODULE) [ARGS…]",
        allow_abbrev=False,
    )
    parser.add_argument("-n", type=int, required=True, metavar="N", help="number of ranks")
    parser.add_argument("--hostfile", metavar="F", help="hosts to run on, in the form of the MPI that is installed")
    parser.add_argument("--timeout", type=float, metavar="S", help="end the job after so many seconds")
    parser.add_argument("--log-dir", metavar="D", help="folder of rank<k>.log; default: outputs/launch/<time>-<script>")
    return parser

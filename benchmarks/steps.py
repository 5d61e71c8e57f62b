"""Whole training steps, eager, on all cores: tiny MLP, digits CNN, nanoGPT."""

from __future__ import annotations

import os

from benchmarks.harness import Row, run
from benchmarks.player import Player, both


def main() -> None:
    """Each framework in a process of its own, taking turns."""
    players = [Player(name, threads=len(os.sched_getaffinity(0))) for name in ("torch", "rushlight")]
    # A turn is long (about 0.1 s) beside the milliseconds for which the other's idle threads still spin.
    w = ("torch", "rushlight")
    rows = [
        Row("tiny MLP 64-64-10, Adam", both(players, "tiny_mlp"), 300, (*w, 2.0)),
        Row("digits CNN, batch 64, Adam", both(players, "digits_cnn"), 40, (*w, 1.0)),
        Row("nanoGPT, AdamW, clip", both(players, "nano_gpt"), 5, (*w, 1.0)),
    ]
    run("steps", rows)
    for player in players:
        player.close()


if __name__ == "__main__":
    main()

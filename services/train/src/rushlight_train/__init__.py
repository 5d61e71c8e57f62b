"""The Hydra training job: metrics, checkpoints, resume, sweeps."""

"""The config groups of the training job; at the top of the repository `configs` leads here."""

"""LSTM language model: embedding, LSTM layers, a linear layer over the vocabulary."""

from __future__ import annotations

from rushlight_nn import LSTM, Dropout, Embedding, Linear, Module
from rushlight_tensor import Tensor

State = tuple[Tensor, Tensor]


class LSTMLanguageModel(Module):
    """Predicts the next token from all before it.

    Args:
        vocab_size: Number of tokens.
        embedding_dim: Features of a token.
        hidden_size: Features of the LSTM.
        num_layers: Layers of the LSTM.
        dropout: Dropout probability on embeddings, between layers and before the output.
        tie_weights: Use the embedding table as the output weight; needs embedding_dim = hidden_size.
    Shapes:
        tokens (B, T), logits (B, T, vocab_size), state 2 × (num_layers, B, hidden_size)
    """

    def __init__(
        self, vocab_size: int = 65, embedding_dim: int = 128, hidden_size: int = 256, num_layers: int = 1,
        dropout: float = 0.0, tie_weights: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if tie_weights and embedding_dim != hidden_size:
            raise ValueError(f"LSTMLanguageModel: tie_weights needs embedding_dim = hidden_size, "
                             f"got {embedding_dim} and {hidden_size}")  # fmt: skip
        self.embedding = Embedding(vocab_size, embedding_dim)
        self.lstm = LSTM(
            embedding_dim, hidden_size, num_layers, batch_first=True, dropout=dropout if num_layers > 1 else 0.0
        )
        self.dropout = Dropout(dropout)
        self.output = Linear(hidden_size, vocab_size)
        if tie_weights:
            self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        x = self.dropout(self.embedding(tokens))  # (B, T, E)
        x, state = self.lstm(x, state)  # (B, T, H)
        logits: Tensor = self.output(self.dropout(x))
        assert state is not None
        return logits, state

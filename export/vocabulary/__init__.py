"""Vocabulary pruning: tokens that a corpus never uses leave the tokenizer and the embeddings."""

from export.vocabulary.prune import Pruned, prune_vocabulary

__all__ = ["Pruned", "prune_vocabulary"]

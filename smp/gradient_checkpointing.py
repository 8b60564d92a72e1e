"""Less memory for more time: states are computed again in the backward pass."""

from transformers import PreTrainedModel

from pipeline.errors import ConfigurationError

__all__ = ["enable_gradient_checkpointing"]


def enable_gradient_checkpointing(encoder: PreTrainedModel) -> None:
    """Keep one state a layer while training, and compute the others a second time.

    Args:
        encoder: changed in place; what it computes stays the same, dropout included.

    Raises:
        ConfigurationError: transformers cannot do that for the architecture.
    """
    encoder.config.use_cache = False  # an encoder has none, but transformers would warn of it
    # The older name warns since transformers 5.20, the newer one is not in 5.0.
    enable = getattr(encoder, "activation_checkpointing_enable", None)
    try:
        # The reentrant form gives no gradients where the first layer's input has none, and frozen
        # embeddings have none.
        (enable or encoder.gradient_checkpointing_enable)({"use_reentrant": False})
    except ValueError as error:
        raise ConfigurationError(
            f"--gradient-checkpointing: transformers has none for {encoder.config.model_type}; "
            "leave it away"
        ) from error

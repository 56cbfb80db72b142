"""Whether the losses that a model is trained by reach its latent choice."""

import threading
import warnings

from torch import Tensor


class LossWatch:
    """Warns of losses that are computed from logits alone, by which a latent choice learns nothing."""

    def __init__(self) -> None:
        # By the last backward pass of each thread.
        self._reached: dict[int, set[str]] = {}

    def see(self, logits: Tensor, latent_loss: Tensor) -> None:
        """Sees which of the two a gradient comes to; both are of one forward pass."""
        thread = threading.get_ident()
        if self._reached.get(thread) == {"logits"}:
            warnings.warn(
                "The last loss did not have that of the latent choice in it, which learned nothing. Use `output.loss`, or add "
                "`output.latent_loss.mean()` to a loss of your own.",
                stacklevel=4,
            )
        reached = self._reached[thread] = set[str]()
        logits.register_hook(lambda _: reached.add("logits"))
        latent_loss.register_hook(lambda _: reached.add("latent_loss"))

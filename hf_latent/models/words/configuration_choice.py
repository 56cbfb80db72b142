"""What the configurations of models that make a latent choice have in common."""

from huggingface_hub.dataclasses import strict

from hf_latent.estimators import DEFAULT_ESTIMATOR, Estimator, get_estimator
from hf_latent.models.words.configuration_words import WordsConfig


@strict
class ChoiceConfig(WordsConfig):
    r"""
    Configuration of models that choose something of the words of a text, and learn that from their task.

    estimator (`str`, *optional*, defaults to `"marginals"`): how the gradient gets through the choice, a name of
        `hf_latent.list_estimators()`. With `None` there is no choice: the baseline.
    estimator_options (`dict`, *optional*): its options, such as `{"step_size": 0.1, "num_steps": 1}`.
    argmax_at_evaluation (`bool`, defaults to `False`): in evaluation mode, use the best choice also where training relaxes it.
    decoder_size (`int`, defaults to 100): hidden size of the decoder.
    """

    estimator: str | None = DEFAULT_ESTIMATOR
    estimator_options: dict | None = None
    argmax_at_evaluation: bool = False
    decoder_size: int = 100

    def new_estimator(self) -> Estimator:
        """The estimator with its options.

        Raises:
            TypeError: options that the estimator does not have.
            ValueError: an unknown estimator; a bad value of an option.
        """
        assert self.estimator is not None
        try:
            return get_estimator(self.estimator, **(self.estimator_options or {}))
        except TypeError as error:
            raise TypeError(f"{error} Pass `estimator_options` (or None) that go with the `estimator`.") from None


__all__ = ["ChoiceConfig"]

"""The loss of each example: what transformers' own heads compute, before the mean over the batch."""

import threading
import warnings

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedConfig

from hf_latent.inference.checks import describe, is_eager
from hf_latent.structures import DependencyTree, Independent, Structure

IGNORED = -100


def problem_type(config: PreTrainedConfig, labels: Tensor) -> str:
    """`config.problem_type`; where it is not set, what the labels look like, by transformers' rules."""
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def example_losses(logits: Tensor, labels: Tensor, config: PreTrainedConfig) -> Tensor:
    """`(batch,)` from `logits (batch, num_labels)`: cross-entropy, or the mean over labels of squared error or BCE.

    The labels are class numbers `(batch,)` (-100 is ignored), `(batch,)` or `(batch, num_labels)` values for regression,
    `(batch, num_labels)` 0/1 floats for multi-label classification.

    Raises:
        ValueError: labels that do not fit `config.num_labels` in shape, dtype or range.
    """
    problem, count = problem_type(config, labels), config.num_labels
    logits = logits.float()
    labels = labels.to(logits.device)
    if problem == "single_label_classification":
        check_classes(labels, logits.shape[:1], count)
        return F.cross_entropy(logits, labels.long(), reduction="none", ignore_index=IGNORED)
    if problem == "regression" and labels.shape == logits.shape[:1]:
        labels = labels[:, None]
    if labels.shape != logits.shape:
        raise ValueError(
            f"`labels` must have shape {tuple(logits.shape)} for {problem.replace('_', ' ')} with `num_labels={count}`, got "
            f"{describe(labels)}. Set `num_labels` or `problem_type` to what the data has; class numbers must be integers."
        )
    loss = F.mse_loss if problem == "regression" else F.binary_cross_entropy_with_logits
    return loss(logits, labels.float(), reduction="none").mean(1)


def token_losses(logits: Tensor, labels: Tensor, config: PreTrainedConfig) -> Tensor:
    """`(batch,)`, the sum of the cross-entropies of a row's tokens, from `logits (batch, tokens, num_labels)`.

    The labels are class numbers `(batch, tokens)`; -100 is ignored.

    Raises:
        ValueError: labels that do not fit in shape, dtype or range.
    """
    labels = labels.to(logits.device)
    check_classes(labels, logits.shape[:2], config.num_labels)
    losses = F.cross_entropy(logits.float().flatten(0, 1), labels.long().flatten(), reduction="none", ignore_index=IGNORED)
    return losses.view(labels.shape).sum(1)


def check_classes(labels: Tensor, shape: torch.Size, count: int) -> None:
    """Raises unless `labels` are class numbers below `count`, or -100, of this shape."""
    if labels.is_floating_point() or labels.shape != shape:
        several = 'For several labels an example, set `problem_type="multi_label_classification"` and pass floats.'
        raise ValueError(
            f"`labels` must be class numbers of shape {tuple(shape)}, got {describe(labels)}. "
            + (several if len(shape) == 1 else "A label for each token, with -100 for those that have none.")
        )
    wrong = ((labels < 0) | (labels >= count)) & (labels != IGNORED)
    if is_eager() and wrong.any():
        index = tuple(wrong.nonzero()[0].tolist())
        place = ", ".join(map(str, index))
        raise ValueError(
            f"`labels` must lie between 0 and {count - 1} (`num_labels={count}`), but labels[{place}] is {int(labels[index])}. "
            "Build the model with the `num_labels` that the data has."
        )


def mean_loss(losses: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
    """The mean over the examples that count; over those of all accumulated batches, where the Trainer tells their number.

    The Trainer counts label values (all but -100), of which an example has `labels[0].numel()`.
    """
    if num_items_in_batch is None:
        if labels.dim() == 1 and not labels.is_floating_point():
            return losses.sum() / (labels != IGNORED).sum().clamp(min=1)
        return losses.sum() / max(losses.shape[0], 1)
    per_example = labels.numel() / max(labels.shape[0], 1)
    return losses.sum() * per_example / _total(num_items_in_batch, losses).clamp(min=1)


def mean_token_loss(losses: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
    """The mean over the tokens that have a label; of all accumulated batches, where the Trainer tells their number."""
    count = (labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
    return losses.sum() / _total(count, losses).clamp(min=1)


def mean_heads_loss(losses: Tensor, labels: Tensor | None, num_items_in_batch: Tensor | int | None) -> Tensor:
    """The mean over all examples, labelled or not; over those of all accumulated batches, where the Trainer tells of more.

    (It counts labels: all batches are taken to have as many an example as this one.)
    """
    if num_items_in_batch is None or labels is None:
        return losses.sum() / max(losses.shape[0], 1)
    own = (labels != IGNORED).sum().to(losses.device)
    per_example = torch.where(own > 0, own, labels.numel()) / max(losses.shape[0], 1)
    count = _total(num_items_in_batch, losses) / per_example.clamp(min=1e-6)
    return losses.sum() / count.clamp(min=max(losses.shape[0], 1))


def _total(num_items_in_batch: Tensor | int, losses: Tensor) -> Tensor:
    """The Trainer's count as a scalar, beside the losses; on several GPUs in one process, it is a tensor of one row."""
    return torch.as_tensor(num_items_in_batch, device=losses.device).sum()


def reaching(value: Tensor, *others: Tensor) -> Tensor:
    """`value`, which the others add nothing to, so that whatever they come from gets a gradient, if only of zeros.

    A parameter that gets none stops `DistributedDataParallel`.
    """
    for other in others:
        # The sum of no rows is 0, whatever the rows are.
        value = value + other[:0].sum().to(value.dtype)
    return value


def tree_nll(structure: DependencyTree, scores: Tensor, num_words: Tensor, heads: Tensor, impossible: str = "error") -> Tensor:
    """The negative log-likelihood of gold heads, `(batch,)`: -log of the probability of all trees that have them.

    Args:
        structure: which trees there are.
        scores: `(batch, n, n + 1)`, or `(batch, sentences, n, n + 1)`, whose losses are summed over the sentences.
        num_words: `(batch,)` or `(batch, sentences)`.
        heads: `(batch, columns)` or `(batch, sentences, columns)`; 0 is ROOT, j the j-th word, -100 what is not known.
        impossible: what becomes of a sentence whose heads no tree of the `structure` has: "error", or "skip" for a loss of 0
            and warnings that count such sentences.

    Raises:
        ValueError: heads that do not fit the scores in shape or range, or that no tree of the `structure` has.
    """
    whole: Structure = structure if scores.dim() == 3 else Independent(structure)
    n = scores.shape[-2]
    if heads.is_floating_point() or heads.shape[:-1] != scores.shape[:-2]:
        shape = (*scores.shape[:-2], n)
        raise ValueError(f"`heads` must be integers of shape {shape}, a head for each word, got {describe(heads)}.")
    heads = heads.to(scores.device)
    if heads.shape[-1] < n:
        heads = torch.nn.functional.pad(heads, (0, n - heads.shape[-1]), value=IGNORED)
    own, beyond = heads[..., :n].long(), heads[..., n:]
    known = own != IGNORED
    is_word = torch.arange(n, device=scores.device) < num_words[..., None]
    if is_eager():
        wrong = known & ~(is_word & (own >= 0) & (own <= num_words[..., None]))
        if wrong.any() or (beyond != IGNORED).any():
            index = [int(place) for place in (wrong.nonzero() if wrong.any() else (beyond != IGNORED).nonzero())[0]]
            index[-1] += 0 if wrong.any() else n
            raise ValueError(
                f"`heads` must lie between 0 (ROOT) and the number of words of their sentence, with {IGNORED} beyond its last "
                f"word, but heads{index} is {int(heads[tuple(index)])}, in a sentence of {int(num_words[tuple(index[:-1])])} "
                "words. Heads are of words, not of tokens, in the order of the words."
            )
    other = known[..., None] & (torch.arange(n + 1, device=scores.device) != own[..., None])
    exact = scores.double()
    # The tree with the fewest arcs that are not gold: where all heads are known, the gold tree.
    strangers = (-other.double()).masked_fill(~whole.mask(exact, num_words), -torch.inf)
    gold = whole.argmax(strangers, num_words)
    is_impossible = (gold.bool() & other).flatten(-2).any(-1)
    if is_eager() and is_impossible.any():
        if impossible == "error":
            raise ValueError(
                f"heads{is_impossible.nonzero()[0].tolist()} are those of no tree that {structure!r} allows. Build the model "
                'with `projective=False` or `single_root=False`; or have such trees skipped, by `impossible_heads="skip"` in '
                f"its configuration; or leave the sentence out (fill its heads with {IGNORED})."
            )
        _tell_of_skipped(int(is_impossible.sum()), structure)
    known = known & ~is_impossible[..., None]
    constrained = exact.masked_fill(other & known[..., None], -torch.inf)
    likelihood = whole.score(gold, exact, num_words)
    partial = ~(known | ~is_word).flatten(1).all(1)
    if not is_eager() or partial.any():  # then several trees have these heads, and their probabilities add up
        likelihood = torch.where(partial, whole.log_partition(constrained, num_words), likelihood)
    return (whole.log_partition(exact, num_words) - likelihood).float()


_skipped = 0
_counting = threading.Lock()


def _tell_of_skipped(count: int, structure: DependencyTree) -> None:
    """Warns of the first gold tree that is skipped, the tenth, the hundredth, …: of all in this process."""
    global _skipped
    with _counting:
        before, _skipped = _skipped, _skipped + count
    if len(str(before)) < len(str(before + count)) or not before:
        warnings.warn(
            f"Gold trees that {structure!r} does not allow were skipped, {before + count} so far (a sentence counts each time "
            "that it comes): nothing is learned from their heads.",
            stacklevel=2,
        )

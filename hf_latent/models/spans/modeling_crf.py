"""Labels of words as a whole sequence: a conditional random field on any encoder."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification, PreTrainedModel
from transformers.utils import ModelOutput

from hf_latent.inference.checks import WrongAt, is_eager
from hf_latent.layers import ConditionalRandomField
from hf_latent.models.losses import IGNORED
from hf_latent.models.registry import Task, register_model
from hf_latent.models.spans.configuration_crf import CRFConfig
from hf_latent.models.spans.modeling_tagger import SequenceTagger
from hf_latent.structures import ChainScores


@dataclass
class CRFOutput(ModelOutput):
    """
    loss: the negative log-likelihood of the labels, for each label that was given.
    logits: `(batch, tokens, num_labels)`. In evaluation mode, how likely the best sequence is that has this label at the
        token's word, as a log-probability: the label with the highest is that of the best sequence. In training, the emissions.
        0 at tokens of no word.
    emissions: `(batch, n, num_labels)`, the scores of the labels of each *word* by itself.
    num_words: `(batch,)`.
    hidden_states, attentions: the encoder's, per token, if asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    emissions: Tensor | None = None
    num_words: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@register_model(
    AutoModelForTokenClassification,
    Task("token-classification", "Token Classification", "labels words, each sentence as a whole", kind="sequence"),
)
class CRFForTokenClassification(SequenceTagger):
    """Classification of tokens by a linear-chain conditional random field (Lafferty, McCallum and Pereira 2001).

    A word has the scores of its labels from the encoder, and each pair of neighbouring words those of transitions; the loss is
    the likelihood of whole sequences, and what is decoded is the best one. Where labels are those of spans (`B-PER`), only
    sequences that are valid have any probability (`span_scheme`).

    Labels are as in transformers' own examples, at the first token of each word, with -100 elsewhere; or at all tokens of a
    word. Labels of words that are given (`is_split_into_words=True`), or of some words only, come with the `word_ids` of these
    words ([`encode_words`]): a word without a label may have any, and sequences with the known labels count together.

    In evaluation mode with `decode=False`, `logits` are the emissions, as in training.

    >>> model = CRFForTokenClassification.from_encoder("google-bert/bert-base-cased", id2label={0: "O", 1: "B-PER", 2: "I-PER"})
    """

    config: CRFConfig
    output_class = CRFOutput
    scores_name = "emissions"

    def __init__(self, config: CRFConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config, encoder)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        constraints = None if self.scheme is None else self.scheme.constraints
        self.crf = ConditionalRandomField(config.num_labels, batch_first=True, constraints=constraints)
        self.post_init()

    def score(self, words: Tensor) -> Tensor:
        """The emissions, `(batch, n, num_labels)`."""
        return self.classifier(self.dropout(words.to(self.classifier.weight.dtype))).float()

    def distribution(self, scores: Tensor, num_words: Tensor) -> ChainScores:
        inside = torch.arange(scores.shape[1], device=scores.device) < num_words[:, None]
        return self.crf.chain(scores.double(), inside)[0]

    def losses(self, distribution: ChainScores, labels: Tensor) -> Tensor:
        chain = distribution
        others = (labels != IGNORED)[:, :, None] & (torch.arange(self.num_labels, device=labels.device) != labels[:, :, None])
        gold = ChainScores(chain.emissions.masked_fill(others, -torch.inf), chain.transitions, chain.lengths)
        return (chain.log_partition() - self._total(gold)).float()

    def decoded(self, distribution: ChainScores) -> Tensor:
        return decoding(distribution)

    def undecoded(self, scores: Tensor) -> Tensor:
        return scores

    def _total(self, gold: ChainScores) -> Tensor:
        if not is_eager():
            return gold.log_partition()
        try:
            return gold.log_partition()
        except WrongAt as error:
            raise WrongAt(
                "`{name}` must be sequences that the model has (`span_scheme`), but those of {name}{place} are of none, "
                "whatever the unknown ones are. Mend the labels, or make the model with `span_scheme=None`.",
                "labels",
                error.place,
            ) from None


def decoding(chain: ChainScores) -> Tensor:
    """`(batch, n, tags)`, the log-probability of the best sequence that has each tag; the best sequence's own is the highest.

    Also where others are as good, or nearly so: these stand below by as little as there is.
    """
    best = chain.argmax()
    found = (chain.max_marginals() - chain.log_partition()[:, None, None]).float()
    own = best[:, :, None] == torch.arange(found.shape[2], device=found.device)
    highest = found.gather(2, best.clamp(min=0)[:, :, None])
    below = torch.nextafter(highest, highest.new_full((), -torch.inf))
    return torch.where(own, found, torch.minimum(found, below)).masked_fill(best[:, :, None] < 0, 0.0)


__all__ = ["CRFForTokenClassification", "CRFOutput"]

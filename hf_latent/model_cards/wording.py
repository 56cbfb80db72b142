"""What cards say of all models of a kind."""

from dataclasses import dataclass

from hf_latent.models.registry import Kind


@dataclass(frozen=True)
class Wording:
    """What a card says of a kind of models.

    Attributes:
        heading: of the section on what the model chooses.
        learned: how it learned that.
        limits: what one should not take the choices for.
        citation: whose work the model is made of.
        tags: for the Hub.
        supervised: how it learned where gold ones were learned from, if that can be.
    """

    heading: str
    learned: str
    limits: str
    citation: str
    tags: tuple[str, ...]
    supervised: str | None = None


_GOLD = "Gold trees were learned from, for all sentences or for some."

_ESTIMATORS = r"""The estimators are those of:

```bibtex
@inproceedings{mihaylova-etal-2020-understanding,
    title = "Understanding the Mechanics of {SPIGOT}: Surrogate Gradients for Latent Structure Learning",
    author = "Mihaylova, Tsvetomila and Niculae, Vlad and Martins, Andr{\'e} F. T.",
    booktitle = "Proceedings of EMNLP",
    year = "2020",
}
```"""

WORDINGS: dict[Kind, Wording] = {
    "latent tree": Wording(
        "The latent tree",
        "No tree was shown in training: the model chooses one for each sentence, and learned that from its labels alone.",
        "The trees serve the task. They need not be those of a linguist, and differ from run to run; do not read them as "
        "syntax.",
        _ESTIMATORS,
        ("hf_latent", "latent-structure", "dependency-trees"),
        supervised=_GOLD,
    ),
    "selection": Wording(
        "The chosen words",
        "No words were marked in training: the model chooses some of each text, and learned that from its labels alone.",
        "The label comes from these words alone, but the choice itself has seen the whole text. They need not be those that a "
        "person would give as reasons, and differ from run to run.",
        _ESTIMATORS,
        ("hf_latent", "latent-structure", "rationales"),
    ),
    "parser": Wording(
        "The trees",
        _GOLD,
        "The trees are of the kind that was learned from, with its guidelines and errors; on other texts, they are worse.",
        """The scorers are those of:

```bibtex
@inproceedings{dozat-manning-2017-deep,
    title = "Deep Biaffine Attention for Neural Dependency Parsing",
    author = "Dozat, Timothy and Manning, Christopher D.",
    booktitle = "Proceedings of ICLR",
    year = "2017",
}
```""",
        ("hf_latent", "latent-structure", "dependency-trees"),
    ),
    "sequence": Wording(
        "The sequence of labels",
        "Each sentence is labelled as a whole: labels were learned by the likelihood of whole sequences of them.",
        "The labels are of the kind that was learned from, with its guidelines and errors; on other texts, they are worse.",
        """The model is that of:

```bibtex
@inproceedings{lafferty-etal-2001-conditional,
    title = "Conditional Random Fields: Probabilistic Models for Segmenting and Labeling Sequence Data",
    author = "Lafferty, John and McCallum, Andrew and Pereira, Fernando",
    booktitle = "Proceedings of ICML",
    year = "2001",
}
```""",
        ("hf_latent", "conditional-random-field"),
    ),
}

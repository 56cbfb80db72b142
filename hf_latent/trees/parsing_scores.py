"""How many heads and relations are right, as the CoNLL 2018 shared task counts them."""

from collections.abc import Sequence

from hf_latent.trees.tree import Tree

UNKNOWN = -100
PUNCTUATION = "punct"
# Relations of content words, which are what CLAS is about: not those of function words and of punctuation.
CONTENT = frozenset(
    (
        "nsubj",
        "obj",
        "iobj",
        "csubj",
        "ccomp",
        "xcomp",
        "obl",
        "vocative",
        "expl",
        "dislocated",
        "advcl",
        "advmod",
        "discourse",
        "nmod",
        "appos",
        "nummod",
        "acl",
        "amod",
        "conj",
        "fixed",
        "flat",
        "compound",
        "list",
        "parataxis",
        "orphan",
        "goeswith",
        "reparandum",
        "root",
        "dep",
    )
)


def parsing_scores(
    predicted_heads: Sequence[Sequence[int]],
    gold_heads: Sequence[Sequence[int]],
    predicted_relations: Sequence[Sequence[str]] | None = None,
    gold_relations: Sequence[Sequence[str | None]] | None = None,
    punctuation: bool = True,
    subtypes: bool = False,
) -> dict[str, float]:
    """Attachment scores of sentences whose words are given: shares of words, from 0 to 1.

    With what is asked for by default, they are those of the official script of the CoNLL 2018 shared task (Zeman et al. 2018)
    for files with the same words, where its precision, recall and F1 of UAS and LAS are all one figure. All words count,
    punctuation too; a word below ROOT has the head ROOT, and is right like any other if that is right.

    Returns: "uas", the share of words with the right head; with relations, "las", the share with the right head and relation,
        and "clas", the F1 of content words alone: words with the right head and relation that have a relation of content words
        in the gold tree, against the mean of how many such words either tree has.

    Args:
        predicted_heads, gold_heads: for each sentence the heads of its words, 0 for ROOT and j for the j-th word; they need not
            form trees. Words whose gold head is -100 do not count; columns beyond the last word have -100.
        predicted_relations, gold_relations: for each sentence the relations of its words. Words whose gold relation is None
            count for "uas" alone; where all are, there is no "las" and no "clas".
        punctuation: False to leave out words whose gold relation is `punct`, as papers on other treebanks do.
        subtypes: True to tell subtypes apart; by default, as in the shared task, `acl:relcl` counts as `acl`.

    Raises:
        ValueError: other numbers of sentences or words in one than in another; nothing that counts; relations of one side;
            punctuation to be left out, and no gold relations.
    """
    if (predicted_relations is None) != (gold_relations is None):
        raise ValueError("`predicted_relations` and `gold_relations` must be given both, or neither.")
    if not punctuation and gold_relations is None:
        raise ValueError("`punctuation=False` needs `gold_relations`, which tell what is punctuation.")
    found = {"predicted_heads": predicted_heads, "predicted_relations": predicted_relations, "gold_relations": gold_relations}
    for name, values in found.items():
        if values is not None and len(values) != len(gold_heads):
            raise ValueError(f"`{name}` must be of the {len(gold_heads)} sentences that have gold heads, got {len(values)}.")
    counts = _Counts()
    for row, gold in enumerate(gold_heads):
        known = [word for word, head in enumerate(gold) if head != UNKNOWN]
        for name, values in found.items():
            if values is not None and known and len(values[row]) <= known[-1]:
                raise ValueError(f"`{name}` must be of {known[-1] + 1} words in sentence {row}, got {len(values[row])}.")
        for word in known:
            ours, theirs = predicted_heads[row][word], gold[word]
            if predicted_relations is None or gold_relations is None:
                counts.add(ours == theirs)
                continue
            relation, true = predicted_relations[row][word], gold_relations[row][word]
            if true is None:
                counts.add(ours == theirs)
            elif punctuation or _universal(true) != PUNCTUATION:
                same = relation == true if subtypes else _universal(relation) == _universal(true)
                counts.add(ours == theirs)
                counts.add_relation(ours == theirs and same, _universal(relation) in CONTENT, _universal(true) in CONTENT)
    return counts.scores()


def parsing_scores_of_trees(
    predicted: Sequence[Tree], gold: Sequence[Tree], punctuation: bool = True, subtypes: bool = False
) -> dict[str, float]:
    """`parsing_scores` of trees over the same words; "uas" alone, where some have no relations.

    Raises:
        ValueError: see `parsing_scores`; also trees over other words.
    """
    for row, (ours, theirs) in enumerate(zip(predicted, gold, strict=False)):
        if ours.words != theirs.words:
            raise ValueError(f"`predicted` and `gold` must be over the same words, but are not in sentence {row}.")
    labelled = all(tree.relations for tree in (*predicted, *gold) if tree.words)
    return parsing_scores(
        [tree.heads for tree in predicted],
        [tree.heads for tree in gold],
        [tree.relations for tree in predicted] if labelled else None,
        [tree.relations for tree in gold] if labelled else None,
        punctuation,
        subtypes,
    )


class _Counts:
    """Of words: all, right by head; with relations, right by head and relation; of content words, in either tree, and right."""

    def __init__(self) -> None:
        self.words = self.heads = self.labelled = self.relations = self.content = self.right_content = 0

    def add(self, right: bool) -> None:
        self.words += 1
        self.heads += right

    def add_relation(self, right: bool, predicts_content: bool, is_content: bool) -> None:
        """Of a word that `add` has counted; `right` by its head and relation."""
        self.labelled += 1
        self.relations += right
        self.content += predicts_content + is_content
        self.right_content += right and is_content

    def scores(self) -> dict[str, float]:
        if not self.words:
            raise ValueError("There are no words that count, so that there is nothing to score.")
        found = {"uas": self.heads / self.words}
        if self.labelled:
            found["las"] = self.relations / self.labelled
            found["clas"] = 2 * self.right_content / self.content if self.content else 0.0
        return found


def _universal(relation: str) -> str:
    """Without its subtype."""
    return relation.split(":")[0]

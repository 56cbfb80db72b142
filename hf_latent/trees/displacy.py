"""Trees in the format of displaCy, spaCy's drawer: `displacy.render(to_displacy(tree), style="dep", manual=True)`."""

from typing import Any

from hf_latent.trees.tree import Tree


def to_displacy(tree: Tree) -> dict[str, Any]:
    """`{"words": [{"text", "tag"}], "arcs": [{"start", "end", "label", "dir"}]}`, words counted from 0.

    Words have no tags here, and displaCy draws no arcs from ROOT. Arcs of a tree without relations have empty labels.
    """
    relations = tree.relations or ("",) * len(tree.words)
    arcs = [
        {
            "start": min(word, head - 1),
            "end": max(word, head - 1),
            "label": relation,
            "dir": "left" if word < head - 1 else "right",
        }
        for word, (head, relation) in enumerate(zip(tree.heads, relations, strict=True))
        if head
    ]
    return {"words": [{"text": word, "tag": ""} for word in tree.words], "arcs": arcs}

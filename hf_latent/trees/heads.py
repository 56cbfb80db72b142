"""Questions about the heads of a sentence: for each word 0 (ROOT) or j for the j-th word."""

from collections.abc import Sequence


def is_tree(heads: Sequence[int]) -> bool:
    """Whether there is a way from each word to ROOT. The heads must lie between 0 and their number."""
    return not cycle(heads)


def cycle(heads: Sequence[int]) -> list[int]:
    """The words, from 1, of a cycle in which each hangs from the next, and the last from the first; none in a tree.

    The heads must lie between 0 and their number.
    """
    below_root = {0}
    for start in range(1, len(heads) + 1):
        way: dict[int, None] = {}
        word = start
        while word not in below_root:
            if word in way:
                passed = list(way)
                return passed[passed.index(word) :]
            way[word] = None
            word = heads[word - 1]
        below_root.update(way)
    return []


def depths(heads: Sequence[int]) -> list[int]:
    """How many arcs lie between ROOT and each word of a tree."""
    found = [0] * (len(heads) + 1)
    for word in range(1, len(heads) + 1):
        way = []  # up to a word whose depth is known
        while word and not found[word]:
            way.append(word)
            word = heads[word - 1]
        for below, passed in enumerate(reversed(way), start=1):
            found[passed] = found[word] + below
    return found[1:]


def is_projective(heads: Sequence[int]) -> bool:
    """Whether no two arcs cross, with ROOT before the first word."""
    # By where they begin, the longest first, each arc must lie within those that have begun and not ended.
    arcs = sorted((min(word, head), -max(word, head)) for word, head in enumerate(heads, start=1))
    ends: list[int] = []
    for start, negative_end in arcs:
        while ends and ends[-1] <= start:
            ends.pop()
        if ends and ends[-1] < -negative_end:
            return False
        ends.append(-negative_end)
    return True

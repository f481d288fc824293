"""The greedy soup: the mean of those members that make it better on examples nobody was trained on."""

from collections.abc import Callable, Sequence

from wash_fl.consensus.finish import Arrays

Score = Callable[[Arrays], float]
Blend = Callable[[Sequence[int]], Arrays]


def greedy_soup(scores: dict[int, float], blend: Blend, score: Score) -> tuple[list[int], Arrays]:
    """Choose the members of a greedy soup.

    Wortsman et al. 2022, "Model soups", recipe 1: the members in order of their own scores, best first; each
    stays if the mean with it scores strictly better than without.

    Parameters
    ----------
    scores : dict of int to float
        Accuracy of each member on the held-out examples.
    blend : callable
        Returns the weights of the mean of some members.
    score : callable
        Returns the accuracy of weights on the held-out examples.

    Returns
    -------
    list of int, dict of str to ndarray
        The members that are in it, in the order in which they came; and its weights.
    """
    ranked = sorted(scores, key=lambda member: (-scores[member], member))
    ingredients = ranked[:1]
    weights = blend(ingredients)
    best = score(weights)
    for member in ranked[1:]:
        candidate = blend([*ingredients, member])
        accuracy = score(candidate)
        if accuracy > best:
            ingredients, weights, best = [*ingredients, member], candidate, accuracy
    return ingredients, weights

"""A single merge: alone before it and after it, and one model's bytes."""

import numpy as np
import pytest

from wash_fl.lab.compare.methods import METHODS
from wash_fl.lab.compare.post import Post

OPTIONS = {"members": 3, "rounds": 4, "local-steps": 5, "batch-size": 8}


@pytest.mark.parametrize(("at", "step"), [(0.75, 15), (0.6, 12), (1.0, 20), (0.01, 1)])
def test_members_are_merged_once_then_and_go_on_alone(make_task, at, step):
    method = METHODS["single-merge"]
    config, knobs = method.settings({**OPTIONS, "merge-at": at})
    post = Post(config)
    cohort = method.make(config, make_task(), 0.0, post, knobs)
    merged = []
    merge = cohort.communicate

    def watched(indices, position):
        before = np.mean([each.parameters() for each in cohort.members], axis=0)
        merge(indices, position)
        for member in cohort.members:
            np.testing.assert_allclose(member.parameters(), before, atol=1e-6)
        merged.append(position)

    cohort.communicate = watched
    for number in range(1, 5):
        cohort.round(number)
    assert merged == [step]
    assert (cohort.relative_distance() > 1e-4) == (step < 20)
    size = sum(each.nbytes for each in cohort.weights(0).values())
    assert post.per_member(3)["up_values"] == post.per_member(3)["down_values"] == size
    assert cohort.knob == f"once, after {100 * at:g} % of the run"

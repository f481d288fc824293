"""All checks of a task, in the order in which their answers help."""

from collections.abc import Iterator, Sequence
from typing import Final

from wash_fl.checks import data, export, function, model, training
from wash_fl.checks.finding import Finding
from wash_fl.checks.subject import Check, Subject
from wash_fl.config import RunConfig

CHECKS: Final[tuple[Check, ...]] = (
    training.device,
    data.inputs,
    data.labels,
    data.every_class,
    data.leak,
    data.pixels,
    model.parameters,
    model.fresh,
    model.tokens,
    model.answers,
    model.softmax,
    training.batches,
    training.loss,
    training.own_weights,
    training.step,
    export.export,  # while the other process is at work
    function.names,
    function.train_data,
    function.test_data,
    function.member_data,
    function.weights,
    function.outside,
    function.answers,
    function.loss,
)


def check(
    config: RunConfig, *, exports: bool = True, int8: bool = False, checks: Sequence[Check] = CHECKS
) -> list[Finding]:
    """Return what was found of a task with a run's options, if nothing of it is wrong.

    Parameters
    ----------
    config : RunConfig
        The run's options.
    exports : bool
        Whether the run ends with an export, so that the packages for it must be there.
    int8 : bool
        Whether that is to be in int8, too.
    checks : sequence of callable
        Which checks.

    Raises
    ------
    WashError
        With what is wrong, in one line.
    """
    return list(findings(config, exports=exports, int8=int8, checks=checks))


def findings(
    config: RunConfig, *, exports: bool = True, int8: bool = False, checks: Sequence[Check] = CHECKS
) -> Iterator[Finding]:
    """Yield what each check finds as soon as it has; see :func:`check`."""
    with Subject(config, exports=exports, int8=int8) as subject:
        for each in checks:
            yield from each(subject)

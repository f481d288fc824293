"""What the oracle finds."""


class Violation(AssertionError):  # noqa: N818 (it is a finding, not a failure of the bench)
    """Something that must hold does not."""

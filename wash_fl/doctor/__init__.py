"""Whether a machine can be a device of a fleet: each check says what it found, and what to do about it.

Nothing here imports torch or Flower, so that a machine without them is told so.
"""

from wash_fl.checks.finding import Finding, Level
from wash_fl.doctor.examination import examine
from wash_fl.doctor.superlink import Address

__all__ = ["Address", "Finding", "Level", "examine"]

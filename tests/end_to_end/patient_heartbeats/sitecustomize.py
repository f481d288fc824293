"""Python runs this first if the folder is in PYTHONPATH: Flower gives a process that starts ten minutes.

A client has half a minute from the moment that it claims its task until it runs, and the time is a constant
of Flower's source. On a machine with much else to do PyTorch alone takes longer, and a test measures that.
Heartbeats are sent as often as ever.
"""

from flwr.common import constant

constant.HEARTBEAT_BASE_MULTIPLIER *= constant.HEARTBEAT_DEFAULT_INTERVAL / 600
constant.HEARTBEAT_RANDOM_RANGE = (-0.005, 0.005)
constant.HEARTBEAT_DEFAULT_INTERVAL = 600

"""Python runs this first if the folder is in PYTHONPATH: Flower notices a death in seconds, not in a minute.

Flower's heartbeats are constants of its source: one every 20 s, and whoever sends none for 60 s is dead. A
test that waits for that gives ``Fleet.up(..., env={"PYTHONPATH": <this folder>})``; only the waiting is
shorter then: one every 2.5 s, and 18 s.

The interval stays what it is, for it is also the time that a client has from the moment that it claims its
task until it runs. One that takes longer, on a busy machine, loses the task and is started once more beside
the others, which then take longer still.
"""

from flwr.common import constant

constant.HEARTBEAT_BASE_MULTIPLIER = 0.1
constant.HEARTBEAT_RANDOM_RANGE = (-0.01, 0.01)
constant.HEARTBEAT_PATIENCE = 0.6

"""Python runs this first if the folder is in PYTHONPATH: Flower notices a death in seconds, not in a minute.

Flower's heartbeats are constants of its source (every 30 s, two may be missed). A test that waits for them to
fail gives ``Fleet.up(..., env={"PYTHONPATH": <this folder>})``; only the waiting is shorter then.

Not as short as could be: a client that takes longer to import PyTorch than its task's token lives loses the
task, and is started once more beside the others, which then take longer still.
"""

from flwr.common import constant

constant.HEARTBEAT_DEFAULT_INTERVAL = 8
constant.HEARTBEAT_MIN_INTERVAL = 1
constant.HEARTBEAT_CALL_TIMEOUT = 5

"""A server that is killed while it holds whole models leaves none of them for good."""

import os
import signal
import tempfile

from wash_fl.storage.model_store import ModelStore
from wash_fl.storage.scratch import PREFIX

from fleet import Fleet


def test_models_that_a_killed_server_held_are_gone_when_the_run_goes_on(tmp_path, monkeypatch):
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    journal = tmp_path / "journal.sqlite"
    child = os.fork()
    if child == 0:
        put = ModelStore.put

        def put_and_die(self: ModelStore, member: int, arrays: object) -> None:
            put(self, member, arrays)
            if len(self.members) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        ModelStore.put = put_and_die
        try:
            Fleet(tmp_path).run(journal=journal)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    (folder,) = place.glob(f"{PREFIX}*")
    assert len(list(folder.glob("[0-9].safetensors"))) == 2
    result = Fleet(tmp_path).run(journal=journal)
    assert result.arrays
    assert list(place.glob(f"{PREFIX}*")) == []

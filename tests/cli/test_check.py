"""``wash-fl check`` says what it looked at, and the commands that train refuse what it refuses."""

import json
from pathlib import Path

import pytest

from wash_fl.checks.finding import Finding
from wash_fl.checks.run import check
from wash_fl.errors import DataError

TASKS = Path(__file__).parents[1] / "checks" / "tasks"
DOUBT = Finding("train and test data", "warning", "9 of 9 [red] inputs", "split the data once")


@pytest.fixture
def seen(monkeypatch):
    """``seen(finding, ...)``: checks that find this, or raise it; returns with what they were asked."""

    def pretend(*found):
        asked = []

        def look(config, **more):
            asked.append((config, more))
            for each in found:
                if isinstance(each, Exception):
                    raise each
                yield each

        monkeypatch.setattr("wash_fl.checks.run.findings", look)
        return asked

    return pretend


def test_each_check_says_what_it_found(wash):
    said = wash("check", TASKS / "good.py", columns=200)
    assert (said.status, said.err) == (0, "")
    assert "ok       train data: 60 examples, labels 0 to 2, each class at least 20\n" in said.out
    assert "export: " in said.out and "largest difference to PyTorch" in said.out
    assert f"{TASKS / 'good.py'}: all is well; " in said.out.splitlines()[-1]


def test_a_task_that_is_refused_is_one_line(wash):
    said = wash("check", TASKS / "model_softmax.py", "--json")
    assert (said.status, said.out) == (1, "")
    assert len(said.err.splitlines()) == 1 and "ends in softmax" in said.err


def test_warnings_are_counted_and_advised_on(wash, seen):
    asked = seen(DOUBT, Finding("inputs", "ok", "finite"))
    said = wash("check", "digits", "--batch-size", "8", "--int8")
    assert said.status == 0
    assert "warning  train and test data: 9 of 9 [red] inputs\n         -> split the data once\n" in said.out
    assert "digits: 1 warning; 2 findings" in said.out
    ((config, more),) = asked
    assert (config.task.task, config.training.batch_size) == ("digits", 8)
    assert more == {"exports": False, "int8": True}


def test_json_is_one_object(wash, seen):
    seen(DOUBT)
    content = json.loads(wash("check", "--json").out)
    assert (content["task"], content["warnings"]) == ("digits", 1)
    assert content["findings"] == [DOUBT.as_json()]


def test_the_task_may_be_an_option_or_in_a_file_but_not_two(wash, seen, tmp_path):
    asked = seen()
    assert wash("check", "--task", "smartwatch").status == 0
    file = tmp_path / "run.toml"
    file.write_text('task = "cifar10"\n')
    assert wash("check", "--config", file).status == 0
    assert wash("check", "smartwatch", "--config", file).status == 0
    assert [config.task.task for config, _ in asked] == ["smartwatch", "cifar10", "smartwatch"]
    said = wash("check", "digits", "--task", "smartwatch")
    assert said.status == 1 and "two tasks" in said.err


@pytest.mark.parametrize("command", ["simulate", "serve --connection none", "compare -o out"])
def test_what_trains_checks_first(wash, seen, monkeypatch, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    asked = seen(DOUBT, DataError("the task is no function: mend it."))
    said = wash(*command.split(), "--batch-size", "8")
    assert (said.status, said.err) == (1, "error: the task is no function: mend it.\n")
    ((config, more),) = asked
    assert config.training.batch_size == 8 and more["exports"] is not command.startswith("compare")
    assert not list(tmp_path.iterdir())


def test_what_trains_says_what_may_be_wrong(wash, seen, monkeypatch, tmp_path):
    def stop(*given):
        raise KeyboardInterrupt

    seen(DOUBT)
    monkeypatch.setattr("wash_fl.deploy.simulation.simulate", stop)
    said = wash("simulate")
    assert "warning: train and test data: 9 of 9 [red] inputs; split the data once\n" in said.err


def test_a_comparison_checks_each_task_and_division_once(wash, seen, monkeypatch, tmp_path):
    asked = seen(DataError("no: mend it."))
    wash("compare", "-o", tmp_path / "out", "--methods", "wash,fedavg", "--vary", "p=0.1,0.2")
    assert len(asked) == 1
    asked = seen()
    monkeypatch.setattr("wash_fl.lab.compare.commands._train", lambda folder, workers: None)
    monkeypatch.setattr("wash_fl.lab.compare.table.table", lambda folder: [])
    wash("compare", "-o", tmp_path / "out", "--methods", "wash,fedavg", "--vary", "division=shared,iid")
    assert sorted(config.task.division for config, _ in asked) == ["iid", "shared"]


def test_the_checks_of_a_run_are_those_of_the_command(seen):
    asked = seen(DOUBT)
    from wash_fl.config import RunConfig

    assert check(RunConfig()) == [DOUBT] and len(asked) == 1

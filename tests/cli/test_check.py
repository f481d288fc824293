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
def fake_checks(monkeypatch):
    """``fake_checks(finding, ...)``: checks that find this, or raise it; returns their arguments."""

    def pretend(*outcomes):
        calls = []

        def look(config, **more):
            calls.append((config, more))
            for each in outcomes:
                if isinstance(each, Exception):
                    raise each
                yield each

        monkeypatch.setattr("wash_fl.checks.run.findings", look)
        return calls

    return pretend


def test_each_check_says_what_it_found(wash):
    result = wash("check", TASKS / "good.py", columns=200)
    assert (result.status, result.err) == (0, "")
    assert "ok       train data: 60 examples, labels 0 to 2, each class at least 20\n" in result.out
    assert "export: " in result.out and "largest difference to PyTorch" in result.out
    assert f"{TASKS / 'good.py'}: all is well; " in result.out.splitlines()[-1]


def test_a_task_that_is_refused_is_one_line(wash):
    result = wash("check", TASKS / "model_softmax.py", "--json")
    assert (result.status, result.out) == (1, "")
    assert len(result.err.splitlines()) == 1 and "ends in softmax" in result.err


def test_warnings_are_counted_and_advised_on(wash, fake_checks):
    calls = fake_checks(DOUBT, Finding("inputs", "ok", "finite"))
    result = wash("check", "digits", "--batch-size", "8", "--int8")
    assert result.status == 0
    assert (
        "warning  train and test data: 9 of 9 [red] inputs\n         -> split the data once\n" in result.out
    )
    assert "digits: 1 warning; 2 findings" in result.out
    ((config, more),) = calls
    assert (config.task.task, config.training.batch_size) == ("digits", 8)
    assert more == {"exports": False, "int8": True}


def test_json_is_one_object(wash, fake_checks):
    fake_checks(DOUBT)
    content = json.loads(wash("check", "--json").out)
    assert (content["task"], content["warnings"]) == ("digits", 1)
    assert content["findings"] == [
        {
            "name": "train and test data",
            "level": "warning",
            "found": "9 of 9 [red] inputs",
            "advice": "split the data once",
        }
    ]


def test_the_task_may_be_an_option_or_in_a_file_but_not_two(wash, fake_checks, tmp_path):
    calls = fake_checks()
    assert wash("check", "--task", "smartwatch").status == 0
    file = tmp_path / "run.toml"
    file.write_text('task = "cifar10"\n')
    assert wash("check", "--config", file).status == 0
    assert wash("check", "smartwatch", "--config", file).status == 0
    assert [config.task.task for config, _ in calls] == ["smartwatch", "cifar10", "smartwatch"]
    result = wash("check", "digits", "--task", "smartwatch")
    assert result.status == 1 and "two tasks" in result.err


@pytest.mark.parametrize("command", ["simulate", "serve --connection none", "compare -o out"])
def test_what_trains_checks_first(wash, fake_checks, monkeypatch, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    calls = fake_checks(DOUBT, DataError("the task is no function: mend it."))
    result = wash(*command.split(), "--batch-size", "8")
    assert (result.status, result.err) == (1, "error: the task is no function: mend it.\n")
    ((config, more),) = calls
    assert config.training.batch_size == 8 and more["exports"] is not command.startswith("compare")
    assert not list(tmp_path.iterdir())


def test_what_trains_says_what_may_be_wrong(wash, fake_checks, monkeypatch, tmp_path):
    def stop(*arguments):
        raise KeyboardInterrupt

    fake_checks(DOUBT)
    monkeypatch.setattr("wash_fl.deploy.simulation.simulate", stop)
    result = wash("simulate")
    assert "warning: train and test data: 9 of 9 [red] inputs; split the data once\n" in result.err


def test_a_comparison_checks_each_task_and_division_once(wash, fake_checks, monkeypatch, tmp_path):
    calls = fake_checks(DataError("no: mend it."))
    wash("compare", "-o", tmp_path / "out", "--methods", "wash,fedavg", "--vary", "p=0.1,0.2")
    assert len(calls) == 1
    calls = fake_checks()
    monkeypatch.setattr("wash_fl.lab.compare.commands._train", lambda folder, workers: None)
    monkeypatch.setattr("wash_fl.lab.compare.table.table", lambda folder: [])
    wash("compare", "-o", tmp_path / "out", "--methods", "wash,fedavg", "--vary", "division=shared,iid")
    assert sorted(config.task.division for config, _ in calls) == ["iid", "shared"]


def test_the_checks_of_a_run_are_those_of_the_command(fake_checks):
    calls = fake_checks(DOUBT)
    from wash_fl.config import RunConfig

    assert check(RunConfig()) == [DOUBT] and len(calls) == 1

"""What a training loop keeps besides comes back as it was, value and type, or is refused with its key."""

import hashlib
import json
from collections import Counter, OrderedDict, defaultdict, namedtuple
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from wash_fl.config import ExchangeConfig
from wash_fl.core.schedule import Schedule
from wash_fl.errors import ConfigError, StateError
from wash_fl.member import encoding
from wash_fl.member.member import Member
from wash_fl.member.snapshot import Progress, Snapshot
from wash_fl.member.state import FILE, FileStore
from wash_fl.member.stateful import PackedStates, Stateful, check_stateful

RUN = b"\xab" * 16


class Holder:
    """Says and takes whatever it is given."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def state_dict(self) -> Any:
        return self.value

    def load_state_dict(self, state_dict: Any) -> None:
        self.value = state_dict


def make_member(**states: Stateful) -> Member:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    schedule = Schedule(ExchangeConfig(p=0.5, mix="shuffle", schedule="constant"))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Member(model, optimizer, index=0, seed=1, schedule=schedule, states=states)


def progress_of(member: Member) -> Progress:
    return Progress(
        run=RUN.hex(), member=0, layout=member.layout.fingerprint.hex(), settings="{}", initial="cd" * 32
    )


def through_the_disk(folder: Path, value: Any) -> Any:
    member, twin = make_member(it=Holder(value)), make_member(it=Holder())
    store = FileStore(folder, RUN, 0)
    store.save(Snapshot.of(member, progress_of(member)))
    snapshot = store.load()
    assert snapshot is not None
    snapshot.restore(twin)
    back = twin.states["it"]
    assert isinstance(back, Holder)
    return back.value


def same(one: Any, other: Any) -> bool:
    """Whether two values are alike in type and value, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (torch.Tensor, np.ndarray, np.generic)):
        return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=True)
        return len(one) == len(other) and all(same(a, c) and same(b, d) for (a, b), (c, d) in pairs)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        2**80,
        0.1,
        -0.0,
        float("inf"),
        float("-inf"),
        float("nan"),
        "é\n\ud800",
        [1, [2.5, None]],
        (1, (2, [3])),
        {1, 2},
        frozenset({"a"}),
        {"a": 1, "b": {"c": [1]}},
        {1: "one", False: 2, None: 3, (1, "a"): 4, 2.5: 5, float("inf"): 6},
        {"!tuple": [1]},
        {},
        Counter({2: 2, 5: 1}),
        OrderedDict([("b", 1), ("a", 2)]),
        np.float64(0.25),
        np.float32(0.1),
        np.int64(-3),
        np.bool_(True),
        np.arange(6, dtype=np.uint16).reshape(2, 3).T,
        torch.arange(6.0).reshape(2, 3).t(),
        torch.tensor(7, dtype=torch.int64),
        torch.tensor([0.1], dtype=torch.bfloat16),
        torch.empty(0, 3),
        nn.Parameter(torch.ones(2)).data,
        [{"tensors": (torch.ones(1), torch.zeros(1))}, torch.ones(2) * 2],
    ],
    ids=repr,
)
def test_a_state_comes_back_from_the_disk_as_it_was(tmp_path: Path, value: Any) -> None:
    assert same(through_the_disk(tmp_path, value), value)


def test_a_kept_state_is_a_copy_and_what_is_given_back_is_one_too() -> None:
    value = {"average": torch.zeros(2), "seen": [1]}
    packed = PackedStates.of({"it": Holder(value)})
    assert packed is not None
    value["average"] += 1  # type: ignore[operator]
    value["seen"].append(2)  # type: ignore[union-attr]
    for _ in range(2):
        holder = Holder()
        packed.restore({"it": holder})
        assert holder.value["average"].tolist() == [0, 0] and holder.value["seen"] == [1]
        holder.value["average"] += 5


def test_modules_and_the_version_of_their_state_come_back(tmp_path: Path) -> None:
    def averaged(seed: int) -> AveragedModel:
        torch.manual_seed(seed)
        return AveragedModel(
            nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), multi_avg_fn=get_ema_multi_avg_fn(0.9)
        )

    one, other = averaged(0), averaged(1)
    one.update_parameters(averaged(2).module)
    state = one.state_dict()
    back = through_the_disk(tmp_path, state)
    assert same(dict(back), dict(state)) and back._metadata == state._metadata  # type: ignore[attr-defined]
    other.load_state_dict(back)
    assert int(other.n_averaged) == 1 and torch.equal(other.module[0].weight, one.module[0].weight)


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "where", "kind"),
    [
        ({"best": [1, Fraction(1, 2)]}, "state['it']['best'][1]", "fractions.Fraction"),
        ({"call": abs}, "state['it']['call']", "builtins.builtin_function_or_method"),
        (Point(1, 2), "state['it']", f"{__name__}.Point"),
        ({"d": defaultdict(int)}, "state['it']['d']", "collections.defaultdict"),
        ({Fraction(1, 2): 1}, "a key of state['it']", "fractions.Fraction"),
        ([b"bytes"], "state['it'][0]", "builtins.bytes"),
        ([1j], "state['it'][0]", "builtins.complex"),
        (np.array(["a"]), "state['it']", "numpy.ndarray"),
        (np.str_("a"), "state['it']", "numpy.str_"),
        (torch.ones(2, device="meta"), "state['it']", "torch.Tensor"),
        (torch.ones(2, 2).to_sparse(), "state['it']", "torch.Tensor"),
        (torch.device("cpu"), "state['it']", "torch.device"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_cannot_be_kept_is_refused_with_its_key_and_type(
    refused: Any, value: Any, where: str, kind: str
) -> None:
    with refused(StateError, f"{where} is of type {kind} and cannot be kept"):
        PackedStates.of({"it": Holder(value)})


def test_a_state_that_holds_itself_or_a_tensor_as_a_key_is_refused(refused: Any) -> None:
    knot: list[Any] = []
    knot.append(knot)
    with refused(StateError, "state['it'] holds itself"):
        PackedStates.of({"it": Holder(knot)})
    with refused(StateError, "a key of type Tensor"):
        PackedStates.of({"it": Holder({torch.ones(1): 1})})


def test_an_object_that_cannot_say_or_take_its_state_is_named(refused: Any) -> None:
    class Broken(Holder):
        def state_dict(self) -> Any:
            raise KeyError("no\nway")

        def load_state_dict(self, state_dict: Any) -> None:
            raise TypeError("not that")

    with refused(StateError, "state['it'].state_dict() of a Broken raised KeyError", "way"):
        PackedStates.of({"it": Broken()})
    packed = PackedStates.of({"it": Holder(1)})
    assert packed is not None
    with refused(StateError, "state['it'], a Broken, does not take", "TypeError: not that"):
        packed.restore({"it": Broken()})


# What is handed over


@pytest.mark.parametrize(
    ("state", "parts"),
    [
        (Holder(), ("state is a Holder", 'state={"schedule": schedule}')),
        ([("a", Holder())], ("state is a list",)),
        ({1: Holder()}, ("the name 1, a int",)),
        ({"it": {}}, ("state['it'] is a dict, and not an object with state_dict",)),
        ({"it": Holder}, ("state['it'] is the class Holder",)),
        ({"it": None}, ("state['it'] is a NoneType",)),
        ({"it": lambda: 1}, ("state['it'] is a function",)),
    ],
)
def test_what_is_no_object_with_a_state_is_refused(refused: Any, state: Any, parts: tuple[str, ...]) -> None:
    with refused(ConfigError, *parts):
        check_stateful(state, {})


def test_model_and_optimizer_are_kept_anyway(refused: Any) -> None:
    member = make_member()
    kept = {"model": member.model, "optimizer": member.optimizer}
    for what, each in kept.items():
        with refused(ConfigError, f"state['it'] is the {what}, which is kept anyway"):
            check_stateful({"it": each}, kept)
    check_stateful({"it": AveragedModel(member.model), "n": Holder()}, kept)


# The file


def header(path: Path) -> dict[str, str]:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + size])["__metadata__"]
    return metadata


BEFORE = ("format", "progress", "optimizer", "tensors")
"""What the header of a file has had from the beginning, in the order in which it is sealed."""


def test_a_file_without_states_is_what_it_was_before_there_were_any(tmp_path: Path) -> None:
    member = make_member()
    store = FileStore(tmp_path, RUN, 0)
    store.save(Snapshot.of(member, progress_of(member)))
    found = header(store.path)
    assert found["format"] == "wash-fl member 2"
    assert found.keys() == {*BEFORE, "checksum"}
    sealed = json.dumps([found[name] for name in BEFORE])
    assert found["checksum"] == hashlib.sha256(sealed.encode()).hexdigest()
    loaded = store.load()
    assert loaded is not None and loaded.states is None


def test_a_file_with_states_is_of_a_format_that_an_older_program_refuses(tmp_path: Path) -> None:
    member = make_member(it=Holder(torch.ones(2)))
    store = FileStore(tmp_path, RUN, 0)
    store.save(Snapshot.of(member, progress_of(member)))
    found = header(store.path)
    assert found["format"] == "wash-fl member 3"
    assert found.keys() == {*BEFORE, "checksum", "states"}


def test_every_bit_of_a_states_text_and_tensors_is_under_a_checksum(tmp_path: Path) -> None:
    member = make_member(it=Holder({"epoch": 41, "average": torch.full((3,), 0.7)}))
    path = tmp_path / FILE
    content = encoding.encode(Snapshot.of(member, progress_of(member)))
    for part in (b"epoch", b"41,", torch.full((3,), 0.7).numpy().tobytes()):
        at = content.rindex(part)
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(encoding.Damage):
            encoding.read(path)
    path.write_bytes(content)
    assert encoding.read(path).states is not None


@pytest.mark.parametrize(
    ("kept", "handed", "parts"),
    [
        (("a",), (), ("keeps 'a' besides", "hands over nothing")),
        ((), ("a",), ("keeps nothing besides", "hands over 'a'")),
        (("a", "b"), ("a", "c"), ("keeps 'a', 'b' besides", "hands over 'a', 'c'")),
    ],
)
def test_a_client_that_hands_over_other_things_than_were_kept_is_refused(
    refused: Any, kept: tuple[str, ...], handed: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    member = make_member(**{name: Holder(1) for name in kept})
    snapshot = Snapshot.of(member, progress_of(member))
    twin = make_member(**{name: Holder(2) for name in handed})
    with refused(StateError, *parts):
        snapshot.restore(twin)
    assert all(isinstance(each, Holder) and each.value == 2 for each in twin.states.values())

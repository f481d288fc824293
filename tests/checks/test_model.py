"""What may be wrong with a user's model or loss: each kind is refused before the first step, or works."""

import pytest

from wash_fl.checks import export, function
from wash_fl.checks.run import CHECKS, check
from wash_fl.errors import DataError, ExportError, LayoutError, WashError

pytestmark = pytest.mark.usefixtures("twin_if_asked")

HERE = tuple(each for each in CHECKS if each.__module__ != function.__name__)
QUICK = tuple(each for each in HERE if each != export.export)

DATA = """
GENERATOR = torch.Generator().manual_seed(1)
INPUTS = torch.randn(40, 5, generator=GENERATOR)
def train_data(): return TensorDataset(INPUTS, torch.arange(40) % 2)
def test_data(): return TensorDataset(INPUTS + 0.5, torch.arange(40) % 2)
"""

REFUSALS: dict[str, tuple[str, type[WashError], list[str]]] = {
    "nothing returned": (
        "def model(): nn.Linear(5, 2)",
        DataError,
        ["returns a NoneType", "torch.nn.Module"],
    ),
    "a class": ("class Net(nn.Linear): pass\ndef model(): return Net", DataError, ["class Net", "Net(...)"]),
    "no module": ("def model(): return torch.ones(5, 2)", DataError, ["returns a Tensor", "torch.nn.Module"]),
    "a lazy module": (
        "def model(): return nn.LazyLinear(2)",
        DataError,
        ["'weight'", "no shape yet", "torch.zeros"],
    ),
    "a lazy BatchNorm": (
        "def model(): return nn.Sequential(nn.Linear(5, 2), nn.LazyBatchNorm1d())",
        DataError,
        ["'1.", "no shape yet"],
    ),
    "raised": ("def model(): return nn.Linear(5)", DataError, ["model()", "TypeError", "mine.py:27"]),
    "a missing import": (
        "def model():\n    import no_such_network\n    return nn.Linear(5, 2)",
        DataError,
        ["model()", "'no_such_network'", "not installed", "mine.py:28"],
    ),
    "a word beyond the table, in a list of examples": (
        "def words(most): return [(torch.tensor([1, most if i == 7 else 8]), i % 2) for i in range(40)]\n"
        "def train_data(): return words(9)\n"
        "def test_data(): return words(8)\nINPUT_SHAPE = (2,)\n"
        "def model(): return nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 2))",
        DataError,
        ["train_data()", "example 7", "to 9", "cannot answer", "IndexError"],
    ),
    "a mark of no buffer": (
        "AVERAGED_BUFFERS = ('ema.*',)\ndef model(): return nn.Linear(5, 2)",
        LayoutError,
        ["'ema.*' is to be averaged"],
    ),
    "forward that raises": (
        "class Net(nn.Linear):\n    def forward(self, inputs):\n        return self.missing(inputs)\n"
        "def model(): return Net(5, 2)",
        ExportError,
        ["AttributeError", "missing", "mine.py:29"],
    ),
    "one object for all": (
        "NET = nn.Linear(5, 2)\ndef model(): return NET",
        DataError,
        ["same object", "new model"],
    ),
    "a head for all": (
        "HEAD = nn.Linear(5, 2)\ndef model(): return nn.Sequential(nn.Identity(), HEAD)",
        DataError,
        ["share '1.weight'", "anew"],
    ),
    "a buffer for all": (
        "MEAN = torch.zeros(5)\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self):\n        super().__init__(5, 2)\n"
        "        self.register_buffer('mean', MEAN)\n"
        "def model(): return Net()",
        DataError,
        ["share 'mean'"],
    ),
    "softmax before nn.CrossEntropyLoss": (
        "def model(): return nn.Sequential(nn.Linear(5, 2), nn.Softmax(1))\nloss = nn.CrossEntropyLoss()",
        DataError,
        ["ends in softmax", "return logits"],
    ),
    "a sigmoid and its complement": (
        "class Net(nn.Linear):\n"
        "    def forward(self, inputs):\n"
        "        p = super().forward(inputs).sigmoid()\n        return torch.cat([p, 1 - p], 1)\n"
        "def model(): return Net(5, 1)",
        DataError,
        ["ends in softmax"],
    ),
    "a loss for each example": (
        "def loss(outputs, targets): return nn.functional.cross_entropy(outputs, targets, reduction='none')",
        DataError,
        ["a tensor of shape (32,)", "return its mean"],
    ),
    "a loss that is a number": (
        "def loss(outputs, targets): return nn.functional.cross_entropy(outputs, targets).item()",
        DataError,
        ["the loss of a batch is 0.", "a tensor of one number"],
    ),
    "a loss of NaN": (
        "def loss(outputs, targets): return (outputs - 99).log().mean()",
        DataError,
        ["the loss of a batch is nan"],
    ),
    "a loss of no gradient": (
        "def loss(outputs, targets): return (outputs.argmax(1) != targets).float().mean()",
        DataError,
        ["does not depend on the model", ".detach()"],
    ),
    "a loss that raises": (
        "def loss(outputs, targets): return nn.functional.cross_entropy(targets, outputs)",
        DataError,
        ["loss(outputs, targets)", "mine.py:27"],
    ),
    "a gradient of NaN": (
        "class Net(nn.Linear):\n"
        "    def forward(self, inputs):\n"
        "        outputs = super().forward(inputs)\n"
        "        return outputs + (0 * outputs).abs().sqrt()\n"
        "def model(): return Net(5, 2)",
        DataError,
        ["NaN or infinite after one training step", "square root"],
    ),
    "a detached model": (
        "class Net(nn.Linear):\n"
        "    def forward(self, inputs): return super().forward(inputs).detach().requires_grad_()\n"
        "def model(): return Net(5, 2)",
        DataError,
        ["no parameter has a gradient"],
    ),
    "BatchNorm without statistics": (
        "def model():\n"
        "    norm = nn.BatchNorm1d(4, track_running_stats=False)\n"
        "    return nn.Sequential(nn.Linear(5, 4), norm, nn.Linear(4, 2))",
        ExportError,
        ["'1' is BatchNorm without running statistics", "track_running_stats"],
    ),
    "autocast in forward": (
        "class Net(nn.Linear):\n"
        "    def forward(self, inputs):\n"
        "        with torch.autocast('cpu', torch.bfloat16): return super().forward(inputs)\n"
        "def model(): return Net(5, 2)",
        ExportError,
        ["bfloat16", "autocast"],
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_model_or_a_loss_that_cannot_work_is_refused(task, refused, kind):
    more, error, parts = REFUSALS[kind]
    with refused(error, *parts):
        check(task(DATA + more), checks=QUICK)


WORKING = {
    "a frozen part": (
        DATA + "def model():\n"
        "    return nn.Sequential(nn.Linear(5, 5).requires_grad_(False), nn.Linear(5, 2))"
    ),
    "a softmax with its own loss": (
        DATA + "def model(): return nn.Sequential(nn.Linear(5, 2), nn.Softmax(1))\n"
        "def loss(outputs, targets): return nn.functional.nll_loss(outputs.log(), targets)"
    ),
    "a log-softmax": DATA + "def model(): return nn.Sequential(nn.Linear(5, 2), nn.LogSoftmax(1))",
    "all answers alike": (
        DATA + "def model():\n    built = nn.Linear(5, 2)\n    nn.init.zeros_(built.weight)\n    return built"
    ),
    "old weight norm": DATA + "def model(): return nn.utils.weight_norm(nn.Linear(5, 2))",
    "words": (
        "def train_data(): return TensorDataset(torch.arange(200).view(40, 5) % 9, torch.arange(40) % 2)\n"
        "test_data = train_data\n"
        "def model(): return nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 2))"
    ),
    "a recurrent model": (
        "INPUT_SHAPE = (4, 5)\n"
        "def train_data():\n"
        "    return TensorDataset(torch.randn(40, 4, 5, generator=torch.Generator()), torch.arange(40) % 2)\n"
        "test_data = train_data\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.gru, self.head = nn.GRU(5, 6, batch_first=True), nn.Linear(6, 2)\n"
        "    def forward(self, inputs): return self.head(self.gru(inputs)[0][:, -1])\n"
        "def model(): return Net()"
    ),
}


@pytest.mark.parametrize("kind", WORKING)
def test_a_model_that_can_work_is_exported_before_it_is_trained(task, kind):
    findings = {each.name: each for each in check(task(WORKING[kind]), checks=HERE)}
    assert "largest difference to PyTorch" in findings["export"].detail
    assert ("softmax" in findings) == (kind == "a softmax with its own loss")


def test_without_the_packages_of_an_export_nothing_is_exported(task, monkeypatch, refused):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    monkeypatch.setattr(export, "find_spec", lambda package: None)
    (finding,) = check(task(DATA), exports=False, checks=(export.export,))
    assert finding.level == "warning" and "onnxscript" in finding.detail
    with refused(ExportError, "onnx", "which is missing"):
        check(task(DATA), checks=(export.export,))

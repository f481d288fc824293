"""FedMR: whole layers change places between the members, every round."""

from collections.abc import Sequence

from wash_fl.core import philox
from wash_fl.lab.compare.budget import WHOLE
from wash_fl.lab.compare.methods.method import Method
from wash_fl.lab.compare.methods.rival import Often, Rival


class FedMR(Rival):
    """Members whose tensors are permuted among them, each tensor by a permutation of its own.

    Hu et al. 2023, "FedMR: Federated Learning via Model Recombination", and their code: every entry of the
    state dict, buffers too; without their optional first stage of averaging.
    """

    @property
    def interval(self) -> int:
        """Once per round."""
        return self.config.training.local_steps

    def communicate(self, indices: Sequence[int], position: int) -> None:
        """Permute each entry of the state dicts."""
        own = {index: {name: each.copy() for name, each in self.weights(index).items()} for index in indices}
        self.count(indices, position)
        seed = self.config.training.seed
        mixed: dict[int, dict[str, object]] = {index: {} for index in indices}
        for number, name in enumerate(own[indices[0]]):
            order = philox.order(seed, "layers", len(indices), index=position, member=number)
            for index, source in zip(indices, order.tolist(), strict=True):
                mixed[index][name] = own[indices[source]][name]
        for index in indices:
            self.give(index, mixed[index])  # type: ignore[arg-type]


FEDMR = Method("fedmr", "Hu et al. 2023", FedMR, knobs=Often, fit=WHOLE)

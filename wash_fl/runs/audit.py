"""Whether a stopped fleet still holds every value once: the server's journal beside the members' states.

Three questions, each of which a fault could answer with no:

1. Is everything whole? The journal's rows and the members' files carry checksums.
2. Is each delivery in one place? The last one for a member either waits in the journal, or the member has
   applied it; never neither.
3. Did the last exchange conserve the values? What the members offered (their files keep it as it was before
   the run's dtype left something out) is what the journal says it settled; the permutation, made again, is
   what it says it delivered, value for value the same multiset at each coordinate; and who applied its
   delivery and has not trained since holds it (in an average between pairs the mean of it and of its own
   offer), and besides what its offer left out.

A run of differences to an anchor has more to compare: :mod:`wash_fl.runs.anchors`.
"""

from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from wash_fl.config import RunConfig
from wash_fl.core.codec import rounded
from wash_fl.core.mix import mix
from wash_fl.errors import RunError, StateError
from wash_fl.member.encoding import Damage, read
from wash_fl.member.log import Logs, caught_up
from wash_fl.member.parameters import Values
from wash_fl.member.snapshot import Progress, Snapshot
from wash_fl.member.state import FILE, PREVIOUS, state_path, stored_members
from wash_fl.protocol.delivery import values_after
from wash_fl.protocol.journal import Journal
from wash_fl.protocol.journal_rows import Delivery, Enrolment, Record, Standing, values_hash
from wash_fl.protocol.terms import Terms
from wash_fl.runs.anchors import check_anchors
from wash_fl.runs.findings import Audit, made_member
from wash_fl.runs.folder import JOURNAL, RunFolder
from wash_fl.storage.sqlite_store import SqliteStore


def audit(run: RunFolder, states: Iterable[Path]) -> Audit:
    """Audit a run whose server and members are stopped.

    Parameters
    ----------
    run : RunFolder
        Its folder on the server.
    states : iterable of Path
        The state folders of its devices, or copies of them.

    Raises
    ------
    RunError
        If the run has no journal, its server is at work, or one of the folders is not there.
    StateError
        If the journal is damaged.
    """
    folders = list(states)
    for folder in folders:
        if not folder.is_dir():
            raise RunError(
                f"there is no folder {folder} with members' states: give the state-dir of each device, or a "
                "copy; a simulation keeps them with keep-members, or until it is finished."
            )
    path = run.path / JOURNAL
    if not path.exists():
        raise RunError(f"{run.path} has no {JOURNAL}: no server has worked on this run.")
    with closing(SqliteStore.read(path)) as store:
        return _audited(run, store, folders)


def _audited(run: RunFolder, store: SqliteStore, folders: list[Path]) -> Audit:
    identity, layout = store.run, store.layout.hex()
    journal = Journal(store)
    settled, waiting = journal.restore()
    enrolments = journal.enrolments()
    records = list(journal.records())
    result = Audit(run.path.name, settled, waiting=len(waiting))
    if [record.exchange for record in records] != list(range(1, settled + 1)):
        result.problems.append(f"the journal does not have one record of each exchange up to {settled}")
    by_member = {
        member: _of_this_start(
            result, enrolment, member, _generations(result, folders, identity, member, layout)
        )
        for member, enrolment in enrolments.items()
    }
    result.checked = sum(1 for snapshots in by_member.values() if snapshots)
    for member, enrolment in sorted(enrolments.items()):
        exchanges = [record.exchange for record in records if member in record.deliveries]
        last = max((exchange for exchange in exchanges if exchange > enrolment.joined), default=0)
        newest = by_member[member][0].progress if by_member[member] else None
        _check_deliveries(result, member, enrolment, newest, last=last, waits=waiting.get(member))
    if records and run.config.exchange.anchored:
        check_anchors(result, run.config, records[-1], by_member, journal)
    elif records:
        _LastExchange(result, run.config, records[-1], by_member, waiting).check()
    return result


def _generations(result: Audit, states: list[Path], run: bytes, member: int, layout: str) -> list[Snapshot]:
    """Return a member's snapshots, the newest first; a damaged one is none."""
    homes = [folder for folder in states if member in stored_members(folder, run)]
    if len(homes) > 1:
        result.problems.append(f"member {member} has states in {len(homes)} folders: {homes[0]}, {homes[1]}")
    snapshots: list[Snapshot] = []
    for home in homes[:1]:
        for name in (FILE, PREVIOUS):
            path = state_path(home, run, member).with_name(name)
            if not path.exists():
                continue
            try:
                snapshot = read(path)
            except (Damage, StateError) as error:
                result.unchecked.append(f"{path} cannot be used: {error}")
                continue
            progress = snapshot.progress
            if (progress.run, progress.member, progress.layout) != (run.hex(), member, layout):
                result.problems.append(f"{path} is of another run, member or model")
                continue
            snapshots.append(caught_up(snapshot, Logs(path.parent))[0])
    return snapshots


def _of_this_start(
    result: Audit, enrolment: Enrolment, member: int, snapshots: list[Snapshot]
) -> list[Snapshot]:
    """Return those that go on from the start that the journal has on record; others do not count."""
    counting = [each for each in snapshots if each.progress.incarnation == enrolment.incarnation]
    if any(each.progress.incarnation > enrolment.incarnation for each in snapshots):
        result.problems.append(
            f"member {member} started anew, and the journal does not know of it: it is an older copy"
        )
    elif snapshots and not counting:
        result.unchecked.append(
            f"member {member} was to start anew and has not yet: what it holds does not count"
        )
    return counting


def _check_deliveries(
    result: Audit,
    member: int,
    enrolment: Enrolment,
    progress: Progress | None,
    *,
    last: int,
    waits: Delivery | None,
) -> None:
    """Check that the last delivery for a member is where it can be found, and nothing else is."""
    active = enrolment.standing is Standing.ACTIVE
    standing = "" if active else f"{enrolment.standing}: {enrolment.reason}; "
    where = "nothing waits" if waits is None else f"delivery {waits.exchange} waits"
    if waits is not None and waits.exchange != last:
        result.problems.append(f"{where} for member {member}, and the last it was given is {last}")
    if progress is None:
        result.members[member] = f"{standing}{where}; its state is not here"
        if active:
            result.unchecked.append(f"member {member}'s state is in none of the folders")
        return
    result.members[member] = (
        f"{standing}round {progress.round}, applied {progress.applied}, last delivery {last}, {where}"
    )
    if not active:
        return
    if progress.applied > result.settled or progress.offered > result.settled + 1:
        result.problems.append(f"member {member} is ahead of the journal, which is an older copy")
    if progress.applied < enrolment.applied:
        result.problems.append(
            f"member {member} has applied {progress.applied} and acknowledged {enrolment.applied}: what it "
            "got in between is lost"
        )
    if waits is None and progress.applied < last:
        result.problems.append(
            f"delivery {last} of member {member} is nowhere: it does not wait, and the member has applied "
            f"{progress.applied}"
        )


class _LastExchange:
    """The last exchange, made again from what the members offered in it."""

    def __init__(
        self,
        result: Audit,
        config: RunConfig,
        record: Record,
        snapshots: Mapping[int, list[Snapshot]],
        waiting: Mapping[int, Delivery],
    ) -> None:
        self._result = result
        self._config = config
        self._dtype = config.exchange.dtype
        self._record = record
        self._snapshots = snapshots
        self._waiting = waiting

    def check(self) -> None:
        """Compare offers, deliveries, and what the members hold, with the journal's record."""
        exchange, hashes = self._record.exchange, self._record.deliveries
        offers = self._offers()
        missing = sorted(self._record.offers.keys() - offers.keys())
        if missing:
            self._result.unchecked.append(
                f"the values of exchange {exchange}: members {missing} do not have their offers any more"
            )
        if missing or not hashes:
            return
        settings = next(each[0].progress.settings for each in self._snapshots.values() if each)
        terms = Terms.from_json(settings)
        members = sorted(offers)
        ordered = [offers[member] for member in members]
        options = terms.schedule.options_at(exchange)
        outputs = mix(ordered, seed=terms.seed, exchange=exchange, config=options)
        before, after = (np.sort(np.stack(each).view(np.uint32), axis=0) for each in (ordered, outputs))
        passed_on = options.mix == "shuffle" or options.members_average
        if passed_on and not np.array_equal(before, after):
            self._result.problems.append(f"exchange {exchange} does not conserve the values")
        received = dict(zip(members, outputs, strict=True))
        for member, values in received.items():
            self._result.values += values.size
            if values_hash(values) != hashes.get(member):
                self._result.problems.append(
                    f"exchange {exchange} gave member {member} other values than the offers make"
                )
        for member, delivery in self._waiting.items():
            if delivery.exchange == exchange and values_hash(delivery.values) != hashes.get(member):
                self._result.problems.append(
                    f"what waits for member {member} is not what exchange {exchange} gave it"
                )
        self._check_held(terms, received)

    def _offers(self) -> dict[int, Values]:
        """Return what each member offered, as it travelled, from what it kept of it."""
        offers: dict[int, Values] = {}
        for member, expected in self._record.offers.items():
            for snapshot in self._snapshots.get(member, []):
                if snapshot.progress.offered == self._record.exchange and snapshot.offer is not None:
                    offers[member] = rounded(snapshot.offer, self._dtype)
                    if values_hash(offers[member]) != expected:
                        self._result.problems.append(
                            f"member {member} offered other values in exchange {self._record.exchange}"
                        )
                    break
        return offers

    def _check_held(self, terms: Terms, received: Mapping[int, Values]) -> None:
        """Look at the members that have not trained since: each holds what it offered, or what it got."""
        exchange = self._record.exchange
        for index, values in received.items():
            snapshot = self._snapshots[index][0]
            progress = snapshot.progress
            logs = Logs(Path(snapshot.source).parent)
            entries = list(logs.open(progress.log).read()) if progress.log else []
            # After what is in the log nothing was kept of any training.
            trained = progress.step != progress.offered_step and not entries
            if progress.offered != exchange or trained or terms.exchange.overlap:
                continue
            member = made_member(self._config, terms)
            if member.layout.fingerprint.hex() != snapshot.progress.layout:
                self._result.unchecked.append(
                    "the members' own values: the run's task makes another model now"
                )
                return
            snapshot.restore(member)
            for entry in entries:
                member.hold(entry.exchange, entry.values)
            applied = snapshot.progress.applied == exchange
            expected = snapshot.offer
            if applied and expected is not None:
                expected = values_after(
                    Delivery(exchange, values),
                    member=index,
                    applied=exchange - 1,
                    offered=exchange,
                    offer=expected,
                    dtype=self._dtype,
                    mean=terms.schedule.options_at(exchange).members_average,
                )
            if expected is None or values_hash(member.offer(exchange)) != values_hash(expected):
                what = "got" if applied else "offered"
                self._result.problems.append(
                    f"member {index} does not hold what it {what} in exchange {exchange}"
                )


def as_json(result: Audit) -> dict[str, Any]:
    """Return what an audit found as one JSON object."""
    return {**vars(result), "members": {str(member): text for member, text in result.members.items()}}

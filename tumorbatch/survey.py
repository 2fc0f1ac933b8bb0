"""How far the tasks of a job are: parts that are done, running, stopped, or were never started."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tumorbatch import stores
from tumorbatch.errors import ConfigError, InputError
from tumorbatch.files import printable
from tumorbatch.lock import find_holder, lock_beside, lock_inside
from tumorbatch.object_path import Location, ObjectPath
from tumorbatch.parts import (
    Frozen,
    Part,
    area_beside,
    find_chunks,
    gate,
    place_in_work,
    read_frozen,
    running,
    started,
)
from tumorbatch.shardset import WORK

DONE, RUNNING, STOPPED, WAITING = "done", "running", "stopped", "never started"


@dataclass(frozen=True, slots=True)
class PartState:
    """How far one part is.

    Attributes:
        part: Which one, "3/64".
        state: `DONE`, `RUNNING`, `STOPPED` (its task ended too early) or `WAITING`.
        chunks: Number of its chunks.
        finished: How many of them are computed, by whichever task.
        host: Where its last task ran, or "".
        since: When that one started (ISO 8601, UTC), or "".
    """

    part: str
    state: str
    chunks: int
    finished: int
    host: str = ""
    since: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """How far a job is.

    Attributes:
        files: In its list.
        chunks: In its list.
        finished: Chunks that are computed.
        parts: Of the newest division into parts, and those of others that are running.
        listing: Who writes down the list of files, or "".
        finishing: Who writes the output, or "".
    """

    files: int
    chunks: int
    finished: int
    parts: Sequence[PartState]
    listing: str = ""
    finishing: str = ""

    def count(self, state: str) -> int:
        """Return the number of parts in a state."""
        return sum(part.state == state for part in self.parts)


def take(output: Location, work: Path | None = None) -> Survey | None:
    """Look how far a job is, without disturbing it.

    Args:
        output: A table, or the folder of a shard set.
        work: The work folder of a table in an object store.

    Returns:
        None where no task has left anything, and the output is there.

    Raises:
        InputError: There is neither an output nor unfinished work.
        ConfigError: `work` is missing, or was given for an output on a disk.
        TumorBatchError: As `stores.find_objects`.
    """
    place = _place(output, work)
    area, lock = area_beside(place), lock_beside(place)
    if (place / WORK).is_dir():
        area, lock = place / WORK, lock_inside(place)
    frozen = read_frozen(area)
    listing, finishing = (find_holder(path) for path in (gate(area), lock))
    if frozen is None and listing is None:
        if finishing is None and not _exists(output):
            raise InputError(
                f"{printable(str(output))} does not exist, and no part of it was computed. Give the "
                "output of the command, as it was given there."
            )
        return Survey(0, 0, 0, (), finishing=finishing.text) if finishing else None
    return Survey(
        files=frozen.files if frozen else 0,
        chunks=frozen.chunks if frozen else 0,
        finished=len(find_chunks(area)),
        parts=_parts(area, frozen) if frozen else (),
        listing=listing.text if listing else "",
        finishing=finishing.text if finishing else "",
    )


def _place(output: Location, work: Path | None) -> Path:
    """Return beside which file or folder the unfinished work of an output lies."""
    if isinstance(output, ObjectPath):
        return place_in_work(output, work)
    if work is not None:
        raise ConfigError("--work is for an OUT in an object store: leave it out.")
    return output


def _exists(output: Location) -> bool:
    return stores.exists(output) if isinstance(output, ObjectPath) else output.exists()


def _parts(area: Path, frozen: Frozen) -> list[PartState]:
    notes = started(area)
    if not notes:
        return []
    holders = running(area)
    at_work = {part: holder for part in notes if (holder := holders.get(area / part.name("lock")))}
    newest = max(notes, key=lambda part: notes[part]["since"]).count
    chosen = [Part(number, newest) for number in range(1, newest + 1)]
    chosen += [part for part in at_work if part.count != newest]
    finished = find_chunks(area).keys()
    states = []
    for part in chosen:
        chunks = part.chunks(frozen.chunks)
        done = sum(number in finished for number in chunks)
        note = notes.get(part, {})
        if part in at_work:
            state = RUNNING
        elif done == len(chunks):
            state = DONE
        else:
            state = STOPPED if note else WAITING
        where = {"host": note.get("host", ""), "since": note.get("since", "")}
        states.append(PartState(str(part), state, len(chunks), done, **where))
    return states

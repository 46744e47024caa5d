"""What a recorder does with what traces give it: odd texts, many sites, a disk that is full, files that are refused."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symbolizer.frame import Frame
from tests.unit.tracer.recorded import finding, frames_of, recorded, report
from tracer.cli.recorded import Record
from tracer.errors import ExitCode, UsageError
from tracer.recorder import DETAILED, Recorder
from tracer.recording import load
from tracer.report.model import AddressMap, Finding, MappedFile, Report, Target
from tracer.report.site_table import SiteTable
from tracer.settings import Settings


def counted(asked: list[int], table: SiteTable) -> SiteTable:
    """Return a table that notes which rows are looked at."""
    def look(row: int, rank: int) -> Finding:
        asked.append(row)
        return table.finding(row, rank)

    return replace(table, finding=look)


def test_texts_that_are_none_are_spelled_out(tmp_path: Path) -> None:
    """Names and paths with bytes that are no UTF-8 neither end the trace nor are lost, wherever they stand."""
    odd = os.fsdecode(b"caf\xe9")
    sites = {1: finding(1, frames=(Frame(1, odd, module=odd),), evidence=odd)}
    was = report(sites, notes=(odd,), targets=(Target(1, odd, odd),),
                 mappings=(AddressMap(1, (MappedFile(1, 2, 0, odd, None),)),))
    now = recorded(tmp_path / "r", was, settings={"path": odd}).report()
    texts = (now.notes[0], now.targets[0].comm, now.targets[0].exe, now.findings[0].evidence,
             now.findings[0].frames[0].function, now.findings[0].frames[0].module, (now.mappings or ())[0].files[0].path)
    assert set(texts) == {"caf\\udce9"}


def test_facts_say_what_it_is_of(tmp_path: Path) -> None:
    """The settings of the trace, its start with its zone, the machine and the command line are in the file."""
    recording = recorded(tmp_path / "r", report({1: finding(1)}), settings=Settings(pids=(1,), interval=5))
    facts = recording.facts
    assert (facts.kernel, facts.host, facts.machine) == (os.uname().release, os.uname().nodename, os.uname().machine)
    assert facts.settings["interval"] == 5 and facts.settings["pids"] == [1] and facts.command
    assert facts.started.isoformat() == "2026-03-01T09:05:07.250000+05:30"


def test_sites_that_are_known_are_not_looked_at_again(tmp_path: Path) -> None:
    """Of many sites, each is looked at when it comes, the first at each report, and all at the last."""
    recorder = Recorder(str(tmp_path / "r"), {}, None)
    sites = {key: finding(key, 10_000 - key) for key in range(1, 501)}
    asked: list[list[int]] = []
    for number in range(1, 4):
        asked.append([])
        made = report(sites, 5.0 * number, last=number == 3)
        assert made.sites is not None
        recorder.write(replace(made, sites=counted(asked[-1], made.sites)))
    recorder.close()
    assert [len(each) for each in asked] == [500, DETAILED, 500]


def test_what_does_not_change_takes_little_room(tmp_path: Path) -> None:
    """A report in which nothing happened adds a few hundred bytes, whatever the number of sites and of forks."""
    files = tuple(MappedFile(place << 20, (place + 1) << 20, 0, f"/usr/lib/{place}.so", f"{place:040x}") for place in range(200))
    sites = {key: finding(key, 10_000 - key, oldest_s=None) for key in range(1, 2001)}
    recorder = Recorder(str(tmp_path / "r"), {}, None)
    sizes = []
    for number in range(1, 5):
        maps = tuple(AddressMap(pid, files) for pid in range(1, number + 1))
        recorder.write(report(sites, 5.0 * number, mappings=maps))
        sizes.append(recorder.size)
    recorder.close()
    assert max(np.diff(sizes)) < 500
    assert load(str(tmp_path / "r")).report().mappings == tuple(AddressMap(pid, files) for pid in range(1, 5))


def test_a_map_that_changes_is_that_of_its_report(tmp_path: Path) -> None:
    """Where a library is loaded meanwhile, each report has the maps of its moment."""
    maps = [(AddressMap(1, (MappedFile(1, 2, 0, "/a", None),) * number),) for number in (1, 2, 1)]
    recording = recorded(tmp_path / "r", *(report({1: finding(1)}, 5.0 * number, mappings=each)
                                           for number, each in enumerate(maps)))
    assert [each.mappings for each in recording.reports()] == maps


def test_clocks_that_differ_a_little_do_not_age_blocks(tmp_path: Path) -> None:
    """Ages are taken some time behind a report's start, more or less; a block's birth stays what it was."""
    random = np.random.default_rng(1)
    sizes, recorder, births = [], Recorder(str(tmp_path / "r"), {}, None), np.arange(300) / 100
    for number in range(1, 20):
        moment = 5.0 * number + float(random.random()) * 0.05
        recorder.write(report({key + 1: finding(key + 1, oldest_s=round(moment - birth, 3))
                               for key, birth in enumerate(births.tolist())}, 5.0 * number))
        sizes.append(recorder.size)
    recorder.close()
    found = load(str(tmp_path / "r")).report(18).sites
    assert found is not None and float(np.abs(found.oldest_s - (95.0 - births)).max()) < 0.2
    # What an age costs is paid once.
    assert max(np.diff(sizes[2:])) < 3000


def test_a_report_of_findings_only_is_refused(tmp_path: Path) -> None:
    """A report without its table is a mistake of the caller."""
    with pytest.raises(ValueError, match="no table"):
        Recorder(str(tmp_path / "r"), {}, None).write(replace(report({1: finding(1)}), sites=None))


# ---- the command line's part


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every write write half, and then fail."""
    write = os.write
    said: list[int] = []

    def half(file: int, data: Any) -> int:
        if said:
            raise OSError(errno.ENOSPC, "No space left on device")
        said.append(file)
        return write(file, bytes(data[: len(data) // 2]))

    monkeypatch.setattr(os, "write", half)


def test_a_full_disk_ends_the_recording_and_not_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said once, what was whole is read, later reports are passed over, and the exit code is 4 where it was 0."""
    path = tmp_path / "r"
    with Record(str(path), {}) as record:
        record.write(report({1: finding(1)}))
        assert record.exit_code(ExitCode.DONE) == ExitCode.DONE
        full_disk(monkeypatch)
        for number in (2, 3):
            record.write(report({1: finding(1), 2: finding(2)}, 5.0 * number))
        monkeypatch.undo()
        assert [record.exit_code(code) for code in (0, 23, 3)] == [ExitCode.INCOMPLETE, 23, 3]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "No space left on device" in said and str(path) in said
    recording = load(str(path))
    assert (len(recording), recording.truncated) == (1, False)


@pytest.mark.parametrize("make", [
    lambda folder: folder, lambda folder: folder / "no" / "file", lambda _: Path("/dev/full"), lambda _: Path("/dev/null"),
])  # fmt: skip
def test_a_file_that_cannot_be_is_wrong_usage(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """A folder, a missing folder and a device are an error with its reason and a remedy."""
    with pytest.raises(UsageError, match="cannot be written: "):
        Record(str(make(tmp_path)), {})


def test_nothing_is_recorded_where_nobody_asked() -> None:
    """Without a file nothing happens, and exit codes are as they were."""
    with Record(None, {}) as record:
        record.write(report({1: finding(1)}))
        assert record.exit_code(ExitCode.DONE) == ExitCode.DONE


def test_each_report_is_in_the_file_at_once(tmp_path: Path) -> None:
    """While the trace goes on, all reports so far can be read."""
    recorder = Recorder(str(tmp_path / "r"), {}, None)
    written: list[Report] = []
    for number in (1, 2, 3):
        written.append(report({key: finding(key) for key in range(1, number + 1)}, 5.0 * number))
        recorder.write(written[-1])
        recording = load(str(tmp_path / "r"))
        assert len(recording) == number and not recording.truncated
        assert [each.frames for each in recording.report().findings] == [frames_of(key) for key in range(1, number + 1)]
    recorder.close()

"""The pages that are served: each what the file of its format would have, made once."""

from __future__ import annotations

import gzip
import io
import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client.openmetrics import parser

from tests.unit.tracer.serve.conftest import report
from tracer.cli.report import command as report_command
from tracer.judge.fingerprint import fingerprint
from tracer.recorder import Recorder
from tracer.report import html, openmetrics
from tracer.report.model import Report
from tracer.report.pprof_messages import profile_class
from tracer.serve.outline import packed
from tracer.serve.pages import PAGES, Page, Pages


@pytest.fixture
def made() -> Pages:
    """Pages of a report with a name that would be markup."""
    made = Pages()
    made.put(packed(report([(5, 1), (9, 2), (4, 4)], first_name="<script>alert(1)</script>")))
    return made


#: It has no types.
_families: Any = parser.text_string_to_metric_families


def page(made: Pages, path: str) -> Page:
    found = made.page(path)
    assert found is not None
    return found


def test_there_are_none_before_a_report() -> None:
    """And then there are."""
    assert all(Pages().page(path) is None for path in PAGES)


def test_metrics_name_sites_by_their_fingerprints(made: Pages) -> None:
    """As files do: a site has the same label in both, and after the program was built again."""
    families = {each.name: each for each in _families(page(made, "/metrics").content.decode())}
    assert families["leaktrace_live_bytes"].samples[0].value == 110
    assert {sample.labels["site"] for sample in families["leaktrace_site_live_bytes"].samples} == {
        fingerprint(each.frames) for each in report([(5, 1), (9, 2)], first_name="<script>alert(1)</script>").findings}
    assert page(made, "/metrics").kind == openmetrics.CONTENT_TYPE


def test_a_recording_names_sites_as_a_scrape_does(made: Pages, tmp_path: Path) -> None:
    """What `leaktrace report --format openmetrics` brings into a database goes on where a scrape left it."""
    path = tmp_path / "trace.leaktrace"
    recorder = Recorder(str(path), {}, None)
    recorder.write(report([(5, 1), (9, 2)], first_name="<script>alert(1)</script>"))
    recorder.close()
    answer = CliRunner().invoke(report_command, [str(path), "--format", "openmetrics"], catch_exceptions=False)
    labels = [set(re.findall(r'site_live_bytes(\{[^}]*\})', text))
              for text in (answer.output, page(made, "/metrics").content.decode())]
    assert labels[0] == labels[1] and len(labels[0]) == 2


def test_html_allows_its_own_script_only(made: Pages) -> None:
    """The policy that the page states is sent too, and nobody may put it into a frame; names stay text."""
    found = page(made, "/")
    assert found.kind == "text/html; charset=utf-8" and b"<script>alert" not in found.content
    assert found.policy.startswith("default-src 'none'; ") and "script-src 'sha256-" in found.policy
    assert found.policy.endswith("frame-ancestors 'none'") and "unsafe" not in found.policy


def test_json_is_the_schema(made: Pages) -> None:
    """One document, with all sites."""
    document = json.loads(page(made, "/report.json").content)
    assert document["schema"] == "leaktrace/1" and [each["count"] for each in document["sites"]] == [7, 4]


def test_a_profile_has_what_was_freed_too(made: Pages) -> None:
    """As the file has it: alloc_space of all sites."""
    profile = profile_class().FromString(gzip.decompress(page(made, "/profile.pb.gz").content))
    assert sorted(tuple(sample.value) for sample in profile.sample) == [(4, 40, 0, 0), (5, 50, 4, 40), (9, 90, 7, 70)]


def test_each_page_is_made_once_for_a_report(made: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where several ask at once; and anew for the next report."""
    calls: list[Report] = []
    metrics = PAGES["/metrics"]

    def counted(report: Report) -> Page:
        calls.append(report)
        return metrics(report)

    monkeypatch.setitem(PAGES, "/metrics", counted)
    readers = [threading.Thread(target=made.page, args=("/metrics",)) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(calls) == 1
    made.put(packed(report([(1, 0)])))
    assert b"leaktrace_live_bytes 10\n" in page(made, "/metrics").content and len(calls) == 2


def test_after_a_warm_up_no_file_is_read(made: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without rights, the process may not read where leaktrace is installed."""
    made.warm_up(report([]))

    def refuse(*_: Any) -> Any:
        raise PermissionError

    for name in ("builtins.open", "io.open", "pathlib.Path.open", "tracer.report.html_page.files"):
        monkeypatch.setattr(name, refuse)
    assert all(page(made, path).content for path in PAGES)


def test_a_served_page_reads_no_source_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks at it is not who may read the files that it names."""
    asked: list[Any] = []
    monkeypatch.setattr(html, "write", lambda *given, **options: asked.append((given, options)))
    PAGES["/"](report([(1, 0)]))
    assert len(asked) == 1 and asked[0][1] == {} and isinstance(asked[0][0][1], io.BytesIO)

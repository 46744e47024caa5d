"""The HTML report: one file that asks for nothing, in which no text of the target is ever markup."""

from __future__ import annotations

import base64
import json
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symbolizer.frame import Frame, Why
from tests.unit.tracer.report import many_sites
from tests.unit.tracer.report.conftest import MISUSES
from tracer.report import html, html_page
from tracer.report.flame_tree import printable
from tracer.report.html_series import EXACT, POINTS, ROOM, chosen, curves, pack
from tracer.report.html_stacks import LONGEST, Stacks, Texts, is_library
from tracer.report.memory_model import MemoryHead, MemoryPart
from tracer.report.model import Finding, LossNote, Report, Target

MakeReport = Callable[..., Report]
MakeFinding = Callable[..., Finding]
EVIL = "</script><script>alert(1)</script><!--<script>&\u2028"


def page(report: Report, **options: Any) -> str:
    out = BytesIO()
    html.write(report, out, **options)
    return out.getvalue().decode()


def content(text: str) -> dict[str, bytes]:
    """Return what the page's script would unpack, by name."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return {name: zlib.decompress(base64.b64decode(packed)) for name, packed in json.loads(found[1]).items()}


def document(report: Report, **options: Any) -> dict[str, Any]:
    made = json.loads(content(page(report, **options))["report"])
    assert isinstance(made, dict)
    return made


def unpacked(packed: bytes, lengths: list[int]) -> list[list[int]]:
    """Return the rows that pack() wrote, as the page's script reads them."""
    rows, at = [], 0
    for length in lengths:
        row, value, end = [], 0, at + length
        while at < end:
            folded = shift = 0
            while True:
                byte = packed[at]
                at += 1
                folded |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            value += -(folded + 1) // 2 if folded % 2 else folded // 2
            row.append(value)
        rows.append(row)
    return rows


def test_nothing_of_the_target_is_markup(report: MakeReport, finding: MakeFinding) -> None:
    """Names that end a script or open an element stand nowhere in the file as they are, and arrive unchanged."""
    frame = Frame(0x1000, EVIL, 1, f"/x/{EVIL}", None, f"{EVIL}.c", 3)
    evil = report(finding(frames=(frame,), evidence=EVIL, verdict="lost"), targets=(Target(1, f"</title>{EVIL}", EVIL),), notes=(EVIL,))
    text = page(evil, facts={"Command": EVIL})
    assert len(re.findall("<script", text)) == 2
    assert len(re.findall("</script", text)) == 2
    assert len(re.findall("</title", text)) == 1
    assert "alert(1)" not in re.sub("<title>.*?</title>", "", text)
    made = document(evil, facts={"Command": EVIL})
    assert made["texts"][made["frames"]["name"][0]] == printable(EVIL)
    assert made["notes"] == [EVIL]


def test_embedded_json_is_safe_in_a_script() -> None:
    """What stands in a script element has no sign that a browser reads as its end, and is still the same JSON."""
    made = html_page.embedded({EVIL: EVIL})
    assert not set(made) & set("<>&\u2028\u2029")
    assert json.loads(made) == {EVIL: EVIL}


def test_the_page_may_ask_for_nothing(report: MakeReport) -> None:
    """The policy forbids every address, and allows exactly the style and the script that are in the file."""
    text = page(report())
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy and policy[1].startswith("default-src 'none'; ") and "unsafe" not in policy[1]
    for tag in ("style", "script"):
        own = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert own
        assert f"'sha256-{base64.b64encode(sha256(own[1].encode()).digest()).decode()}'" in policy[1]
    assert not re.search(r"""(?:src|href)="(?!#)|url\(|@import|https?://(?!www\.w3\.org/2000/svg)""", text)


def test_every_own_file_is_joined() -> None:
    """No script or style lies in the folder without being part of this page, or of the one of a comparison."""
    joined = {f"{name}.js" for name in html_page._SCRIPTS} | {f"{name}.css" for name in html_page._STYLES} | {"page.html"}
    assert {file.name for file in Path(html_page.__file__).with_name("html").iterdir()
            if file.stem != "diff"} == joined


def test_what_a_report_says_is_there(report: MakeReport, finding: MakeFinding) -> None:
    """Figures, losses with remedies, the memory's parts, wrong frees and processes are in the page."""
    made = document(report(
        finding(verdict="growing", confidence="medium", evidence="it grows", slope=(5.0, 4.0, float("inf"))),
        losses=(LossNote("in_flight", 7, 0, "calls are missing", "wait"),), complete=False, misuses=MISUSES,
        memory=(MemoryHead(4711, "server", 1000, 800, 900, 600, 4, (MemoryPart("outstanding", 600), MemoryPart("files", 400))),)))
    sites = made["sites"]
    assert (sites["bytes"], sites["count"], sites["growth"], sites["slope"]) == ([4096], [4], [5.0], [[5.0, 4.0, None]])
    assert made["texts"][sites["evidence"][0]] == "it grows"
    assert made["losses"][0]["remedy"] == "wait" and made["complete"] is False
    assert [part["bytes"] for part in made["memory"][0]["parts"]] == [600, 400]
    assert [each["kind"] for each in made["misuses"]["found"]] == ["mismatched", "unknown", "double"]
    assert made["processes"][0]["exe"] == "/usr/bin/server"
    assert "curves" not in made, "one report has no curve"


def test_numbers_that_json_lacks(report: MakeReport) -> None:
    """A hostile recording's infinite time does not keep the page from being made."""
    assert document(report(elapsed_s=float("inf")))["elapsed"] is None


def test_endless_names_are_cut(report: MakeReport, finding: MakeFinding) -> None:
    """A name of megabytes does not make a page of megabytes."""
    made = document(report(finding(frames=(Frame(1, "()" * 1_000_000),))))
    assert max(map(len, made["texts"])) <= LONGEST + 1


def test_stacks_share_their_calls(finding: MakeFinding) -> None:
    """Two stacks with the same callers share them, and each is found again from its innermost call."""
    main, one, other = Frame(1, "main"), Frame(2, "one"), Frame(3, "other")
    stacks = Stacks(Texts(), frozenset())
    innermost = [stacks.add((one, main)), stacks.add((other, main)), stacks.add(())]
    made = stacks.document()
    assert innermost == [1, 2, -1]
    assert made["calls"] == {"caller": [-1, 0, 0], "frame": [0, 1, 2]}


@pytest.mark.parametrize(("frame", "library"), [
    (Frame(1, "work", module="/opt/x/bin/server"), False),
    (Frame(1, "work", module="/usr/bin/server"), False),
    (Frame(1, "read", module="/usr/lib/x86_64-linux-gnu/libc.so.6"), True),
    (Frame(1, "std::vector<int>::push_back(int&&)", module="/usr/bin/server"), True),
    (Frame(1, "void std::__fill<int>(int*)", module="/usr/bin/server"), True),
    (Frame(1, "_start", module="/usr/bin/server"), True),
    (Frame(1, "work(std::string)", module="/usr/bin/server"), False),
    (Frame(1, "my::pair<int, std::string>::get()", module="/usr/bin/server"), False),
    (Frame(1, None, module="/usr/lib/ourselves", why=Why.NO_SYMBOLS), False),
])
def test_own_frames_are_told_from_libraries(frame: Frame, library: bool) -> None:
    """A traced program is never a library, wherever it lies; templates that it instantiates are."""
    assert is_library(frame, frozenset({"/usr/bin/server", "/usr/lib/ourselves"})) is library


def test_packed_numbers_come_back() -> None:
    """Rises, falls, zero, negative and the largest numbers are the same when the page has unpacked them."""
    rows = np.array([[0, 0, 0, 0], [1, -1, 64, -8192], [1 << 62, 5, (1 << 62) - 1, 0]], np.int64)
    packed, lengths = pack(rows)
    assert unpacked(packed, lengths.tolist()) == rows.tolist()
    assert lengths[0] == 4, "a level row costs a byte a moment"


def test_chosen_moments() -> None:
    """However many reports there are, few are drawn, with the first, the last and the one that is looked at."""
    assert chosen(5, 300, 2).tolist() == [0, 1, 2, 3, 4]
    kept = chosen(7200, 300, 4321)
    assert len(kept) <= 300 and {0, 4321, 7199} <= set(kept.tolist())
    assert np.diff(kept).max() < 60


def test_curves_of_a_report() -> None:
    """The curves are those of the sites in the report's order, and the sums those of all sites."""
    held = np.arange(4 * 600).reshape(4, 600) * 1000
    series = many_sites.Curves(np.arange(600.0), held, held // 10)
    drawn = curves(series, np.array([2, 0]), 599)
    kept = drawn.facts["times"]
    rows = unpacked(zlib.decompress(drawn.packed), drawn.facts["lengths"])
    assert len(kept) == POINTS and drawn.facts["number"] == len(kept) - 1
    assert rows[0] == [held[2, int(time)] for time in kept]
    assert rows[1] == [held[0, int(time)] for time in kept]
    assert drawn.facts["bytes"][-1] == int(held[:, -1].sum())


def test_restless_curves_stay_small() -> None:
    """Where every site changes all the time, the first are exact and the others rounded to what a screen shows."""
    series = many_sites.series(3000, 720, restless=True)
    drawn = curves(series, np.arange(3000), 719)
    assert len(drawn.packed) <= ROOM
    rows = unpacked(zlib.decompress(drawn.packed), drawn.facts["lengths"])
    assert rows[EXACT - 1][-1] == series.bytes[EXACT - 1, -1]
    for site in (EXACT, 2999):
        rounded = rows[site][-1] << drawn.facts["shifts"][site - EXACT]
        assert abs(rounded - series.bytes[site, -1]) <= series.bytes[site].max() / 64


def test_ten_thousand_sites_fit() -> None:
    """An hour of 720 reports of 10,000 sites stays below 5 MB, even if no site ever rests."""
    series = many_sites.series(restless=True)
    text = page(many_sites.report(series), series=series)
    assert len(text.encode()) < 5_000_000
    made = json.loads(content(text)["report"])
    assert len(made["sites"]["key"]) == many_sites.SITES


def test_source_is_read_where_it_is(report: MakeReport, finding: MakeFinding, tmp_path: Path) -> None:
    """Lines around a frame's are in the page, if asked for, and a file written since then is marked."""
    file = tmp_path / "node.c"
    file.write_text("".join(f"line {number}\n" for number in range(1, 30)))
    frames = (Frame(1, "f", file=str(file), line=10), Frame(2, "g", file=str(tmp_path / "gone.c"), line=1))
    made = document(report(finding(frames=frames)), source=True)
    (excerpt,) = made["excerpts"].values()
    assert excerpt["lines"] == [[number, f"line {number}"] for number in range(7, 14)]
    assert excerpt["changed"] is (file.stat().st_mtime > report().taken.timestamp())
    assert "excerpts" not in document(report(finding(frames=frames)))


def test_a_recording_cannot_ask_for_any_file(report: MakeReport, finding: MakeFinding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets, links to them, files outside the current folder, pipes and binary files are not read as source."""
    secret, inside = tmp_path / "id_rsa", tmp_path / "inside"
    inside.mkdir()
    secret.write_text("secret\n")
    (inside / "link.c").symlink_to(secret)
    (tmp_path / "above.c").write_text("secret\n")
    (inside / "binary.c").write_bytes(b"\0secret\n")
    os.mkfifo(inside / "pipe.c")
    monkeypatch.chdir(inside)
    names = (str(secret), str(inside / "link.c"), "../above.c", str(inside / "binary.c"), str(inside / "pipe.c"), "nul\0.c", str(inside))
    frames = tuple(Frame(number, "f", file=name, line=1) for number, name in enumerate(names))
    made = document(report(finding(frames=frames)), source=True)
    assert made["excerpts"] == {}


def test_a_recording_is_written_with_its_curves(report: MakeReport) -> None:
    """A recording's page has the curves up to its end, and knows which of its reports it shows."""
    series = many_sites.series(20, 40)

    class Recorded:
        class facts:
            command = ("/x/leaktrace", "-p", "1")
            leaktrace = "1"
            host = "box"

        def __len__(self) -> int:
            return 40

        def report(self, number: int = -1, top: int | None = None, sort: str = "loss") -> Report:
            made = many_sites.report(series)
            return replace(made, findings=made.findings[:top])

        def series(self) -> many_sites.Curves:
            return series

    out = BytesIO()
    html.write_recorded(Recorded(), 11, 5, "loss", out)
    made = json.loads(content(out.getvalue().decode())["report"])
    assert made["curves"]["number"] == 11 and len(made["curves"]["times"]) == 40
    assert len(made["sites"]["key"]) == len(made["curves"]["lengths"]) == 5
    assert made["known"] == 20, "it says how many sites there are beyond those that it has"
    assert ["Command", "leaktrace -p 1"] in made["facts"]

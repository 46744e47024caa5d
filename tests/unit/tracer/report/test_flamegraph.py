"""The flame graph as SVG: well-formed XML whose widths are the figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbolizer.frame import Frame
from tests.unit.tracer.report.many_sites import report as many_sites
from tests.unit.tracer.report.many_sites import series as many_series
from tracer.report.flame_tree import Node, flame_tree
from tracer.report.flamegraph import draw, module_colours, write
from tracer.report.model import Finding, LossNote, Report, Target

MakeReport = Callable[..., Report]
MakeFinding = Callable[..., Finding]
SVG = "{http://www.w3.org/2000/svg}"
ROOM = 1180


@dataclass(frozen=True)
class Cell:
    """One call as it is drawn: its tooltip by lines, the text in it, its left and upper end, width and colour."""

    said: list[str]
    text: str
    left: float
    top: float
    width: float
    fill: str


def root_of(out: StringIO) -> ElementTree.Element:
    return ElementTree.fromstring(out.getvalue())


def drawn(report: Report) -> ElementTree.Element:
    out = StringIO()
    write(report, out)
    return root_of(out)


def cells(root: ElementTree.Element) -> dict[str, Cell]:
    """Return the calls by the name in their tooltip."""
    found = {}
    for group in root.iter(f"{SVG}g"):
        said = (group.findtext(f"{SVG}title") or "").split("\n")
        box = group.find(f"{SVG}rect")
        assert box is not None
        found[said[0]] = Cell(said, group.findtext(f"{SVG}text") or "", float(box.attrib["x"]), float(box.attrib["y"]),
                              float(box.attrib["width"]), box.attrib["fill"])
    return found


def said(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.findall(f"{SVG}text")]


def stack(*names: str, module: str = "/bin/x") -> tuple[Frame, ...]:
    """Return frames of these functions; the names are outermost first."""
    return tuple(Frame(number, name, 0, module) for number, name in enumerate(reversed(names)))


def test_widths_are_bytes(report: MakeReport, finding: MakeFinding) -> None:
    """A call is as wide as what is held through it, stands on its caller, and next to its siblings, the larger first."""
    found = cells(drawn(report(finding(frames=stack("main", "b"), bytes=1000), finding(frames=stack("main", "a"), bytes=3000))))
    assert {name: round(cell.width) for name, cell in found.items()} == {
        "all": ROOM, "main": ROOM, "a": ROOM * 3 // 4, "b": ROOM // 4}
    assert found["all"].top > found["main"].top > found["a"].top == found["b"].top
    assert found["a"].left == found["main"].left and found["b"].left == pytest.approx(found["a"].left + found["a"].width, abs=0.02)


def test_what_a_tooltip_says(report: MakeReport, finding: MakeFinding) -> None:
    """The whole name, what it holds and the share of all, what of it is its own, and the file."""
    found = cells(drawn(report(finding(frames=stack("main"), bytes=1024), finding(frames=stack("main", "f"), bytes=3072))))
    assert found["main"].said == ["main", "4.0 kB, 100.0%, 1.0 kB of it its own", "/bin/x"]
    assert found["f"].said == ["f", "3.0 kB, 75.0%", "/bin/x"]


def test_thin_calls_are_left_out_and_counted(report: MakeReport, finding: MakeFinding) -> None:
    """A call below 0.1 % of all is not drawn, nor what it called; the graph says how many are left out."""
    root = drawn(report(finding(frames=stack("wide"), bytes=100_000), finding(frames=stack("thin", "thinner"), bytes=99)))
    assert set(cells(root)) == {"all", "wide"} and "2 calls below 0.1% left out" in said(root)[1]
    root = drawn(report(finding(frames=stack("wide"), bytes=99_900), finding(frames=stack("thin"), bytes=100)))
    assert set(cells(root)) == {"all", "wide", "thin"} and "left out" not in said(root)[1]


def test_what_the_head_says(report: MakeReport) -> None:
    """Whose memory it is, how much of how many sites, after which time, and what the figures lack."""
    many = many_sites(many_series(moments=2)).sites
    assert many is not None
    assert said(drawn(report()))[:2] == ["Live memory of server (4711)", "4.0 kB live in 1 site, 5 s after the start"]
    root = drawn(report(complete=False, sampling="one in 10 allocations", losses=(LossNote("event", 1, 0, "", ""),),
                        targets=tuple(Target(pid, "w", None) for pid in range(5))))
    assert said(root)[0] == "Live memory of w (0), w (1), w (2) and 2 more"
    assert "estimates from one in 10 allocations; not complete: there are allocations" in said(root)[1]
    assert said(drawn(report(targets=())))[0] == "Live memory of the kernel"
    root = drawn(report(*many.findings(1000), sites=many))
    assert "live in 1,000 sites, 5 s after the start; 9,000 more not shown" in said(root)[1]


def test_a_file_has_one_colour(report: MakeReport, finding: MakeFinding) -> None:
    """Code of one file has one colour, that of two has two, and the legend names them, the largest first."""
    root = drawn(report(finding(frames=(*stack("alloc", module="/lib/liba.so"), *stack("main", module="/bin/x")), bytes=30),
                        finding(frames=stack("main", "own", module="/bin/x"), bytes=10)))
    found = cells(root)
    assert found["main"].fill == found["own"].fill != found["alloc"].fill
    assert said(root)[2:] == ["liba.so", "x"]
    boxes = root.findall(f"{SVG}rect")
    assert [box.attrib["fill"] for box in boxes] == [found["alloc"].fill, found["main"].fill]


def test_a_colour_does_not_depend_on_the_graph(finding: MakeFinding) -> None:
    """The same file has the same colour beside others, and in another folder: graphs can be compared."""
    alone = module_colours(flame_tree([finding(frames=stack("f", module="/a/libz.so"))], lambda each: each.bytes))
    beside = module_colours(flame_tree([finding(frames=stack("f", module="/b/libz.so")), finding()], lambda each: each.bytes))
    assert alone["/a/libz.so"] == beside["/b/libz.so"]


@pytest.mark.parametrize(("name", "shown"), [
    ("short(int)", "short(int)"),
    ("std::map<int, std::vector<int> >::operator[](int const&)", "std::map::operator[]"),
    ("ns::f(std::vector<std::pair<int, int> >)::{lambda()#1}::operator()(int) const", "ns::f::{lambda#1}::opera…"),
    ("a_name_of_c_that_is_too_long_for_it", "a_name_of_c_that_is_too_…"),
])
def test_names_are_shortened_to_what_fits(report: MakeReport, finding: MakeFinding, name: str, shown: str) -> None:
    """A C++ name loses its arguments before it is cut, and its tooltip has it all."""
    (cell,) = [cell for key, cell in cells(drawn(report(
        finding(frames=stack(name), bytes=160), finding(frames=stack("rest"), bytes=840)))).items() if key == name]
    assert cell.text == shown


def test_another_colour_and_tooltip(finding: MakeFinding) -> None:
    """Who draws a tree of something else says colours, tooltips and title."""
    tree = flame_tree([finding(frames=stack("f"))], lambda each: each.bytes)
    out = StringIO()
    draw(tree, out, lambda node: "red" if node.name == "f" else "blue", "Before & after", say=lambda node: f"<{node.name}>")
    found = cells(root_of(out))
    assert {name: cell.fill for name, cell in found.items()} == {"<all>": "blue", "<f>": "red"}
    assert said(root_of(out))[0] == "Before & after"


@pytest.mark.parametrize("tree", [Node("all", None, 0, 0, ()), Node("all", None, 0, 0, (Node("f", None, 0, 0, ()),))])
def test_nothing_to_draw(tree: Node) -> None:
    """Without any value there is the root, and no division by nothing."""
    out = StringIO()
    draw(tree, out, lambda node: "red", "Nothing")
    assert [cell.width for cell in cells(root_of(out)).values()] == [ROOM]


def test_it_needs_nothing_else(report: MakeReport) -> None:
    """The file runs no script, loads nothing, and has both colour schemes."""
    out = StringIO()
    write(report(), out)
    text = out.getvalue().replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in text and "http" not in text and "url(" not in text and "@import" not in text
    assert "prefers-color-scheme: dark" in text


@given(name=st.text(), path=st.text(), comm=st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_text(report: MakeReport, finding: MakeFinding, name: str, path: str, comm: str) -> None:
    """Names, paths and program names, markup among them, end as text in well-formed XML with the elements it has anyway."""
    hostile = [f"<script>{name}</script>", f'"/><g onload="{path}', f"]]>&{comm}"]
    plain = drawn(report(finding(frames=stack("main", module="/bin/x")), targets=(Target(1, "x", None),)))
    root = drawn(report(finding(frames=(Frame(1, hostile[0], 0, hostile[1]),)), targets=(Target(1, hostile[2], None),)))
    assert [element.tag for element in root.iter()] == [element.tag for element in plain.iter()]
    assert not any(key.startswith("on") for element in root.iter() for key in element.attrib)

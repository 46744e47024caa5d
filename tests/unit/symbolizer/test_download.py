import pytest

from symbolizer.download import Limits


@pytest.mark.parametrize(
    ("environ", "limits"),
    [
        ({}, Limits(90, 600, 1 << 30)),
        ({"DEBUGINFOD_TIMEOUT": "5", "DEBUGINFOD_MAXTIME": "7", "DEBUGINFOD_MAXSIZE": "9"}, Limits(5, 7, 9)),
        ({"DEBUGINFOD_TIMEOUT": "-1", "DEBUGINFOD_MAXTIME": "0", "DEBUGINFOD_MAXSIZE": "0"}, Limits(None, None, None)),
        ({"DEBUGINFOD_TIMEOUT": "soon", "DEBUGINFOD_MAXTIME": "nan", "DEBUGINFOD_MAXSIZE": ""}, Limits()),
        ({"DEBUGINFOD_TIMEOUT": "inf", "DEBUGINFOD_MAXTIME": "1e300"}, Limits()),
    ],
)
def test_the_environment_sets_the_limits(environ: dict[str, str], limits: Limits) -> None:
    assert Limits.from_environment(environ) == limits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbolizer.unwind_rule import BpKind, RuleKind, UnwindRule

RULES = st.builds(
    UnwindRule,
    st.sampled_from(RuleKind),
    st.integers(-(1 << 31), (1 << 31) - 1),
    st.sampled_from(BpKind),
    st.integers(-(1 << 23), (1 << 23) - 1),
)


@given(RULES)
def test_a_rule_survives_its_encoding(rule: UnwindRule) -> None:
    """A rule is the same after it has been a u64."""
    assert 0 <= rule.encode() < 1 << 64
    assert UnwindRule.decode(rule.encode()) == rule


@given(st.integers(0, (1 << 64) - 1))
def test_any_number_can_be_decoded(encoded: int) -> None:
    """A u64 that is no rule is decoded as unsupported."""
    assert UnwindRule.decode(encoded).encode() in (encoded, RuleKind.UNSUPPORTED)


@pytest.mark.parametrize(("cfa", "bp"), [(1 << 31, 0), (-(1 << 31) - 1, 0), (8, 1 << 23), (8, -(1 << 23) - 1)])
def test_an_offset_that_does_not_fit_is_unsupported(cfa: int, bp: int) -> None:
    """An offset is never cut to its field."""
    encoded = UnwindRule(RuleKind.CFA_SP, cfa, BpKind.AT_CFA, bp).encode()
    assert UnwindRule.decode(encoded).kind == RuleKind.UNSUPPORTED

"""Which versions of Python can serve callbacks without a leak."""

import sys
from types import SimpleNamespace

import pytest

from crm_milter.libmilter.threadstate import UnsupportedPythonError, stack_protection

BEFORE = SimpleNamespace()  # the C interface without the function


@pytest.mark.parametrize("version", [0x030B02F0, 0x030D05F0])
def test_nothing_is_needed_before_3_14(version):
    stack_protection(BEFORE, version)()


@pytest.mark.parametrize("version", [0x030E00F0, 0x030E01F0, 0x030F00A1])
def test_where_the_bounds_cannot_be_set_it_says_which_version_can(version):
    with pytest.raises(UnsupportedPythonError, match=r"Python 3\.1[45]\..*use Python 3\.14\.2"):
        stack_protection(BEFORE, version)


def test_this_python_serves():
    stack_protection()()
    assert sys.getrecursionlimit() > 0

"""No check of Postfix is forgotten: each module lists its own, and each module is listed."""

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

from crm_milter.postfix import checks
from crm_milter.postfix.checks import run

ALL = [
    importlib.import_module(f"{checks.__name__}.{each.name}")
    for each in pkgutil.iter_modules(checks.__path__)
]


def test_modules_with_checks_are_run():
    assert {each for each in ALL if hasattr(each, "CHECKS")} == set(run.MODULES)
    assert len(set(run.MODULES)) == len(run.MODULES)


@pytest.mark.parametrize("module", run.MODULES, ids=lambda each: each.__name__.rpartition(".")[2])
def test_public_functions_that_yield_findings_are_listed(module: ModuleType):
    functions = {
        function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and not name.startswith("_")
        and "Iterator[crm_milter.postfix.checks.finding.Finding]"
        in str(inspect.signature(function).return_annotation)
    }
    assert functions == set(module.CHECKS)
    assert len(module.CHECKS) == len(functions)

"""The results of test cases as text, as TAP, and as the XML of JUnit that CI services read."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from xml.etree import ElementTree

from crm_milter.dryrun.comparison import Result


def text(results: Sequence[Result]) -> Iterator[str]:
    """Yield the failures, and the number of both."""
    failed = [each for each in results if each.differences]
    for result in failed:
        yield f"{result.case.file}:{result.case.line}: {result.case.name}"
        yield from (f"  {line}" for line in result.differences)
        yield ""
    yield f"{len(results) - len(failed)} passed, {len(failed)} failed"


def tap(results: Sequence[Result]) -> Iterator[str]:
    """Yield TAP version 13 (testanything.org)."""
    yield "TAP version 13"
    yield f"1..{len(results)}"
    for number, result in enumerate(results, 1):
        name = result.case.name.replace("\\", "\\\\").replace("#", "\\#")
        yield f"{'not ok' if result.differences else 'ok'} {number} - {name}"
        if result.differences:
            yield "  ---"
            yield f'  at: "{result.case.file}:{result.case.line}"'
            yield "  difference: |2"
            yield from (f"    {line}" for line in result.differences)
            yield "  ..."


def junit(results: Sequence[Result]) -> bytes:
    """Return the XML, a suite for each file."""
    root = ElementTree.Element("testsuites")
    for file, group in groupby(results, lambda result: result.case.file):
        of_file = list(group)
        failures = sum(bool(each.differences) for each in of_file)
        counts = {"tests": str(len(of_file)), "failures": str(failures)}
        suite = ElementTree.SubElement(root, "testsuite", {"name": file, **counts})
        for result in of_file:
            names = {"name": result.case.name, "classname": file}
            case = ElementTree.SubElement(suite, "testcase", names)
            if result.differences:
                message = {"message": f"{file}:{result.case.line}"}
                failure = ElementTree.SubElement(case, "failure", message)
                failure.text = "\n".join(result.differences)
    ElementTree.indent(root)
    xml: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return xml + b"\n"

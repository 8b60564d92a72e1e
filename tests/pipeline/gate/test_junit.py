"""The JUnit file as its readers parse it."""

import dataclasses
from xml.etree import ElementTree

from pipeline.artifacts.benchmark import Benchmark
from pipeline.gate.junit import junit_xml
from tests.pipeline.gate.edits import edited, judged, size, unusable, wrong


def test_one_test_case_a_comparison(measured: Benchmark) -> None:
    new = dataclasses.replace(measured.models[1], name="new")
    bench = dataclasses.replace(measured, models=(*measured.models, new))
    bench = unusable(edited(bench, 0, wrong(measured, range(48)), size(10**9)), 0)
    root = ElementTree.fromstring(junit_xml(judged(bench, measured)))
    (suite,) = root
    cases = suite.findall("testcase")
    assert (root.tag, suite.tag, len(cases)) == ("testsuites", "testsuite", 10)
    expected = {"tests": 10, "failures": 2, "errors": 1, "skipped": 4}
    for element in (root, suite):
        assert {key: int(element.attrib[key]) for key in expected} == expected
    for tag, count in (("failure", 2), ("error", 1), ("skipped", 4)):
        found = suite.findall(f"testcase/{tag}")
        assert len(found) == count
        assert all(element.attrib["message"] for element in found)
    failed = [case for case in cases if case.find("failure") is not None]
    assert {(case.attrib["classname"], case.attrib["name"]) for case in failed} == {
        ("smp-pipeline.right", "accuracy"),
        ("smp-pipeline.right", "size in MB"),
    }
    names = [(case.attrib["classname"], case.attrib["name"]) for case in cases]
    assert len(set(names)) == len(names)
    passed = [case for case in cases if case.find("system-out") is not None]
    assert len(passed) == 10 - 2 - 1 - 4


def test_any_name_gives_a_file_that_parses(measured: Benchmark) -> None:
    name = 'a<b>&"\x1b\x00\ud800 ]]> \U0001f600\n'
    models = (dataclasses.replace(measured.models[0], name=name), *measured.models[1:])
    other = dataclasses.replace(measured, models=models)
    root = ElementTree.fromstring(junit_xml(judged(other, other)))
    found = root.findall(".//testcase")[0].attrib["classname"]
    assert found.startswith('smp-pipeline.a<b>&"\ufffd\ufffd\ufffd ]]> \U0001f600')

"""The verdict as JUnit XML, which CI systems show as test results: one test case a comparison.

A failed comparison is a failure, one that could not be judged an error, one without a baseline is
skipped.
"""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from pipeline.artifacts.files import staged_file
from pipeline.gate.judgement import GateResult

__all__ = ["junit_xml", "write_junit"]

# What XML 1.0 cannot hold, not even escaped.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENTS = {"failed": "failure", "unmeasured": "error", "not judged": "skipped"}


def write_junit(path: Path, result: GateResult) -> None:
    """Write the verdict as a JUnit file.

    Raises:
        MachineError: the disk is full or not writable.
    """
    with staged_file(path) as scratch:
        scratch.write_bytes(junit_xml(result))


def junit_xml(result: GateResult) -> bytes:
    """The file's content, in UTF-8."""
    counts = {
        "tests": str(len(result.judgements)),
        "failures": str(len(result.of_verdict("failed"))),
        "errors": str(len(result.of_verdict("unmeasured"))),
        "skipped": str(len(result.of_verdict("not judged"))),
        "time": "0",
    }
    root = ET.Element("testsuites", {"name": "smp-pipeline check", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": "smp-pipeline check", **counts})
    for judgement in result.judgements:
        case = ET.SubElement(
            suite,
            "testcase",
            {
                "classname": _text(f"smp-pipeline.{judgement.model}"),
                "name": _text(judgement.quantity),
                "time": "0",
            },
        )
        sentence = _text(judgement.sentence)
        if judgement.verdict in _ELEMENTS:
            element = ET.SubElement(case, _ELEMENTS[judgement.verdict], {"message": sentence})
            if judgement.verdict != "not judged":
                element.set("type", judgement.kind)
                element.text = sentence
        else:
            ET.SubElement(case, "system-out").text = sentence
    ET.SubElement(suite, "system-out").text = _text("\n".join([*result.notes, result.summary]))
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _text(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)

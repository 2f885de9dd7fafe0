import pytest
from breaks import ROOT, faults


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault["name"])
def test_a_fault_can_still_be_made(fault):
    """What it changes is once in its file, and the tests that are to find it are there."""
    assert (ROOT / fault["file"]).read_text("utf-8").count(fault["old"]) == 1
    for file, words in fault["tests"].items():
        text = (ROOT / "tests" / file).read_text("utf-8")
        assert all(word in text for word in words.split() if word not in {"and", "or"} and not word.isdigit())

"""One row, small enough to count its signs by hand."""

import pytest

from verigym.envs.datasets.swe import parse_row

PATCH = """\
diff --git a/pkg/core.py b/pkg/core.py
--- a/pkg/core.py
+++ b/pkg/core.py
@@ -1,4 +1,7 @@ def load(path):
 def load(path):
-    return open(path).read()
+    if not path:
+        raise ValueError("no path was given")
+    return read_checked(path)
+
+def read_checked(path):
+    return open(path).read()
"""
TESTS = """\
diff --git a/tests/test_core.py b/tests/test_core.py
--- a/tests/test_core.py
+++ b/tests/test_core.py
@@ -1,2 +1,7 @@
 from pkg.core import load
-assert load("") is None
+from pkg.core import read_checked
+
+def test_load():
+    with pytest.raises(ValueError, match="no path was given"):
+        load("")
+    assert read_checked("a.txt") == "a"
"""


@pytest.fixture
def reference():
    return PATCH


@pytest.fixture
def hidden_tests():
    return TESTS


@pytest.fixture
def row():
    """Makes the row with another statement, or other fields."""

    def make(statement, patch=PATCH, tests=TESTS, **more):
        raw = {"instance_id": "one", "problem_statement": statement, "patch": patch, "test_patch": tests}
        return parse_row({**raw, "FAIL_TO_PASS": ["tests/test_core.py::test_load"], **more})

    return make

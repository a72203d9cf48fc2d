"""Inside the sandbox: tests that a script of the repository hands to unittest, as Django's ``runtests.py`` does, run by
pytest instead. The script still prepares what they need (settings, databases) and says which there are. Standard
library only."""

import os
import runpy
import sys
import unittest
import warnings


class Taken(BaseException):
    """The tests have been run; nothing of what follows is wanted."""


def take_over(words, run):
    """Run a script up to where it would run its suite, and something else there.

    Args:
        words: the script's path and its arguments; the path "" is ``python -m unittest``.
        run: is called in place of the suite with the files of its tests, relative to the tree.
    Returns:
        What ``run`` returned.
    Raises:
        RuntimeError: the script came to no suite. Else whatever the script raises.
    """
    came = []

    def hand_over(self, test):
        with warnings.catch_warnings():
            if getattr(self, "warnings", None):
                warnings.simplefilter(self.warnings)
            came.append(run(_files_of(test)))
        raise Taken

    unittest.TextTestRunner.run = hand_over
    script, *arguments = words
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)) if script else os.getcwd())
    sys.argv = [script or "python -m unittest", *arguments]
    try:
        if script:
            runpy.run_path(script, run_name="__main__")
        else:
            unittest.main(module=None, argv=sys.argv)
    except Taken:
        pass
    if not came:
        raise RuntimeError(f"{script or 'unittest'} ran no tests")
    return came[0]


def _files_of(suite):
    found, pending = {}, [suite]
    while pending:
        one = pending.pop()
        if isinstance(one, unittest.BaseTestSuite):
            pending += list(one)[::-1]
            continue
        path = getattr(sys.modules.get(type(one).__module__), "__file__", None) or ""
        if path.startswith(os.getcwd() + os.sep):
            found[os.path.relpath(path)] = None
    return list(found)


def in_suites_order(items):
    """Tests of a class together, as unittest runs them; Django's runner has those go first that leave the database as
    it was."""
    django = sys.modules.get("django.test")
    kinds = [kind for kind in (getattr(django, name, None) for name in ("TestCase", "SimpleTestCase")) if kind]
    places = {}
    for item in items:
        places.setdefault(item.parent, len(places))

    def place(item):
        ranks = [rank for rank, kind in enumerate(kinds) if isinstance(item.cls, type) and issubclass(item.cls, kind)]
        return ranks[0] if ranks else len(kinds), places[item.parent]

    return sorted(items, key=place)


def name_in_suite(item):
    """What unittest calls a test, and on a line of its own the first of its description; "" where it is none of
    unittest's."""
    if not (isinstance(item.cls, type) and issubclass(item.cls, unittest.TestCase)):
        return ""
    test = item.cls(item.name)
    told = test.shortDescription()
    return f"{test}\n{told}" if told else str(test)

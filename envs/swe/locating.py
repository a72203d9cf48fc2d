"""Where a test stands, by the name that a runner gives it: in a file's text, as a function or a method of a class."""

import ast
import re
from collections.abc import Mapping, Sequence

from .twin_means import definitions

Place = tuple[str, tuple[str, ...]]
"""(path, names from the outermost class to the function)."""

NODE = re.compile(r"(?P<path>[^:]+\.py)::(?P<rest>[^\[]+)", re.S)
DJANGO = re.compile(r"(?P<name>\w+) \((?P<owner>[\w.]+)\)")
DOTTED = re.compile(r"(?P<rest>\w+(?:(?:\.|::)\w+)*)(?:\[.*)?", re.S)


class Index:
    """The functions of test files, by name and by the first line of their docstring."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        """
        Args:
            texts: path -> text of a Python file; what is no Python is passed over.
        """
        self._bases: dict[str, set[str]] = {}
        self._named: dict[str, list[Place]] = {}
        self._told: dict[str, list[Place]] = {}
        self._excusable: set[Place] = set()
        for path, text in texts.items():
            try:
                tree = ast.parse(text)
            except (SyntaxError, ValueError, RecursionError):
                continue
            self._add(path, tree)

    def _add(self, path: str, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = {base.id if isinstance(base, ast.Name) else getattr(base, "attr", "") for base in node.bases}
                self._bases.setdefault(node.name, set()).update(bases)
        for chain in definitions(tree):
            place = (path, tuple(node.name for node in chain))
            self._named.setdefault(chain[-1].name, []).append(place)
            if _speaks_of_xfail(tree, chain):
                self._excusable.add(place)
            told = (ast.get_docstring(chain[-1]) or "").strip().split("\n")[0].strip()
            if told:
                self._told.setdefault(told, []).append(place)

    def find(self, test: str) -> tuple[Place, ...]:
        """Places where a test's function may stand; () where it stands in none of the files.

        Args:
            test: a pytest id with or without a path, cut or not ("a/t.py::C::m[x", "C.m"), Django's ("m (a.t.C)"), a
                bare name, or the first line of a docstring, by which Django calls a test that has one.
        """
        told = self._told.get(test.strip()) or self._told.get(test.strip().removesuffix("..."))
        if told:
            return tuple(told)
        if match := NODE.match(test):
            return self._of(match["rest"].split("::"), lambda place: place[0] == match["path"])
        if match := DJANGO.fullmatch(test):
            owner = match["owner"].removesuffix(f".{match['name']}")
            module, _, name = owner.rpartition(".")
            ending = module.removesuffix(".__init__").replace(".", "/")
            return self._of(
                [name, match["name"]],
                lambda place: place[0].removesuffix(".py").removesuffix("/__init__").endswith(ending),
            )
        if match := DOTTED.fullmatch(test):
            return self._of(re.split(r"\.|::", match["rest"]), lambda place: True)
        return ()

    def is_excusable(self, place: Place) -> bool:
        """Whether a test's own text speaks of an expected failure: its function, or a mark of its class or module."""
        return place in self._excusable

    def _of(self, names: Sequence[str], is_own) -> tuple[Place, ...]:
        """Places of a class's method (or of a function): its own, else those it inherits."""
        *owners, name = names
        places = self._named.get(name, [])
        # Module names may stand before the class, the id of an inherited test names the class that inherits.
        exact = [place for place in places if place[1][-len(names) :] == tuple(names)]
        exact = exact or [place for place in places if len(owners) > 0 and place[1][-2:] == tuple(names[-2:])]
        exact = exact or ([place for place in places if len(place[1]) == 1] if not owners else [])
        own = [place for place in exact if is_own(place)]
        if own or (exact and not owners):
            return tuple(own)
        heirs = self._ancestors(owners[-1]) if owners else set()
        inherited = [place for place in places if len(place[1]) > 1 and place[1][-2] in heirs]
        # A mixin made at run time is no base that the text names.
        return tuple(inherited or (places if owners and len(places) == 1 else exact))

    def _ancestors(self, name: str) -> set[str]:
        found: set[str] = set()
        queue = [name]
        while queue:
            for base in self._bases.get(queue.pop(), ()):
                if base and base not in found:
                    found.add(base)
                    queue.append(base)
        return found


def _speaks_of_xfail(tree: ast.Module, chain: Sequence[ast.AST]) -> bool:
    """Whether the last definition of ``chain`` (behind its classes) does: its text, or a mark around it, also one that
    the module gives a name."""
    around = [tree, *chain[:-1]]
    told = [chain[-1], *(one for node in around for one in getattr(node, "decorator_list", ()))]
    told += [one for node in around for one in _assigned(node) if "pytestmark" in _names_in(one)]
    if any("xfail" in ast.dump(one).lower() for one in told):  # XFAIL is SymPy's
        return True
    marks = [one for one in _assigned(tree) if "xfail" in ast.dump(one)]  # on_windows = pytest.mark.xfail(…)
    named = {target.id for one in marks for target in one.targets if isinstance(target, ast.Name)}
    return any(named & _names_in(one) for one in told)


def _assigned(node: ast.AST) -> list[ast.Assign]:
    return [one for one in getattr(node, "body", ()) if isinstance(one, ast.Assign)]


def _names_in(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def words_of(test: str) -> str:
    """What the file of a test has to hold: its function's name ("def test_x"), or words of its docstring."""
    for pattern in (NODE, DJANGO, DOTTED):
        if match := pattern.fullmatch(test) if pattern is not NODE else pattern.match(test):
            name = match["name"] if pattern is DJANGO else re.split(r"\.|::", match["rest"])[-1]
            return f"def {name}"
    return test.strip().removesuffix("...")

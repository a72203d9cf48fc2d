"""Test files as they were before the repository could run: read first, compiled by us, and known again when they run.

Part of the program that runs in the sandbox (``testing_guest.py``): standard library and pytest only.
"""

import ast
import importlib.machinery
import importlib.util
import os
import sys
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

from . import twins
from .testing_builtins import bindable, compiled
from .twin_means import definitions, first_line

COMPILE: Any = compile
FIND: Any = importlib.machinery.PathFinder.find_spec
FLAGS = 0x1FF0000  # of "from __future__ import"
TEST_FOLDERS = ("test", "tests", "testing", "e2e")
MOST_FILES, MOST_BYTES = 3000, 64 << 20


class Pristine:
    """The bytes of test files, the code made of them, and where in them each function stands."""

    def __init__(self, workdir, files, plain=False, support=()):
        """
        Args:
            files: paths of the test files that are wanted; others in their folders are read too, and compiled when
                they are imported.
            plain: assertions are not rewritten.
            support: folders of the repository's own test support, which are read too.
        """
        self._texts, self._codes, self._nodes, self._home, self._builtins = {}, {}, {}, {}, {}
        self._rewrite = None if plain else rewriting()
        wanted = [os.path.abspath(os.path.join(workdir, path)) for path in files]
        inside = [path for folder in support for path in python_files(os.path.join(workdir, folder))]
        tests = [path for path in inside if os.path.basename(path).startswith("test_") or path.endswith("_test.py")]
        self._support = frozenset(inside) - {*tests, *wanted}
        for path in [*wanted, *neighbours(workdir, wanted), *inside]:
            if path not in self._texts and path.endswith(".py"):
                try:
                    with open(path, "rb") as file:
                        self._texts[path] = file.read()
                except OSError:
                    continue
        self._wanted = [path for path in wanted if path in self._texts]
        for path in self._wanted:
            self._code(path)

    def holds(self, path):
        return path in self._texts

    def is_its_code(self, code):
        """Whether code was made here, of a file that was read first."""
        return id(code) in self._home

    def supports(self, path):
        """Whether a file is of the repository's own test support."""
        return path in self._support

    def bytes_of(self, path):
        return self._texts[path]

    def altered(self):
        """A wanted file whose bytes are not what they were, or None."""
        for path in self._wanted:
            try:
                with open(path, "rb") as file:
                    if file.read() != self._texts[path]:
                        return path
            except OSError:
                return path
        return None

    def code_of(self, path):
        """The code of a file's module. Raises what compiling it raises."""
        code = self._code(path)
        if isinstance(code, Exception):
            raise code
        return code

    def _code(self, path):
        if path not in self._codes:
            try:
                code = self._compiled(path)
            except (SyntaxError, ValueError, RecursionError) as error:
                code = error
            else:
                self._remember(code, path)
            self._codes[path] = code
        return self._codes[path]

    def _compiled(self, path):
        text, name = self._texts[path], os.path.basename(path)
        rewritten = (
            path in self._wanted or name == "conftest.py" or name.startswith("test_") or name[:-3].endswith("_test")
        )
        tree = COMPILE(text, path, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        self._builtins[path] = bindable(tree, text)
        if rewritten and self._rewrite is not None:
            self._rewrite(tree, text, path, None)
        return compiled(tree, path, self._builtins[path])

    def _remember(self, code, path):
        self._home[id(code)] = (code, path)
        for one in code.co_consts:
            if isinstance(one, CodeType):
                self._remember(one, path)

    def function_of(self, obj, name):
        """The function of a test whose code is pristine, behind decorators too; None where there is none."""
        found = [one for one in functions_behind(obj) if id(one.__code__) in self._home]
        named = [one for one in found if one.__code__.co_name == name]
        return named[-1] if named else found[0] if found else None

    def twin_of(self, code, number):
        """Code that fails in the place of a pristine function's; None where it cannot be made."""
        _, path = self._home[id(code)]
        if path not in self._nodes:
            tree = COMPILE(self._texts[path], path, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
            chains = definitions(tree)
            self._nodes[path] = {(chain[-1].name, first_line(chain[-1])): chain for chain in chains}
        chain = self._nodes[path].get((code.co_name, code.co_firstlineno))
        tree = chain and twins.alone(chain, twins.failing(chain[-1], number))
        if not tree:
            return None
        if self._rewrite is not None:
            self._rewrite(tree, self._texts[path], path, None)
        try:
            module = compiled(tree, path, self._builtins[path], code.co_flags & FLAGS)
        except (SyntaxError, ValueError):
            return None
        shapes = ("co_freevars", "co_argcount", "co_posonlyargcount", "co_kwonlyargcount")
        for one in codes_in(module):
            if one.co_name == code.co_name and all(getattr(one, key) == getattr(code, key) for key in shapes):
                return one
        return None


def codes_in(code):
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from codes_in(one)


def rewriting():
    """pytest's rewriting of assertions (tree, source, path, config), or None for a pytest without it."""
    try:
        from _pytest.assertion.rewrite import rewrite_asserts
    except ImportError:
        return None
    return rewrite_asserts


def neighbours(workdir, wanted):
    """Python files of the test folders that hold wanted files, and the conftest files above them."""
    roots, found, size = [], [], 0
    for path in wanted:
        inside = os.path.relpath(os.path.dirname(path), workdir).split(os.sep)
        depth = next((n for n, part in enumerate(inside) if part in TEST_FOLDERS), len(inside) - 1)
        roots.append(os.path.normpath(os.path.join(workdir, *inside[: depth + 1])))
        found += [os.path.join(workdir, *inside[:n], "conftest.py") for n in range(len(inside) + 1)]
    for root in dict.fromkeys(roots):
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if name[0] != "." and name != "__pycache__"]
            if root == workdir:
                folders[:] = []
            for name in names:
                path = os.path.join(folder, name)
                if not name.endswith(".py") or (root == workdir and "test" not in name):
                    continue
                size += os.path.getsize(path) if os.path.isfile(path) else 0
                if len(found) > MOST_FILES or size > MOST_BYTES:
                    return found
                found.append(path)
    return [os.path.normpath(path) for path in found]


def python_files(folder):
    return [os.path.join(top, name) for top, _, names in os.walk(folder) for name in names if name.endswith(".py")]


def functions_behind(obj):
    """Functions that a callable is or wraps, the outermost first."""
    seen, queue = set(), [obj]
    while queue and len(seen) < 200:
        one = queue.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, MethodType):
            queue.append(one.__func__)
        elif isinstance(one, partial):
            queue.append(one.func)
        elif isinstance(one, FunctionType):
            yield one
            for cell in one.__closure__ or ():
                try:
                    queue.append(cell.cell_contents)
                except ValueError:  # empty
                    continue
        if isinstance(one, (staticmethod, classmethod)):
            queue.append(one.__func__)
        members = getattr(one, "__dict__", None)
        if isinstance(members, dict) and not isinstance(one, type):
            # __wrapped__, and what libraries keep of the function they wrap (hypothesis, callable objects)
            queue += [value for value in members.values() if callable(value) and not isinstance(value, type)]
            queue += [getattr(v, "inner_test", None) for key, v in members.items() if key == "hypothesis"]


class Finder:
    """Finds the environment's modules before the repository's, so that no file of a patch can stand in for them, and
    gives test files their pristine code.

    ``owned`` are the top-level names that the repository itself brings at its base commit: those it may define.
    """

    def __init__(self, path, owned, pristine):
        self._path, self._owned, self._pristine = list(path), frozenset(owned), pristine
        self.loaded: Any = None
        """Called with each module of the repository's own test support, when it has been loaded."""
        self.sources: Any = ()
        """Where names that the repository has are looked for first, in place of the search path alone."""
        self._loader = loader_for(pristine, self)

    def find_spec(self, name, path=None, target=None):
        if path is None and name not in self._owned:
            spec = FIND(name, self._path)
            if spec is not None:
                return spec
        from_sources = path is None and bool(self.sources) and name in self._owned
        spec = (FIND(name, self.sources) if from_sources else None) or FIND(name, path)
        origin = spec and spec.origin
        if not origin or not self._pristine.holds(os.path.abspath(origin)):
            return spec if from_sources else None
        origin = os.path.abspath(origin)
        inside = spec.submodule_search_locations
        return importlib.util.spec_from_file_location(
            name, origin, loader=self._loader(name, origin), submodule_search_locations=inside
        )


def loader_for(pristine, finder):
    """A loader's class; an AssertionRewritingHook too, so that pytest does not miss its own."""
    hook: Any = getattr(sys.modules.get("_pytest.assertion.rewrite"), "AssertionRewritingHook", object)
    code_of, bytes_of, run = pristine.code_of, pristine.bytes_of, exec

    class Loader(importlib.machinery.SourceFileLoader, hook):
        def create_module(self, spec):
            return None

        def exec_module(self, module):
            run(code_of(self.path), module.__dict__)
            if finder.loaded is not None and pristine.supports(self.path):
                finder.loaded(module)

        def get_code(self, fullname):
            return code_of(self.path)

        def get_data(self, path):
            return bytes_of(path) if path == self.path else super().get_data(path)

    return Loader

"""Allow-lists: what is an entry, what it covers, and what a task gets of what it asks for."""

import pytest

from verigym.envs.sandbox.network.attach import granted
from verigym.envs.sandbox.network.policy import Host, NetworkPolicy, host_name
from verigym.errors import ConfigError

ODD_NAMES = [
    *("", "localhost", "127.0.0.1", "0x7f.1", "127.1", "2130706433", "0177.0.0.1", "::1", "[::1]", "1.2.3.4.", "*"),
    *(
        "a..b.com",
        "-a.com",
        "a-.com",
        "a b.com",
        "a.com\n",
        "exämple.com",
        "a.com%00",
        "a" * 64 + ".com",
        "a." * 130 + "com",
    ),
    *("a.com/", "user@a.com", "a.c", "a.1com"),
]


@pytest.mark.parametrize("text", ODD_NAMES)
def test_what_is_no_dns_name_is_no_host(text):
    assert host_name(text) is None
    with pytest.raises(ConfigError, match="is no host of an allow-list"):
        Host.parse(text)


@pytest.mark.parametrize("text", ["pypi.org:0", "pypi.org:65536", "pypi.org:http", "pypi.org:", "*.*.org", "a.*.org"])
def test_odd_entries_are_refused(text):
    with pytest.raises(ConfigError):
        Host.parse(text)


def test_names_are_compared_in_one_form():
    assert host_name("PyPI.org.") == "pypi.org"
    assert Host.parse("PyPI.ORG.").covers("pypi.org", 443)


@pytest.mark.parametrize(
    ("entry", "name", "port", "covered"),
    [
        ("pypi.org", "pypi.org", 443, True),
        ("pypi.org", "pypi.org", 80, True),
        ("pypi.org", "pypi.org", 22, False),
        ("pypi.org", "files.pypi.org", 443, False),
        ("pypi.org", "notpypi.org", 443, False),
        ("pypi.org:8443", "pypi.org", 8443, True),
        ("pypi.org:8443", "pypi.org", 443, False),
        ("*.pypi.org", "files.pypi.org", 443, True),
        ("*.pypi.org", "a.b.pypi.org", 443, True),
        ("*.pypi.org", "pypi.org", 443, False),
        ("*.pypi.org", "evilpypi.org", 443, False),
    ],
)
def test_an_entry_covers_what_it_says(entry, name, port, covered):
    assert NetworkPolicy.parse({"hosts": [entry]}).allows(name, port) is covered


def test_nothing_is_the_default():
    for nothing in (None, {}, NetworkPolicy()):
        policy = NetworkPolicy.parse(nothing)
        assert not policy
        assert not policy.allows("pypi.org", 443)


@pytest.mark.parametrize(
    "value",
    [{"host": ["a.com"]}, {"hosts": "a.com"}, {"ports": {"db": 0}}, {"ports": {"a-b": 80}}, {"ports": {"db": "x"}}],
)
def test_settings_that_are_none_get_one_message(value):
    with pytest.raises(ConfigError, match="network"):
        NetworkPolicy.parse(value)


class Backend:
    def __init__(self, name):
        self.name = name


def test_a_task_gets_what_it_asks_for_and_its_user_allows(caplog):
    allowed = NetworkPolicy.parse({"hosts": ["pypi.org", "*.files.org", "git.org:9418"], "ports": {"db": 5432, "x": 1}})
    hosts = [
        "pypi.org",
        "pypi.org:443",
        "pypi.org:22",
        "*.pypi.org",
        "*.files.org",
        "a.files.org",
        "git.org",
        "1.2.3.4",
    ]
    given = granted(allowed, Backend("local"), "one", hosts=hosts, ports=["db", "other"])
    assert [(one.name, one.ports, one.below) for one in given.hosts] == [
        ("pypi.org", (80, 443), False),
        ("pypi.org", (443,), False),
        ("files.org", (80, 443), True),
        ("a.files.org", (80, 443), False),
    ]
    assert given.ports == {"db": 5432}
    assert "one asks for pypi.org:22, *.pypi.org, git.org, 1.2.3.4, other" in caplog.text


def test_what_nobody_asked_for_is_not_given():
    allowed = NetworkPolicy.parse({"hosts": ["pypi.org"], "ports": {"db": 5432}})
    assert not granted(allowed, Backend("local"), "one", hosts=[])


def test_a_sandbox_that_is_on_the_network_has_no_allow_list():
    allowed = NetworkPolicy.parse({"hosts": ["pypi.org"]})
    with pytest.raises(ConfigError, match="unsafe"):
        granted(allowed, Backend("unsafe"), "one", hosts=["pypi.org"])

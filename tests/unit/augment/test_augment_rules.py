"""Rules: the first pattern that fits decides, in one step a character."""

import json
import pickle
import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from roadstead.augment.plan import Plan, PlanInvalidError
from roadstead.augment.rules import Rule, Rules, RulesInvalidError
from roadstead.oci.pattern import Glob, Pattern, PatternInvalidError
from roadstead.oci.reference import RepositoryName, Tag

UNHURRIED = settings(deadline=None)  # a busy machine isn't a mistake of ours


def rules(*matches: str) -> Rules:
    return Rules(Rule(Pattern.parse(match), Plan(env=(("RULE", match),))) for match in matches)


def first(given: Rules, name: str) -> str | None:
    repository, _, tag = name.partition(":")
    plan = given.first_match(RepositoryName.parse(repository), Tag.parse(tag))
    return None if plan is None else plan.env[0][1]


@pytest.mark.parametrize(
    ("pattern", "fits", "fails"),
    [
        ("library/*:latest", ["library/busybox:latest"], ["library/busybox:1", "library/a/b:latest", "team/a:latest"]),
        ("library/*", ["library/a:1", "library/a:latest"], ["library/a/b:1", "xlibrary/a:1"]),
        ("team/**", ["team/a:1", "team/a/b/c:2"], ["team:1", "teams/a:1"]),
        ("**", ["a:1", "a/b/c:latest"], []),
        ("*", ["a:1"], ["a/b:1"]),
        ("**/web", ["a/web:1", "a/b/web:1"], ["web:1", "a/webs:1"]),
        ("team/**/web", ["team/a/web:1", "team/a/b/web:1"], ["team/web:1"]),
        ("team/web-*-x", ["team/web-a-x:1", "team/web-a-b-x:1"], ["team/web-x:1", "team/web-a/b-x:1"]),
        ("team/web", ["team/web:1"], ["team/web2:1", "team/we:1"]),
        ("a:v*", ["a:v", "a:v1.2"], ["a:1", "a:xv"]),
        ("a:*-rc*", ["a:1-rc", "a:1-rc2"], ["a:1"]),
        ("a:*", ["a:x"], ["b:x"]),
        ("team.x/*", ["team.x/a:1"], ["teamyx/a:1"]),
    ],
)
def test_a_pattern_fits_what_the_documentation_says(pattern: str, fits: list[str], fails: list[str]) -> None:
    """`*` stays within a component, `**` crosses; no tag part means every tag."""
    given = rules(pattern)

    assert [name for name in fits + fails if first(given, name) is not None] == fits


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "empty"),
        (":latest", "repository part is empty"),
        ("library/x:", "tag part is empty"),
        ("host:5000/x:y", "more than one"),
        ("host:5000/x", "'/'"),
        ("Library/*", "'L'"),
        ("library/[ab]", r"'\['"),
        ("library/?", r"'\?'"),
        ("library/{a,b}", "'{'"),
        ("lib rary", "' '"),
        ("library/x\n", "can't be in a repository"),
        ("/library", "empty component"),
        ("library/", "empty component"),
        ("a//b", "empty component"),
        ("a/***", r"\*\*\*"),
        ("a:**", "enough"),
        ("a:b/c", "'/'"),
        ("a@sha256:0123", "digest"),
        ("a" * 600, "longer"),
    ],
)
def test_a_bad_pattern_says_what_is_wrong(pattern: str, said: str) -> None:
    """A pattern that can't match anything is an error at start, not silence for ever."""
    with pytest.raises(PatternInvalidError, match=said) as caught:
        Pattern.parse(pattern)
    assert caught.value.advice()


@UNHURRIED
@given(st.text("ab/*", max_size=8), st.text("ab/", max_size=10))
@example("a**b", "a/b")
def test_a_glob_means_what_the_regular_expression_means(glob: str, name: str) -> None:
    """The automaton agrees with `re` on every pattern; `re` just may take long."""
    regex = "".join({"**": ".*", "*": "[^/]*"}.get(token, re.escape(token)) for token in re.findall(r"\*\*|.", glob))

    assert Glob(glob).matches(name) == bool(re.fullmatch(regex, name, re.DOTALL))


def test_a_match_takes_one_step_a_character() -> None:
    """The pattern and the name that make backtracking explode are read once: each character is asked for once."""

    class Counted(str):
        __slots__ = ("steps",)

        def __iter__(self) -> Iterator[str]:
            self.steps = 0
            for character in str.__iter__(self):
                self.steps += 1
                yield character

    name = Counted("a" * 255)

    assert not Glob("*a" * 120 + "b").matches(name)
    assert name.steps <= 255


def test_the_first_rule_that_matches_wins() -> None:
    """Order decides, not how exact a pattern is."""
    given = rules("team/web:edge", "team/*", "team/web", "**:latest")

    assert first(given, "team/web:edge") == "team/web:edge"
    assert first(given, "team/web:1") == "team/*"
    assert first(given, "other/x:latest") == "**:latest"
    assert first(given, "other/x:1") is None


def test_answers_are_remembered() -> None:
    """The same question gets the same object, found without matching again."""
    given = rules("team/*")
    name, tag = RepositoryName.parse("team/web"), Tag.parse("1")

    assert given.first_match(name, tag) is given.first_match(RepositoryName.parse("team/web"), Tag.parse("1"))


def test_no_rules_match_nothing() -> None:
    """Without rules nothing is asked."""
    assert first(Rules(), "a:1") is None


def test_rules_go_to_another_process_unchanged() -> None:
    """Through JSON and through pickle: same order, same plans, same digests."""
    given = rules("team/web:edge", "team/*")

    for again in (Rules.from_json(given.to_json()), pickle.loads(pickle.dumps(given))):
        assert again == given
        assert hash(again) == hash(given)
        assert [rule.plan.digest for rule in again.rules] == [rule.plan.digest for rule in given.rules]
        assert first(again, "team/x:1") == "team/*"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rules":[1]}', '{"rules":[{"match":"a"}]}', "null"])
def test_other_texts_are_not_rules(text: str) -> None:
    """What `to_json` didn't write is refused by name."""
    with pytest.raises(RulesInvalidError):
        Rules.from_json(text)


def test_rules_from_elsewhere_are_checked() -> None:
    """A pattern or a plan that isn't one is refused on arrival."""
    with pytest.raises(PatternInvalidError):
        Rules.from_json(json.dumps({"rules": [{"match": "//", "plan": "{}"}]}))
    with pytest.raises(PlanInvalidError):
        Rules.from_json(json.dumps({"rules": [{"match": "a", "plan": "{}"}]}))

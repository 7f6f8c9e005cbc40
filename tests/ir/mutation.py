"""Damaged IR text, for tests of the parser."""

from __future__ import annotations

import random
import re

TOKEN = re.compile(r'%[\w.]+|"[^"]*"|-?\d+(?:\.\d*)?(?:e[+-]?\d+)?|\w+|[^\w\s]')
NUMBERS = (
    "0",
    "1",
    "-1",
    "2",
    "7",
    "64",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "1" * 30,
    "1e999",
    "nan",
)
CHARACTERS = '%{}[]():,="\\@/-. \n\t\x00é0aZ_'


def mutate(rng: random.Random, text: str) -> str:
    """`text` with one to three random changes to characters, tokens or lines."""
    for _ in range(rng.randint(1, 3)):
        text = rng.choice(_CHANGES)(rng, text)
    return text


def _character(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(["", rng.choice(CHARACTERS)]) + text[at + rng.randint(0, 1) :]


def _tokens(rng: random.Random, text: str, replacement: str) -> str:
    found = list(TOKEN.finditer(text))
    if not found:
        return text
    place = rng.choice(found)
    return text[: place.start()] + replacement + text[place.end() :]


def _token(rng: random.Random, text: str) -> str:
    found = TOKEN.findall(text)
    return _tokens(rng, text, rng.choice([*found, ""]))


def _number(rng: random.Random, text: str) -> str:
    found = list(re.finditer(r"(?<![\w%.])-?\d+", text))
    if not found:
        return text
    place = rng.choice(found)
    return text[: place.start()] + rng.choice(NUMBERS) + text[place.end() :]


def _line(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    change = rng.randrange(3)
    if change == 0:
        lines[i], lines[j] = lines[j], lines[i]
    elif change == 1:
        lines.insert(i, lines[j])
    else:
        del lines[i]
    return "\n".join(lines)


def _cut(rng: random.Random, text: str) -> str:
    return text[: rng.randrange(len(text) + 1)]


_CHANGES = (_character, _character, _token, _token, _number, _number, _line, _cut)

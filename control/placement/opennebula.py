"""SCHED_REQUIREMENTS and SCHED_RANK of OpenNebula templates in our own language of expressions.

Attributes: https://docs.opennebula.io/7.0/product/operation_references/configuration_references/template (section
"Placement"). CPU is counted there in percent of a core, memory in KiB. What we do not know is a label of the host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from control.placement.expressions import Type, parse
from core.errors import Invalid

_NUMBERS: Mapping[str, str] = {
    "FREE_CPU": "(cpu_free * 100)", "TOTAL_CPU": "(cpus * 100)", "MAX_CPU": "(cpus * 100)",
    "CPU_USAGE": "((cpus - cpu_free) * 100)", "USED_CPU": "(load * cpus * 100)",
    "FREE_MEM": "(memory_free_mib * 1024)", "FREE_MEMORY": "(memory_free_mib * 1024)",
    "TOTAL_MEM": "(memory_mib * 1024)", "MAX_MEM": "(memory_mib * 1024)",
    "MEM_USAGE": "((memory_mib - memory_free_mib) * 1024)", "RUNNING_VMS": "instances",
}  # fmt: skip
_TEXTS: Mapping[str, str] = {
    "NAME": "name", "HOSTNAME": "name", "HYPERVISOR": "driver", "VM_MAD": "driver", "CLUSTER": "cluster",
    "ARCH": "arch",
}  # fmt: skip
_SIGNS: Mapping[str, str] = {"=": "==", "&": "and", "|": "or", "!": "not", "&&": "and", "||": "or"}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<text>\"[^\"]*\")|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>!=|<=|>=|==|&&|\|\||[-+*/<>()=&|!])|(?P<end>$))"
)


def requirements(text: str) -> str:
    """Return SCHED_REQUIREMENTS as a requirement of ours. Raise Invalid."""
    return _checked(text, " ".join(_compared(_tokens(text))), Type.TRUTH)


def rank(text: str) -> str:
    """Return SCHED_RANK as a rank of ours. Raise Invalid."""
    words = [_numeric(said) if kind == "name" else said for kind, said in _tokens(text)]
    return _checked(text, " ".join(words), Type.NUMBER)


def _checked(text: str, translated: str, wanted: Type) -> str:
    try:
        parse(translated, wanted)
    except Invalid as error:
        raise Invalid(f"OpenNebula's {text!r} is not understood: {error.message}", "expression") from error
    return translated


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    while match := _TOKEN.match(text, at):
        kind = str(match.lastgroup)
        if kind == "end":
            return found
        found.append((kind, match[kind]))
        at = match.end()
    raise Invalid(f"OpenNebula's {text!r}, column {at + 1}: {text[at:].lstrip()[:1]!r} is not understood", "expression")


def _numeric(name: str) -> str:
    return _NUMBERS.get(name.upper()) or f"number({_TEXTS.get(name.upper(), f'label.{name}')})"


def _compared(tokens: list[tuple[str, str]]) -> list[str]:
    """Return the words of a requirement; a name's type is that of what it is compared with."""
    words: list[str] = []
    for n, (kind, said) in enumerate(tokens):
        value_kind, value = tokens[n + 2] if n + 2 < len(tokens) else ("", "")
        if kind == "name" and value_kind == "text" and said.upper() not in _NUMBERS:
            words.append(_TEXTS.get(said.upper(), f"label.{said}"))
            if "*" in value and tokens[n + 1][1] in ("=", "==", "!="):
                words[-1] = f"{'not ' if tokens[n + 1][1] == '!=' else ''}{words[-1]}"
        elif kind == "name":
            words.append(_numeric(said))
        elif kind == "sign" and said in ("=", "==", "!=") and "*" in (tokens[n + 1][1] if n + 1 < len(tokens) else ""):
            words.append("like")
        else:
            words.append(_SIGNS.get(said, said) if kind == "sign" else said)
    return words

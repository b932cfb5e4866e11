"""Writes the parts of docs/python.md that say what the code says: `make docs` runs it.

A part begins with a comment that names a class, and what to leave out of it; `()` shows how one is made:

    <!-- api: Client() without lifecycle -->

and ends with `<!-- /api -->`. What is between is made from signatures and docstrings, read without importing them.
`<!-- errors -->` is the tree of exported errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/python.md"
SOURCES = [ROOT / folder for folder in ("sdk/python", "infra", "state_machine")]

_PART = re.compile(r"(<!-- (api: [^\n]*|errors) -->\n).*?(<!-- /api -->)", re.DOTALL)
_TWIN = re.compile(r"^`\w+`, async\.$")
_ANNOTATED = re.compile(r"Annotated\[((?:[^,\[\]]|\[[^\]]*\])+), .*\]$")


def render(page: str) -> str:
    """The page with every part made anew."""
    package = griffe.load("detent", search_paths=SOURCES, resolve_aliases=True, resolve_external=True)
    assert isinstance(package, griffe.Module)

    def made(part: re.Match[str]) -> str:
        begin, what, end = part.groups()
        if what == "errors":
            body = "\n".join(error_lines(package))
        else:
            name, _, hidden = what.removeprefix("api: ").partition(" without ")
            cls = find(package, name.removesuffix("()"))
            body = "\n\n".join(class_parts(cls, set(hidden.split()), constructor=name.endswith("()")))
        return f"{begin}\n{body}\n\n{end}"

    return _PART.sub(made, page)


def find(package: griffe.Module, name: str) -> griffe.Class:
    found = package[name]
    target = found.final_target if isinstance(found, griffe.Alias) else found
    assert isinstance(target, griffe.Class), f"{name} is not a class"
    return target


def class_parts(cls: griffe.Class, hidden: set[str], *, constructor: bool) -> Iterator[str]:
    fields = "dataclass" in cls.labels or any(str(base) in ("BaseModel", "TypedDict") for base in cls.bases)
    if constructor:
        shown = [each for each in cls.parameters if each.name not in hidden and each.name != "self"]
        yield f"`{cls.name}({parameters(shown)})`"
    if cls.docstring is not None:
        yield text(cls.docstring.value)
    items: list[str] = []
    for name, member in cls.members.items():
        if name.startswith("_") or name in hidden or isinstance(member, griffe.Alias):
            continue
        said = "" if member.docstring is None else text(member.docstring.value)
        if isinstance(member, griffe.Attribute) and (said or fields):
            items.append(item(attribute(member), said))
        elif isinstance(member, griffe.Function) and said and not _TWIN.match(said):
            items.append(item(signature(member), said))
    if items:
        yield "\n".join(items)


def item(head: str, said: str) -> str:
    first, *rest = said.split("\n")
    return "\n".join([f"- `{head}`{' — ' if first else ''}{first}", *(f"  {line}" if line else "" for line in rest)])


def attribute(member: griffe.Attribute) -> str:
    head = member.name if member.annotation is None else f"{member.name}: {typed(member.annotation)}"
    if member.value is None or "property" in member.labels or str(member.value).startswith(("dict", "field")):
        return head
    return f"{head} = {member.value}"


def signature(function: griffe.Function) -> str:
    shown = parameters(each for each in function.parameters if each.name != "self")
    returns = typed(function.returns) if function.returns is not None else "None"
    return f"{function.name}({shown})" + ("" if returns == "None" else f" -> {returns}")


def parameters(given: Iterable[griffe.Parameter]) -> str:
    shown: list[str] = []
    named = False
    for each in given:
        kind = each.kind or griffe.ParameterKind.positional_or_keyword
        if kind is griffe.ParameterKind.keyword_only and not named:
            shown.append("*")
            named = True
        stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(kind, "")
        named = named or stars == "*"
        text = f"{stars}{each.name}" + ("" if each.annotation is None else f": {typed(each.annotation)}")
        shown.append(text if each.default is None or stars else f"{text} = {value(each.default)}")
    return ", ".join(shown)


def value(default: object) -> str:
    """A default as a reader wants it: what a constant stands for."""
    resolved = default.resolved if isinstance(default, griffe.ExprName) else None
    target = resolved.final_target if isinstance(resolved, griffe.Alias) else resolved
    constant = None if not isinstance(target, griffe.Attribute) else target.value
    named = str(default) if constant is None else str(constant)
    return "…" if "(" in named and constant is not None else named


def typed(annotation: object) -> str:
    """A type as a reader wants it: type variables without their underscore, no constraints, nothing about Any."""
    name = re.sub(r"\b_([A-Z]\w*)", r"\1", str(annotation))
    return re.sub(r"\[(\.\.\., )?Any(, Any)*\]", "", _ANNOTATED.sub(r"\1", name))


def text(docstring: str) -> str:
    """Paragraphs on one line each, so that the page wraps where its reader likes; indented code is kept."""
    paragraphs = docstring.strip().split("\n\n")
    return "\n\n".join(part if part.startswith("    ") else " ".join(part.split()) for part in paragraphs)


def error_lines(package: griffe.Module) -> Iterator[str]:
    """The exported errors as a tree, in the order of their declaration."""
    exported = [find(package, str(name)) for name in package.exports or () if package[str(name)].is_class]

    def under(base: str, depth: int) -> Iterator[str]:
        children = [each for each in exported if any(str(found).split(".")[-1] == base for found in each.bases)]
        for child in sorted(children, key=lambda each: (each.module.path, each.lineno or 0)):
            said = "" if child.docstring is None else text(child.docstring.value).split("\n\n")[0]
            yield f"{'  ' * depth}- `{child.name}` — {said}"
            yield from under(child.name, depth + 1)

    return under("DetentError", 0)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))

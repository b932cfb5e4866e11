"""Table values and writes in DynamoDB's terms. Pure translation: what they mean is in `detent_state_machine.writes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from detent_state_machine.errors import CorruptRecord, InputError
from detent_state_machine.writes import (
    AllOf,
    AnyOf,
    DeleteItem,
    Equals,
    Expect,
    Item,
    Key,
    LessThan,
    Missing,
    OneOf,
    PutItem,
    UpdateItem,
    Value,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import (
        AttributeValueTypeDef,
        DeleteTypeDef,
        PutTypeDef,
        UpdateTypeDef,
    )

KEY_NAMES = ("pk", "sk")


def to_attribute(value: Value) -> AttributeValueTypeDef:
    match value:
        case bool():  # before int, which bool is a kind of
            return {"BOOL": value}
        case str():
            return {"S": value}
        case int():
            return {"N": str(value)}
        case frozenset():
            texts = [member for member in value if isinstance(member, str)]
            numbers = [str(member) for member in value if isinstance(member, int)]
            if not value:
                raise InputError("A table attribute cannot be an empty set.", advice="Leave the attribute out.")
            return {"SS": sorted(texts)} if texts else {"NS": sorted(numbers)}
        case _:
            assert_never(value)


def to_item(attributes: Mapping[str, AttributeValueTypeDef]) -> Item:
    """The item without its key. Raises `CorruptRecord` for a kind of value that detent never writes."""
    return {_unescaped(name): _value(name, stored) for name, stored in attributes.items() if name not in KEY_NAMES}


def to_key(attributes: Mapping[str, AttributeValueTypeDef]) -> Key:
    return Key(attributes["pk"].get("S", ""), attributes["sk"].get("S", ""))


def key_attributes(key: Key) -> dict[str, AttributeValueTypeDef]:
    return {"pk": {"S": key.pk}, "sk": {"S": key.sk}}


def _escaped(name: str) -> str:
    """The name in DynamoDB, where the key's own attributes stand beside the item's: `pk` is `_pk`, `_pk` is `__pk`."""
    return f"_{name}" if name.lstrip("_") in KEY_NAMES else name


def _unescaped(name: str) -> str:
    return name[1:] if name.startswith("_") and name.lstrip("_") in KEY_NAMES else name


def _value(name: str, stored: AttributeValueTypeDef) -> Value:
    match stored:
        case {"S": str(text)}:
            return text
        case {"BOOL": bool(flag)}:
            return flag
        case {"N": str(number)}:
            return _whole(name, number)
        case {"NS": numbers}:
            return frozenset(_whole(name, number) for number in numbers)
        case {"SS": texts}:
            return frozenset(texts)
        case _:
            raise CorruptRecord(f"The attribute {name!r} is of a kind that detent does not write: {list(stored)}.")


def _whole(name: str, number: str) -> int:
    try:
        return int(number)
    except ValueError:
        raise CorruptRecord(f"The attribute {name!r} is not a whole number: {number}.") from None


@dataclass(slots=True)
class Aliases:
    """Stand-ins for the names and values of one request.

    Every name gets one: `status`, `key` and more of detent's names are reserved words, and a user may choose any.
    """

    names: dict[str, str] = field(default_factory=dict[str, str])
    values: dict[str, AttributeValueTypeDef] = field(default_factory=dict[str, "AttributeValueTypeDef"])

    def name(self, attribute: str) -> str:
        """Of an item's attribute."""
        return self.raw(_escaped(attribute))

    def raw(self, attribute: str) -> str:
        """Of an attribute as DynamoDB has it."""
        for alias, known in self.names.items():
            if known == attribute:
                return alias
        alias = f"#n{len(self.names)}"
        self.names[alias] = attribute
        return alias

    def value(self, value: Value) -> str:
        alias = f":v{len(self.values)}"
        self.values[alias] = to_attribute(value)
        return alias


def condition(expect: Expect, aliases: Aliases) -> str:
    """The condition as a ConditionExpression."""
    return _condition(expect, aliases)[0]


def _condition(expect: Expect, aliases: Aliases) -> tuple[str, bool]:
    """The expression, and whether it needs parentheses inside another one (DynamoDB refuses superfluous ones)."""
    match expect:
        case Missing():
            return f"attribute_not_exists({aliases.raw('pk')})", False
        case Equals(name, value):
            return f"{aliases.name(name)} = {aliases.value(value)}", False
        case OneOf(name, values) if values:
            return f"{aliases.name(name)} IN ({', '.join(aliases.value(value) for value in values)})", False
        case OneOf():
            return _condition(AnyOf(()), aliases)
        case LessThan(name, limit):
            return f"{aliases.name(name)} < {aliases.value(limit)}", False
        case AllOf(parts):
            return _joined("AND", parts, aliases)
        case AnyOf(parts):
            return _joined("OR", parts, aliases)
        case _:
            assert_never(expect)


def _joined(word: str, parts: tuple[Expect, ...], aliases: Aliases) -> tuple[str, bool]:
    if not parts:
        # All of nothing is true and any of nothing is false; DynamoDB has no literal for either.
        pk = aliases.raw("pk")
        other = "OR" if word == "AND" else "AND"
        return f"attribute_exists({pk}) {other} attribute_not_exists({pk})", True
    if len(parts) == 1:
        return _condition(parts[0], aliases)
    texts = [_condition(part, aliases) for part in parts]
    return f" {word} ".join(f"({text})" if composite else text for text, composite in texts), True


def put_request(table: str, write: PutItem) -> PutTypeDef:
    item = {_escaped(name): to_attribute(value) for name, value in write.item.items()}
    request: PutTypeDef = {"TableName": table, "Item": {**item, **key_attributes(write.key)}}
    _add_condition(request, write.expect, Aliases())
    return request


def update_request(table: str, write: UpdateItem) -> UpdateTypeDef:
    aliases = Aliases()
    clauses = {
        "SET": [f"{aliases.name(name)} = {aliases.value(value)}" for name, value in write.set.items()],
        "ADD": [f"{aliases.name(name)} {aliases.value(value)}" for name, value in write.add.items()],
        "REMOVE": [aliases.name(name) for name in write.remove],
    }
    if not any(clauses.values()):
        # An update that only checks still needs an expression in a transaction; removing what is never there is none.
        clauses["REMOVE"] = [aliases.raw("_nothing")]
    text = " ".join(f"{word} {', '.join(parts)}" for word, parts in clauses.items() if parts)
    request: UpdateTypeDef = {"TableName": table, "Key": key_attributes(write.key), "UpdateExpression": text}
    _add_condition(request, write.expect, aliases)
    return request


def delete_request(table: str, write: DeleteItem) -> DeleteTypeDef:
    request: DeleteTypeDef = {"TableName": table, "Key": key_attributes(write.key)}
    _add_condition(request, write.expect, Aliases())
    return request


def _add_condition(
    request: PutTypeDef | UpdateTypeDef | DeleteTypeDef, expect: Expect | None, aliases: Aliases
) -> None:
    if expect is not None:
        request["ConditionExpression"] = condition(expect, aliases)
        # The refusal brings the stored item along, so nobody reads it again.
        request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    if aliases.names:
        request["ExpressionAttributeNames"] = aliases.names
    if aliases.values:
        request["ExpressionAttributeValues"] = aliases.values

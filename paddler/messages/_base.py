"""Base classes of the messages."""

import msgspec


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object of the public wire that refuses unknown keys; absent values are ``null``."""


class OneOf(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """An externally tagged enum: exactly one field is set, its name is the variant."""

    def __post_init__(self) -> None:
        fields = self.__struct_fields__
        if sum(getattr(self, name) is not msgspec.UNSET for name in fields) != 1:
            names = ", ".join(self.__struct_encode_fields__)
            raise ValueError(f"expected an object with exactly one of the keys {names}")


class Wire(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """A message between our own processes. Unknown fields are ignored: an older peer talks on."""

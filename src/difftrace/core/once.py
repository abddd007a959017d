"""Attributes computed when first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class once(Generic[Value]):  # noqa: N801
    """`functools.cached_property` without its lock.

    Before Python 3.12 that holds one lock for all instances while it computes. A fork meanwhile leaves the lock held
    in the child for ever. Here two threads may compute the same value twice, which is all that can happen.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> once[Value]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> once[Value] | Value:
        if instance is None:
            return self
        # Found there from now on, for this descriptor defines no __set__.
        value = instance.__dict__[self._name] = self._compute(instance)
        return value
